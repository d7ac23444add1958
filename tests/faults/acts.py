"""The faults of the table, as a scripted upstream does them."""

from __future__ import annotations

from dataclasses import replace

from relay.mail.outcome import Stage
from tests.kit.upstream import CLOSE, DROP, SILENCE, STOP_READING, Act, Fault, half

_GOOD = {Stage.BANNER: 220, Stage.STARTTLS: 220, Stage.TLS: 220, Stage.AUTH: 235, Stage.DATA: 354}
_TEXT_8_BIT = "caf\xe9 ".encode("latin-1") + "één".encode()


def act(fault: str, stage: Stage) -> Fault:
    """What an upstream does at `stage`. In the TLS handshake it lets us speak first, as a server does."""
    done = _act(fault, stage)
    if stage is not Stage.TLS:
        return done
    return replace(done if isinstance(done, Act) else Act(_octets(done)), after_client=True)


def _octets(said: Fault) -> bytes:
    assert isinstance(said, str | bytes)
    return said if isinstance(said, bytes) else said.encode() + b"\r\n"


def _act(fault: str, stage: Stage) -> Fault:
    good = _GOOD.get(stage, 250)
    match fault:
        case "drop":
            return DROP
        case "close":
            return CLOSE
        case "421":
            return "421 4.3.2 going down"
        case "4xx":
            return "454 4.7.0 later" if stage is Stage.AUTH else "451 4.3.0 later"
        case "5xx":
            return "535 5.7.8 never" if stage is Stage.AUTH else "554 5.3.0 never"
        case "502":
            return "502 5.5.1 not implemented"
        case "5xx, 8-bit text":
            return b"554 5.3.0 " + _TEXT_8_BIT + b"\r\n"
        case "other 2xx":
            return {Stage.MAIL: "252 well", Stage.RCPT: "251 will forward", Stage.DATA: "250 go ahead"}.get(
                stage, "299 well"
            )
        case "3xx":
            return {Stage.AUTH: "334 ", Stage.DATA: "399 go ahead"}.get(stage, "354 go ahead")
        case "several lines":
            return f"{good}-one\r\n{good}-\r\n{good}\r\n"
        case "8-bit text":
            return b"%d " % good + _TEXT_8_BIT + b"\r\n"
        case "NUL":
            return b"%d a\0b\r\n" % good
        case "mixed codes":
            return f"{good}-one\r\n550 two"
        case "oversized":
            return b"%d " % good + b"x" * 33_000 + b"\r\n"
        case "garbage":
            return "<html><title>HTTP 400</title>"
        case "half a line":
            return half(f"{good} o")
        case "silence":
            return STOP_READING if stage is Stage.BODY else SILENCE
    raise ValueError(fault)
