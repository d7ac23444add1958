"""What the octets of a client are made of: pieces that mean something to some reader of them."""

from __future__ import annotations

COMMANDS = (
    b"EHLO pc\r\n",
    b"HELO pc\r\n",
    b"MAIL FROM:<jan@example.nl>\r\n",
    b"RCPT TO:<piet@example.com>\r\n",
    b"RCPT TO:<piet@example.com> NOTIFY=NEVER ORCPT=rfc822;a+20b\r\n",
    b"DATA\r\n",
    b"BDAT 5\r\n",
    b"BDAT 12 LAST\r\n",
    b"BDAT 0 LAST\r\n",
    b"AUTH PLAIN AGEAYg==\r\n",
    b"AUTH LOGIN\r\n",
    b"STARTTLS\r\n",
    b"RSET\r\n",
    b"NOOP\r\n",
    b"QUIT\r\n",
)
WORDS = (
    *COMMANDS,
    *(b"\r\n", b"\n", b"\r", b".", b"\r\n.\r\n", b"\n.\n", b"\r.\r", b"..", b"\r\r\n", b"\x00", b" ", b"\t"),
    *(b"From: ", b"Subject: x\r\n", b"To: ", b"Bcc: ", b"X-Mailer: ", b"\r\n ", b"=?utf-8?q?", b"?=", b":", b";", b","),
    *(b"<", b">", b"@", b'"', b"\\", b"(", b")", b"[", b"]", b"jan", b"example.nl", b"jan@example.nl", b"@a,@b:"),
    *(b" SIZE=1", b" BODY=8BITMIME", b" RET=FULL", b" ENVID=a+2B", b" SMTPUTF8", b" AUTH=<>", "é".encode(), b"\xe9"),
    *(b"\xc2\x85", b"\xe2\x80\xa8", b"a" * 60, b"A: b\r\n\r\n"),
)
