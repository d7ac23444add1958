"""smtplib, as every Python script uses it."""

import os
import smtplib
from email.message import EmailMessage
from pathlib import Path

message = EmailMessage()
message["From"] = "Jan Müller <jan@example.nl>"
message["To"] = "piet@example.org"
message["Subject"] = os.environ["SUBJECT"]
message.set_content("Bijgaand de factuur.\n.\n..\nMet vriendelijke groet, één")
message.add_attachment(
    Path(os.environ["ATTACHMENT"]).read_bytes(), maintype="application", subtype="pdf", filename="factuur.pdf"
)
with smtplib.SMTP("127.0.0.1", int(os.environ["PORT"]), timeout=20) as client:
    client.login("script", "geheim")
    client.send_message(message)
