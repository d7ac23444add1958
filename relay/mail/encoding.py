"""Text in header fields: RFC 2047 in, RFC 2047 out.

Decoding never fails and takes linear time: an encoded word with an unknown charset or broken
base64 stays as it is, raw octets are UTF-8 if they can be, else Windows-1252 (what Dutch Windows
software writes). Encoding gives ASCII that cannot end its field, whatever the text.
"""

from __future__ import annotations

import binascii
import html
import re

from relay.mail.header import unfold

_WORD = re.compile(rb"=\?([^?\s]{1,75})\?([bBqQ])\?([^?]*+)\?=")
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)
_BLANK = re.compile(rb"[ \t]*+\Z")
_NO_CHARACTER = re.compile(r"&#[0-9]{8,}+;?", re.ASCII)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]+")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*\Z")
_Q_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")
_LINE = 64  # octets of a phrase on one line; what stands before and after it has room to 78
_WORD_LENGTH = 75 - len("=?utf-8?q??=")  # RFC 2047, section 2: an encoded word is 75 characters at most

# Only charsets named here are looked up: Python's own table imports modules by the name it is asked
# for, remembers every failure, and holds codecs that are no charsets and not linear (idna, punycode).
_CHARSETS = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "utf-16": "utf-16",
    "utf-16le": "utf-16-le",
    "utf-16be": "utf-16-be",
    "utf-32": "utf-32",
    "us-ascii": "cp1252",
    "ascii": "cp1252",
    "ansi_x3.4-1968": "cp1252",
    # As browsers do (WHATWG Encoding): who says Latin-1 means Windows-1252.
    "iso-8859-1": "cp1252",
    "iso8859-1": "cp1252",
    "latin1": "cp1252",
    "latin-1": "cp1252",
    "iso-8859-8-i": "iso8859-8",
    "macintosh": "mac-roman",
    "cp437": "cp437",
    "ibm437": "cp437",
    "cp850": "cp850",
    "ibm850": "cp850",
    "cp858": "cp858",
    "cp1252": "cp1252",
    "koi8-r": "koi8-r",
    "koi8-u": "koi8-u",
    "tis-620": "tis-620",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "gb18030": "gb18030",
    "big5": "big5hkscs",
    "euc-jp": "euc-jp",
    "euc-kr": "euc-kr",
    "ks_c_5601-1987": "cp949",
    "iso-2022-jp": "iso-2022-jp",
    "iso-2022-kr": "iso-2022-kr",
    "shift_jis": "cp932",
    "shift-jis": "cp932",
    **{f"iso-8859-{part}": f"iso8859-{part}" for part in (*range(2, 12), *range(13, 17))},
    **{f"windows-{page}": f"cp{page}" for page in (874, *range(1250, 1259))},
}


def text(raw: bytes) -> str:
    """Raw octets as text: UTF-8 if they are that, else Windows-1252; encoded words stay as they are."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace")


def in_charset(raw: bytes, charset: str) -> str:
    """Octets of a body as text, in the charset that it names; where it names none that is known, as `text` has it."""
    name = _CHARSETS.get(charset.lower(), "utf-8")
    return text(raw) if name == "utf-8" or charset.lower() == "us-ascii" else raw.decode(name, "replace")


def decode(value: bytes) -> str:
    """The text of an unstructured value or a phrase: unfolded, its encoded words decoded (RFC 2047, section 6).

    Tolerant as readers of mail are: encoded words also inside other text and inside quotes, with
    blanks, and with characters cut in two between words of one charset.
    """
    value = unfold(value)
    if b"=?" not in value:
        return text(value)
    parts: list[str] = []
    pending, charset, end = bytearray(), "", 0
    for word in _WORD.finditer(value):
        name = _CHARSETS.get(word[1].decode("ascii", "replace").partition("*")[0].lower())
        octets = _octets(word[2], word[3])
        if name is None or octets is None:
            continue  # left as it is, with the text around it
        between = value[end : word.start()]
        # White space between two encoded words is not part of the text.
        if not (charset and _BLANK.match(between)):
            parts += [_chars(pending, charset), text(between)]
            pending, charset = bytearray(), name
        elif name != charset:
            parts.append(_chars(pending, charset))
            pending, charset = bytearray(), name
        pending += octets
        end = word.end()
    return "".join([*parts, _chars(pending, charset), text(value[end:])])


def unescaped(written: str) -> str:
    """Text of HTML without its character references. A number of a thousand digits is refused by Python itself."""
    return html.unescape(_NO_CHARACTER.sub("\ufffd", written))


def _chars(octets: bytearray, charset: str) -> str:
    if charset == "utf-8":
        return text(bytes(octets))
    return octets.decode(charset, "replace") if charset else ""


def _octets(encoding: bytes, payload: bytes) -> bytes | None:
    """What an encoded word says, or None if that cannot be known."""
    if encoding in b"qQ":
        return binascii.a2b_qp(payload, header=True)
    try:
        return binascii.a2b_base64(payload + b"==")  # the padding is often missing, and too much does no harm
    except binascii.Error:
        return None


def unquoted(written: bytes) -> bytes:
    """What a quoted string says, which is given with its quotes (RFC 5322, section 3.2.4)."""
    return _QUOTED_PAIR.sub(rb"\1", written[1:-1])


def encode_phrase(name: str) -> bytes:
    """A display name as atoms, a quoted string or encoded words (RFC 5322, section 3.2.5; RFC 2047, section 5).

    ASCII. CR and LF occur only together, as a fold before a space, and only in long names; control
    characters of `name` become spaces. "" gives b"".
    """
    name = _CONTROL.sub(" ", name).strip()
    if not name:
        return b""
    # What looks like an encoded word would be decoded by the reader, so that has to be encoded too.
    if name.isascii() and "=?" not in name:
        phrase = name if _ATOMS.match(name) else '"' + re.sub(r'(["\\])', r"\\\1", name) + '"'
        if len(phrase) <= _LINE:
            return phrase.encode()
    return b"\r\n ".join(_encoded_words(name))


def _encoded_words(name: str) -> list[bytes]:
    """`name` as encoded words, each of whole characters, in the shorter of the two encodings."""
    octets = name.encode("utf-8", "replace")
    q_length = sum(1 if octet in _Q_PLAIN or octet == 0x20 else 3 for octet in octets)
    by_q = q_length <= len(octets) * 4 / 3
    room = _WORD_LENGTH if by_q else _WORD_LENGTH // 4 * 3
    words: list[bytes] = []
    chunk: list[bytes] = []
    used = 0
    for character in name:
        piece = character.encode("utf-8", "replace")
        if by_q:
            piece = b"".join(b"_" if o == 0x20 else b"%c" % o if o in _Q_PLAIN else b"=%02X" % o for o in piece)
        if used + len(piece) > room:
            words.append(b"".join(chunk))
            chunk, used = [], 0
        chunk.append(piece)
        used += len(piece)
    if chunk:
        words.append(b"".join(chunk))
    if by_q:
        return [b"=?utf-8?q?" + word + b"?=" for word in words]
    return [b"=?utf-8?b?" + binascii.b2a_base64(word, newline=False) + b"?=" for word in words]
