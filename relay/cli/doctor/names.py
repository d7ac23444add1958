"""TXT records, by dnspython: the one door to it."""

from __future__ import annotations

from relay.cli.language import say
from relay.errors import RelayError

_PATIENCE = 10.0  # seconds for a name, all servers


class DnsSilent(RelayError):
    """DNS could not be asked."""


class Names:
    """`nameserver`: "ADDRESS" or "ADDRESS:PORT" of one to ask instead of this machine's. Raises RelayError."""

    def __init__(self, nameserver: str | None = None) -> None:
        import dns.asyncresolver
        import dns.exception
        import dns.resolver

        self._exception, self._resolver = dns.exception, dns.resolver
        try:
            self._asking = dns.asyncresolver.Resolver(configure=nameserver is None)
            if nameserver is not None:
                host, port = _parts(nameserver)
                self._asking.nameservers, self._asking.port = [host], port
        except (dns.exception.DNSException, OSError, ValueError) as error:
            raise RelayError(f"DNS cannot be asked: {error}") from None

    async def texts(self, name: str) -> tuple[str, ...]:
        """The TXT records at `name`, where an alias leads as well; none where there is no such name. Raises
        DnsSilent."""
        try:
            answer = await self._asking.resolve(name, "TXT", lifetime=_PATIENCE, search=False)
        except (self._resolver.NXDOMAIN, self._resolver.NoAnswer):
            return ()
        except (self._exception.DNSException, OSError) as error:
            late = isinstance(error, self._exception.Timeout)
            raise DnsSilent(say("finding.dns-timeout" if late else "finding.dns-silent", name=name)) from None
        return tuple(b"".join(record.strings).decode("utf-8", "replace") for record in answer)


def _parts(written: str) -> tuple[str, int]:
    """Host and port; 53 where none is named."""
    if written.count(":") > 1 and not written.startswith("["):
        return written, 53
    host, _, port = written.rpartition(":") if not written.endswith("]") and ":" in written else (written, "", "53")
    return host.strip("[]"), int(port)
