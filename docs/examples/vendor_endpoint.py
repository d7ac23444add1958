"""An endpoint that takes session codes from relays, in the standard library: written from ../vendor-endpoint.md.

    python vendor_endpoint.py CERTIFICATE.pem SECRET-FILE keys.db [PORT]

It checks the signature, keeps each key for as long as it may come again, and "sends" by writing a line to stdout. For
production the code belongs on disk beside its key until it is sent, and a web server in front of it all.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import sqlite3
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LARGEST = 1024 * 1024
WINDOW = 300  # seconds that a timestamp may differ from our clock
KEPT = 7 * 86_400  # seconds that a key is known


class Keys:
    """What was taken, by its key; on disk before anybody is told so."""

    def __init__(self, file: str) -> None:
        self._lock = threading.Lock()
        self._database = sqlite3.connect(file, check_same_thread=False)
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute("CREATE TABLE IF NOT EXISTS taken (key TEXT PRIMARY KEY, at REAL NOT NULL)")

    def take(self, key: str) -> bool:
        """True if this key is new; it is kept then."""
        now = time.time()
        with self._lock, self._database:
            self._database.execute("DELETE FROM taken WHERE at < ?", (now - KEPT,))
            return self._database.execute("INSERT OR IGNORE INTO taken VALUES (?, ?)", (key, now)).rowcount == 1


class Endpoint(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    secret: bytes
    keys: Keys

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LARGEST:
            self.close_connection = True
            return self.answer(413, "too large")
        body = self.rfile.read(int(length))
        if not self.is_signed(body):
            return self.answer(401, "the signature or the clock is wrong")
        key = self.headers.get("Idempotency-Key", "")
        try:
            message = json.loads(body)
            recipient, code = message["recipient"], message["code"]
        except (ValueError, KeyError, TypeError):
            return self.answer(400, "not the fields that were agreed")
        if not key or not isinstance(recipient, str) or "@" not in recipient:
            return self.answer(422, "no key, or nobody to send to")
        if not isinstance(code, str):
            return self.answer(422, "no code was found in the message")
        if self.keys.take(key):
            self.send(recipient, code)
        return self.answer(202, "taken")  # the second time as well: the same key is the same message

    def is_signed(self, body: bytes) -> bool:
        moment = self.headers.get("X-Relay-Timestamp", "")
        if not moment.isdecimal() or len(moment) > 12 or abs(time.time() - int(moment)) > WINDOW:
            return False
        expected = hmac.new(self.secret, moment.encode() + b"." + body, hashlib.sha256).hexdigest()
        given = self.headers.get("X-Relay-Signature", "")
        return hmac.compare_digest(given.encode(), f"sha256={expected}".encode())

    def send(self, recipient: str, code: str) -> None:
        sys.stdout.write(f"{recipient} {code}\n")
        sys.stdout.flush()

    def answer(self, status: int, detail: str) -> None:
        body = json.dumps({"detail": detail}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: a log of requests is a log of who logs in."""


def main(certificate: str, secret: str, keys: str, port: str = "8443") -> None:
    Endpoint.secret = Path(secret).read_bytes().rstrip(b"\r\n")
    Endpoint.keys = Keys(keys)
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), Endpoint)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    sys.stderr.write(f"listening on port {server.server_address[1]}\n")
    sys.stderr.flush()
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
