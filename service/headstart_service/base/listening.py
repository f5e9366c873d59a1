"""Resolves what HEADSTART_HOST means, alike for every port: gRPC and sockets differ in it.

- `::` or `0.0.0.0`: every address, IPv6 and IPv4; where there is no IPv6, IPv4 alone.
- `localhost`: 127.0.0.1 and ::1, as far as this machine has them.
- A name: all its addresses that are this machine's. An address: itself.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

_ALL_IPV6, _ALL_IPV4 = "::", "0.0.0.0"  # noqa: S104  # the operator asks for it
_LOOPBACK: Final = ("127.0.0.1", "::1")
_ABSENT: Final = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT}
"""What binding to an address raises that this machine does not have."""
_TRIES: Final = 20
"""Free ports of one address that are tried until one is free on all."""


def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen on one port of all that `host` means; port 0 picks a free one.

    Raises OSError, or ValueError or TypeError for what is no host at all.
    """
    addresses = _addresses_of(host)
    for left in range(_TRIES, -1, -1):
        try:
            return _listen(addresses, port)
        except OSError as error:
            # The port that was free on the first address may be taken on another.
            if port or not left or error.errno != errno.EADDRINUSE:
                raise
    raise AssertionError("the last try returns or raises")


def addresses(sockets: list[socket.socket]) -> Iterator[str]:
    """Each socket's address and port, as gRPC takes them."""
    for each in sockets:
        host, port, *_ = each.getsockname()
        yield f"{url_host(host)}:{port}"


def url_host(host: str) -> str:
    """The host as it stands in front of a colon and a port."""
    return f"[{host}]" if ":" in host else host


def reachable(host: str) -> str:
    """What a client on this machine calls it: no certificate is for the name 0.0.0.0."""
    return "localhost" if _is_every_address(host) else host


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`. A name other than localhost might be anywhere."""
    return host.lower() == "localhost" or is_loopback_address(host)


def is_loopback_address(text: str) -> bool:
    """Whether this is an address of the loopback interface; no name is one."""
    try:
        return ipaddress.ip_address(_unmapped(text)).is_loopback
    except ValueError:
        return False


def _addresses_of(host: str) -> list[str]:
    if host.lower() == "localhost":
        return [*_LOOPBACK]
    # In IDNA's encoding, some hosts that are none raise an error of their own, or none at all.
    found = socket.getaddrinfo(host or None, None, type=socket.SOCK_STREAM)
    named = [_unmapped(str(address[0])) for *_, address in found]
    if any(map(_is_every_address, named)):
        # gRPC takes 0.0.0.0, too, for the addresses of both families.
        return [_ALL_IPV6 if socket.has_dualstack_ipv6() else _ALL_IPV4]
    return list(dict.fromkeys(named))


def _unmapped(address: str) -> str:
    """Write ::ffff:127.0.0.1 as 127.0.0.1: no socket of IPv6 alone listens on it."""
    mapped = ipaddress.IPv6Address(address).ipv4_mapped if ":" in address else None
    return str(mapped or address)


def _is_every_address(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _listen(addresses: list[str], port: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    with ExitStack() as opened:
        for address in addresses:
            try:
                made = _socket(address, port)
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                absent = error
            else:
                sockets.append(opened.enter_context(made))
                port = made.getsockname()[1]
        if not sockets:
            raise absent or OSError(errno.EADDRNOTAVAIL, "no address")
        opened.pop_all()
    return sockets


def _socket(address: str, port: int) -> socket.socket:
    try:
        return _created(address, port)
    except OSError as error:
        # Python's text repeats the address behind the reason.
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(error.errno, reason) from None


def _created(address: str, port: int) -> socket.socket:
    if ":" not in address:
        return socket.create_server((address, port))
    every = address == _ALL_IPV6
    return socket.create_server((address, port), family=socket.AF_INET6, dualstack_ipv6=every)
