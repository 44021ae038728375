"""The client's address behind proxies."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable

from image.gateway.settings import Network


def believed_client(peer: str, forwarded_for: bytes | None, trusted: Callable[[str], bool]) -> str:
    """The client's address: the peer's, or the one that trusted proxies report in X-Forwarded-For. `trusted`: see
    `trusted_by`.
    """
    if peer.startswith("::ffff:"):
        peer = _plain(ipaddress.ip_address(peer))
    if forwarded_for is None or not peer:  # a disconnected peer has no address
        return peer
    address = peer
    for part in reversed(forwarded_for.decode("latin-1").split(",")):
        if not trusted(address):
            break
        if "%" in part:  # a zone id can be any text, and is valid only on the proxy's host
            break
        try:
            address = _plain(ipaddress.ip_address(part.strip()))
        except ValueError:
            break
    return address


def _plain(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """The address as text; an IPv4-mapped IPv6 address becomes IPv4."""
    return str(getattr(address, "ipv4_mapped", None) or address)


@functools.cache
def trusted_by(networks: tuple[Network, ...]) -> Callable[[str], bool]:
    """Whether an address is in one of the networks."""

    @functools.lru_cache(4096)
    def trusted(address: str) -> bool:
        return any(ipaddress.ip_address(address) in network for network in networks)

    return trusted
