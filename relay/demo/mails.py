"""True-to-life mails, byte by byte as legacy software sends them; and what the relay should make of each.

The office of the demo: three bookkeepers, each with an address of their own, and one mailbox at the
provider that may send. The bytes are what the software would write: .NET's header, bare line
feeds, raw Windows-1252, no Message-ID.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime

MAILBOX = "administratie@kantoor.example"
SUFFIX = "via Administratie"
CODE_SENDER = "noreply@boekhoudpakket.example"
OWN, VENDOR = "own", "vendor"


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail, and what should leave: by which upstream, from which address and name, with which Reply-To.

    `content` is what the software sends, line ends as they are. `author` is its From as a person reads it.
    """

    title: str
    quirk: str
    reverse_path: str
    recipients: tuple[str, ...]
    content: bytes
    author: str
    upstream: str = OWN
    left_from: str = MAILBOX
    left_name: str = ""
    reply_to: str = ""


def all_mails(now: datetime) -> tuple[Mail, ...]:
    """The mails of the show; `now` is their Date."""
    return (invoice(now), payment_run(now), reminder(now), session_code(now), own_mail(now))


def invoice(now: datetime) -> Mail:
    """An invoice as a PDF, sent by .NET: base64, its own way with boundaries, no Message-ID."""
    boundary = "--boundary_0_5f1c2a7e-7d0b-4a53-9f5e-0c8f3b1d2e4a"
    lines = [
        "MIME-Version: 1.0",
        'From: "Jan de Vries" <jan.devries@kantoor.example>',
        "To: inkoop@klant.example",
        f"Date: {format_datetime(now)}",
        "Subject: =?utf-8?B?" + base64.b64encode("Factuur 2026-0417 – € 1.210,00".encode()).decode() + "?=",
        "Content-Type: multipart/mixed;",
        f' boundary="{boundary}"',
        "",
        "",
        f"--{boundary}",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: quoted-printable",
        "",
        "Geachte heer, mevrouw,",
        "",
        "Hierbij ontvangt u factuur 2026-0417 van =E2=82=AC 1.210,00.",
        "",
        f"--{boundary}",
        "Content-Type: application/pdf; name=factuur-2026-0417.pdf",
        "Content-Transfer-Encoding: base64",
        "Content-Disposition: attachment; filename=factuur-2026-0417.pdf",
        "",
        *_base64_lines(pdf("Factuur 2026-0417: EUR 1.210,00")),
        "",
        f"--{boundary}--",
        "",
        "",
    ]
    return Mail(
        title="invoice with a PDF",
        quirk="as .NET sends it, without Message-ID",
        reverse_path="jan.devries@kantoor.example",
        recipients=("inkoop@klant.example",),
        content="\r\n".join(lines).encode("ascii"),
        author="Jan de Vries <jan.devries@kantoor.example>",
        left_name=f"Jan de Vries {SUFFIX}",
        reply_to="jan.devries@kantoor.example",
    )


def payment_run(now: datetime) -> Mail:
    """A payment run as XML, by software that ends its lines with a bare line feed."""
    lines = [
        "From: Petra Bakker <p.bakker@kantoor.example>",
        "To: betalingen@bank.example",
        "Cc: controle@kantoor.example",
        "Subject: Betaalrun 2026-11",
        f"Date: {format_datetime(now)}",
        "Message-ID: <betaalrun-2026-11@boekhoudpakket.example>",
        "MIME-Version: 1.0",
        'Content-Type: application/xml; name="betaalrun-2026-11.xml"',
        'Content-Disposition: attachment; filename="betaalrun-2026-11.xml"',
        "",
        *payment_xml(now).splitlines(),
    ]
    return Mail(
        title="payment run with XML",
        quirk="bare line feeds, two recipients",
        reverse_path="p.bakker@kantoor.example",
        recipients=("betalingen@bank.example", "controle@kantoor.example"),
        content="\n".join(lines).encode("ascii"),
        author="Petra Bakker <p.bakker@kantoor.example>",
        left_name=f"Petra Bakker {SUFFIX}",
        reply_to="p.bakker@kantoor.example",
    )


def reminder(now: datetime) -> Mail:
    """A reminder in Windows-1252, raw in the header as well."""
    lines = [
        "From: René Zoë <r.zoe@kantoor.example>",
        "To: debiteur@klant.example",
        "Subject: Herinnering: € 85,00 nog open",
        f"Date: {format_datetime(now)}",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=windows-1252",
        "Content-Transfer-Encoding: 8bit",
        "",
        "Geachte cliënt,",
        "",
        "Volgens onze administratie staat € 85,00 open. Is dit één van uw vergeten facturen?",
        ".",
        "Met vriendelijke groet, René Zoë",
        "",
    ]
    return Mail(
        title="reminder",
        quirk="raw Windows-1252, in the header too",
        reverse_path="r.zoe@kantoor.example",
        recipients=("debiteur@klant.example",),
        content="\r\n".join(lines).encode("cp1252"),
        author="René Zoë <r.zoe@kantoor.example>",
        left_name=f"René Zoë {SUFFIX}",
        reply_to="r.zoe@kantoor.example",
    )


