"""Who is at the other end: the client's address, believed as far as proxies are trusted."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address

from gateway.edge.asgi import Headers

Network = IPv4Network | IPv6Network
FORWARDING_HEADERS = (b"x-forwarded-for", b"forwarded", b"x-real-ip")
HOPS_MAX = 32
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class OriginConfig:
    """`trusted_proxies` may name clients in X-Forwarded-For; none by default."""

    trusted_proxies: tuple[Network, ...] = ()


class Origin:
    """The rightmost address in X-Forwarded-For that is not one of our own proxies.

    Only the part that trusted proxies appended is believed: whatever stands further left was
    written by the client.
    """

    def __init__(self, config: OriginConfig) -> None:
        self._trusted = config.trusted_proxies
        self._is_trusted = lru_cache(maxsize=4096)(self._lies_in_trusted)

    def address_of(self, peer: tuple[str, int] | None, headers: Headers) -> str:
        address = peer[0] if peer is not None else UNKNOWN
        if not self._trusted or not self._is_trusted(address):
            return address
        # Several lines are one list (RFC 9110 5.3): some proxies append a line of their own.
        lists = [value for name, value in headers if name == b"x-forwarded-for"]
        hops = b",".join(lists).decode("latin-1").split(",")[-HOPS_MAX:]
        for hop in reversed(hops):
            candidate = _plain_address(hop)
            if candidate is None:
                return address
            address = candidate
            if not self._is_trusted(address):
                return address
        return address

    def is_direct(self, peer: tuple[str, int] | None, headers: Mapping[bytes, bytes]) -> bool:
        """False for what came through a proxy nobody told us about."""
        if not any(name in headers for name in FORWARDING_HEADERS):
            return True
        return peer is not None and bool(self._trusted) and self._is_trusted(peer[0])

    def _lies_in_trusted(self, address: str) -> bool:
        return lies_in(address, self._trusted)


def lies_in(address: str, networks: tuple[Network, ...]) -> bool:
    """Whether a textual address lies in one of the networks; IPv4-mapped IPv6 counts as IPv4."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    parsed = mapped or parsed
    return any(parsed.version == net.version and parsed in net for net in networks)


def _plain_address(hop: str) -> str | None:
    """An address out of one X-Forwarded-For element: `1.2.3.4`, `1.2.3.4:5`, `[::1]:5`, `::1`."""
    text = hop.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ip_address(text))
    except ValueError:
        return None
