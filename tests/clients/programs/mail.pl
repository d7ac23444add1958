# Net::SMTP, as scripts of the last century use it: the program writes the message itself.
use strict;
use warnings;
use Encode qw(decode encode);
use MIME::Base64 qw(encode_base64);
use Net::SMTP;

open(my $file, '<:raw', $ENV{ATTACHMENT}) or die $!;
my $attachment = do { local $/; <$file> };
my $subject = encode('MIME-Header', decode('UTF-8', $ENV{SUBJECT}));

my $smtp = Net::SMTP->new('127.0.0.1', Port => $ENV{PORT}, Hello => 'server', Timeout => 20) or die "no connection";
$smtp->mail('jan@example.nl') && $smtp->to('piet@example.org') && $smtp->data() or die $smtp->message;
$smtp->datasend("From: Jan <jan\@example.nl>\nTo: piet\@example.org\nSubject: $subject\nMIME-Version: 1.0\n");
$smtp->datasend("Content-Type: multipart/mixed; boundary=grens\n\n--grens\nContent-Type: text/plain\n\n");
$smtp->datasend("Bijgaand de factuur.\n.\n..\n--grens\nContent-Type: application/pdf; name=factuur.pdf\n");
$smtp->datasend("Content-Disposition: attachment; filename=factuur.pdf\nContent-Transfer-Encoding: base64\n\n");
$smtp->datasend(encode_base64($attachment) . "--grens--\n");
$smtp->dataend() or die $smtp->message;
$smtp->quit;
