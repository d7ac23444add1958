<?php
// PHPMailer, as a web shop uses it.
require '/usr/share/php/libphp-phpmailer/autoload.php';

$mail = new PHPMailer\PHPMailer\PHPMailer(true);
$mail->isSMTP();
$mail->Host = '127.0.0.1';
$mail->Port = (int) getenv('PORT');
$mail->SMTPAuth = true;
$mail->Username = 'webwinkel';
$mail->Password = 'geheim';
$mail->CharSet = 'UTF-8';
$mail->setFrom('jan@example.nl', 'Jan Müller');
$mail->addAddress('piet@example.org');
$mail->Subject = getenv('SUBJECT');
$mail->Body = "Bijgaand de factuur.\n.\n..\nMet vriendelijke groet, één";
$mail->addAttachment(getenv('ATTACHMENT'), 'factuur.pdf');
$mail->send();