def session_code(now: datetime) -> Mail:
    """A session code: it goes by the vendor's server, with the vendor's sender."""
    lines = [
        f"From: Boekhoudpakket <{CODE_SENDER}>",
        "To: p.bakker@kantoor.example",
        "Subject: Uw sessiecode",
        f"Date: {format_datetime(now)}",
        "",
        "Uw sessiecode is 482913. Deze is 10 minuten geldig.",
        "",
    ]
    return Mail(
        title="session code",
        quirk="by the vendor, ahead of all other mail",
        reverse_path=CODE_SENDER,
        recipients=("p.bakker@kantoor.example",),
        content="\r\n".join(lines).encode("ascii"),
        author=f"Boekhoudpakket <{CODE_SENDER}>",
        upstream=VENDOR,
        left_from=CODE_SENDER,
        left_name="Boekhoudpakket",
    )


def own_mail(now: datetime) -> Mail:
    """A mail from the mailbox itself: nothing about its sender needs to change."""
    lines = [
        f"From: Administratie <{MAILBOX}>",
        "To: klant@klant.example",
        "Subject: Jaaropgave",
        f"Date: {format_datetime(now)}",
        "Message-ID: <jaaropgave-2026@boekhoudpakket.example>",
        "",
        "De jaaropgave staat voor u klaar.",
        "",
    ]
    return Mail(
        title="annual statement",
        quirk="from the mailbox itself, so it stays as it is",
        reverse_path=MAILBOX,
        recipients=("klant@klant.example",),
        content="\r\n".join(lines).encode("ascii"),
        author=f"Administratie <{MAILBOX}>",
        left_name="Administratie",
    )


def _base64_lines(data: bytes) -> list[str]:
    text = base64.b64encode(data).decode()
    return [text[at : at + 76] for at in range(0, len(text), 76)]


def pdf(text: str) -> bytes:
    """A PDF of one page that says `text` (ASCII without brackets and backslashes)."""
    page = f"BT /F1 18 Tf 72 760 Td ({text}) Tj ET".encode()
    objects = (
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(page), page),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    )
    file = b"%PDF-1.4\n"
    places = []
    for number, content in enumerate(objects, 1):
        places.append(len(file))
        file += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return file + (
        b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n"
        % (len(objects) + 1, table, len(objects) + 1, len(file))
    )


def payment_xml(now: datetime) -> str:
    """A SEPA credit transfer (pain.001.001.03) of one payment, lines ended by "\\n"."""
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<Document xmlns="urn:iso:std:iso:20022:tech:xsd:pain.001.001.03">
  <CstmrCdtTrfInitn>
    <GrpHdr>
      <MsgId>BETAALRUN-2026-11</MsgId>
      <CreDtTm>{now:%Y-%m-%dT%H:%M:%S}</CreDtTm>
      <NbOfTxs>1</NbOfTxs>
      <CtrlSum>1210.00</CtrlSum>
      <InitgPty><Nm>Kantoor</Nm></InitgPty>
    </GrpHdr>
    <PmtInf>
      <PmtInfId>BETAALRUN-2026-11-1</PmtInfId>
      <PmtMtd>TRF</PmtMtd>
      <ReqdExctnDt>{now:%Y-%m-%d}</ReqdExctnDt>
      <Dbtr><Nm>Kantoor</Nm></Dbtr>
      <DbtrAcct><Id><IBAN>NL91ABNA0417164300</IBAN></Id></DbtrAcct>
      <DbtrAgt><FinInstnId><BIC>ABNANL2A</BIC></FinInstnId></DbtrAgt>
      <CdtTrfTxInf>
        <PmtId><EndToEndId>2026-0417</EndToEndId></PmtId>
        <Amt><InstdAmt Ccy="EUR">1210.00</InstdAmt></Amt>
        <Cdtr><Nm>Leverancier</Nm></Cdtr>
        <CdtrAcct><Id><IBAN>NL20INGB0001234567</IBAN></Id></CdtrAcct>
        <RmtInf><Ustrd>Factuur 2026-0417</Ustrd></RmtInf>
      </CdtTrfTxInf>
    </PmtInf>
  </CstmrCdtTrfInitn>
</Document>
"""
