"""Whether the address leads anywhere: its name resolves, and something listens there."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from headstart._for_service import DEFAULT_PORT

from ...base.listening import is_loopback
from ...base.output import spoken
from .report import Check, fail, ok, skip, warn

_NAME: Final = "address"
_PROXIES: Final = ("grpc_proxy", "https_proxy", "http_proxy")
"""In the order in which gRPC reads them; all in lower case."""
_EXEMPT: Final = ("no_grpc_proxy", "no_proxy")
_SCHEME: Final = re.compile(r"(dns|ipv4|ipv6|unix|[a-z][a-z0-9+.-]*(?=://)):(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server might be."""

    host: str
    """A name or an address; of a Unix socket its path."""
    port: int
    """0 for a Unix socket."""

    @property
    def local(self) -> bool:
        """Whether it is on this machine."""
        return not self.port or is_loopback(self.host)

    def connect(self, timeout: float) -> socket.socket:
        """A connection. Raises OSError; UnicodeError for what is no name."""
        if self.port:
            return socket.create_connection((self.host, self.port), timeout)
        made = socket.socket(socket.AF_UNIX)
        try:
            made.settimeout(timeout)
            made.connect(self.host)
        except OSError:
            made.close()
            raise
        return made

    def __str__(self) -> str:
        if not self.port:
            return f"unix:{self.host}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def places(address: str) -> list[Place] | None:
    """Return the places that a gRPC target names; None when only gRPC can resolve it.

    Raises ValueError for what names none.
    """
    found = _SCHEME.fullmatch(address)
    scheme, rest = ("dns", address) if found is None else (found[1], found[2])
    if scheme == "unix":
        return [Place(rest.removeprefix("//"), 0)]
    if scheme not in ("dns", "ipv4", "ipv6"):
        return None
    if rest.startswith("//"):
        rest = rest.rpartition("/")[2]
    return [_place(each) for each in (rest.split(",") if scheme != "dns" else [rest])]


def _place(text: str) -> Place:
    host, colon, port = text.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = text, str(DEFAULT_PORT)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:  # noqa: PLR2004  # all ports
        raise ValueError(f"{text!r} is not host:port")
    return Place(host, int(port))


def check_address(address: str, timeout: float) -> Iterator[Check | Place]:
    """Findings, and at last a place that answers, if there is one."""
    try:
        named = places(address)
    except ValueError as error:
        yield fail(_NAME, str(error), "give --address or HEADSTART_ADDRESS as host:port")
        return
    if named is None:
        yield skip(_NAME, f"{address}: only gRPC can resolve this")
        return
    answering: list[Place] = []
    silent = []
    for place in named:
        for each in _resolved(place):
            if isinstance(each, Check):
                yield each
                continue
            result = _tried(each, timeout)
            if isinstance(result, str):
                silent.append(result)
            else:
                answering.append(place)
                yield result
    if silent:
        yield _silence("; ".join(silent), answering)
    if answering:
        if variable := proxy_before(answering[0]):
            yield warn(
                _NAME,
                f"calls do not go there but to the proxy of the variable {variable}",
                f"add {answering[0].host} to no_proxy, in lower case: gRPC ignores NO_PROXY",
            )
        yield answering[0]


def proxy_before(place: Place) -> str | None:
    """The variable that names a proxy which gRPC puts before this place."""
    if place.local:
        return None
    exempt = next(filter(None, map(os.environ.get, _EXEMPT)), "")
    if any(_covers(entry.strip(), place.host) for entry in exempt.split(",")):
        return None
    return next((name for name in _PROXIES if os.environ.get(name)), None)


def _covers(entry: str, host: str) -> bool:
    """Whether an entry of no_proxy names a host: the end of its name, or its network."""
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return bool(entry) and host.lower().endswith(entry.lower())


def _tried(place: Place, timeout: float) -> Check | str:
    """A finding, or why it does not answer."""
    began = time.monotonic()
    try:
        place.connect(timeout).close()
    except OSError as error:
        return f"{place}: {error.strerror or error}"
    return ok(_NAME, f"{place} answers in {spoken(time.monotonic() - began)}")


def _silence(reasons: str, answering: Sequence[Place]) -> Check:
    """Report addresses that do not answer; others may."""
    if not answering:
        return fail(
            _NAME,
            reasons,
            "is the server running, the port right (gRPC's, not HTTP's), and no firewall between? "
            "`headstart serve` logs where it listens",
        )
    if answering[0].local:
        # localhost has two addresses, and most servers listen on one of them.
        return ok(_NAME, f"{reasons}, which does no harm here")
    return warn(_NAME, reasons, "calls are spread over all addresses: mend or remove this one")


def _resolved(place: Place) -> Iterator[Place | Check]:
    if not place.port:
        yield place
        return
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        yield fail(
            _NAME,
            f"{place.host} does not resolve: {getattr(error, 'strerror', None) or error}",
            "is the name right, and known where this runs?",
        )
        return
    for host in dict.fromkeys(str(each[4][0]) for each in found):
        yield Place(host, place.port)
