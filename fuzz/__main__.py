"""`python -m fuzz TARGET [options of libFuzzer]`: a property of `tests.fuzz`, asked by atheris.

The corpus begins with what the clients say in `tests/dialogs`, and grows in `fuzz/corpus`.
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
DIALOGS = HERE.parent / "tests" / "dialogs"
LONGEST = 4096
ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|([rnt0\\]))")
PLAIN = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0", b"\\": b"\\"}


def said(dialog: Path) -> list[bytes]:
    """The lines of the client, with their ends."""
    lines = []
    for line in dialog.read_bytes().splitlines():
        key, _, octets = line.partition(b":")
        if key in (b"C", b"C-raw"):
            octets = ESCAPE.sub(lambda m: bytes([int(m[1], 16)]) if m[1] else PLAIN[m[2]], octets.removeprefix(b" "))
            lines.append(octets + (b"\r\n" if key == b"C" else b""))
    return lines


def seeds(target: str) -> set[bytes]:
    """What the dialogues give `target` to begin with."""
    found = {b""}
    for dialog in DIALOGS.glob("*.smtp"):
        lines = said(dialog)
        whole = b"".join(lines)
        content = whole.partition(b"DATA\r\n")[2].partition(b"\r\n.\r\n")[0]
        if target == "session":
            found.add(b"\x00" + whole)
        elif target == "path":
            found |= {line[4:].strip() for line in lines if line[:4].upper() in (b"MAIL", b"RCPT")}
        else:
            found.add({"header": b"", "message": b"\x05"}.get(target, b"\x15\x01") + content)
    return {octets for octets in found if len(octets) <= LONGEST}


def main() -> None:
    target = sys.argv[1] if len(sys.argv) > 1 else ""
    import atheris

    with atheris.instrument_imports(include=["relay.mail", "relay.ingress"]):
        from tests.fuzz.properties import PROPERTIES

    if target not in PROPERTIES:
        sys.exit(f"Which one? {', '.join(PROPERTIES)}")
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    for octets in seeds(target):
        (folder / hashlib.sha256(octets).hexdigest()[:16]).write_bytes(octets)
    options = [f"-dict={HERE / 'smtp.dict'}", f"-artifact_prefix={HERE}/found-", f"-max_len={LONGEST}", "-timeout=20"]
    given = sys.argv[2:]
    if all(word.startswith("-") for word in given):  # else these files are run, once each
        given.append(str(folder))
    atheris.Setup([sys.argv[0], *options, *given], PROPERTIES[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
