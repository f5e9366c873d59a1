"""Completes a server's address to a gRPC target, or refuses it with the right spelling."""

from __future__ import annotations

import ipaddress
import re
from typing import Final, NoReturn

DEFAULT_PORT: Final = 50051
_TLS_PORT: Final = 443
_PORTS: Final = range(1, 65536)
_LISTS: Final = ("ipv4", "ipv6")
"""Schemes of several addresses, separated by commas."""
_GRPCS_OWN: Final = ("unix", "unix-abstract", "vsock", "xds", "google-c2p")
"""Schemes whose addresses have no port, or only gRPC can read."""
_URLS: Final = {
    "http": DEFAULT_PORT,
    "grpc": DEFAULT_PORT,
    "tcp": DEFAULT_PORT,
    "https": _TLS_PORT,
    "grpcs": _TLS_PORT,
}
"""Schemes of URLs, with the port that is suggested for one without a port."""


def target_of(address: str, name: str) -> str:
    """Return the gRPC target of `address`; a host without a port gets this service's, 50051.

        headstart, 10.0.0.1, ::1     the port is added: headstart:50051, [::1]:50051
        dns:///headstart             likewise: dns:///headstart:50051
        ipv4:10.0.0.1,10.0.0.2:7     likewise, to each
        unix:/run/headstart.sock     as it is; so are xds: and gRPC's other schemes

    Raises ValueError, which calls the address `name`, for what names no server: the message has
    the right spelling.
    """
    given = address.strip()
    try:
        return _target(given)
    except ValueError as error:
        shown = re.sub(r"//.*@", "//…@", given)  # the address may be a URL with a password
        raise ValueError(f"{name} {shown!r} {error}") from None


def _target(given: str) -> str:
    scheme, separator, rest = given.partition(":")
    scheme = scheme.lower()
    if rest.startswith("//") and scheme in _URLS:
        _refuse_url(scheme, rest[2:])
    if separator and scheme in _GRPCS_OWN:
        return given
    if separator and scheme in _LISTS:
        hosts = rest.lstrip("/").split(",")
        return f"{scheme}:{','.join(map(_host_and_port, hosts))}"
    if separator and scheme == "dns":
        authority, slash, host = rest.rpartition("/")
        return f"dns:{authority}{slash}{_host_and_port(host)}"
    if rest.startswith("//"):
        known = ", ".join(("dns", *_LISTS, *_GRPCS_OWN))
        raise ValueError(f"has a scheme that gRPC does not know: it knows {known}")
    if "," in given:
        raise ValueError(
            f"names several servers: write ipv4:{given} where these are IPv4 addresses, "
            "else a name that resolves to all of them"
        )
    return _host_and_port(given)


def split_port(text: str) -> tuple[str, str]:
    """Split `host`, `host:port`, `[host]` or `[host]:port`.

    Returns the host without brackets, and what follows it: the port behind its colon, or nothing.
    """
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, rest
    if text.count(":") > 1:  # an IPv6 address without brackets, and so without a port
        return text, ""
    host, colon, port = text.partition(":")
    return host, colon + port


def _host_and_port(text: str) -> str:
    """Return host:port, with brackets around an IPv6 address."""
    host, rest = split_port(text)
    if text.startswith("["):
        if not _is_ipv6(host) or "]" not in text or not (rest == "" or rest.startswith(":")):
            raise ValueError("is not [IPv6 address]:port, such as [::1]:50051")
        host = f"[{host}]"
    elif _is_ipv6(host):
        host = f"[{host}]"
    elif ":" in host:
        raise ValueError("is not host:port; an IPv6 address needs brackets, as in [::1]:50051")
    if not host or re.search(r"[\s/@?#\\]", host):
        raise ValueError("is not host:port, such as localhost:50051")
    port = rest[1:] if rest else str(DEFAULT_PORT)
    if not (port.isascii() and port.isdecimal() and int(port) in _PORTS):
        raise ValueError(f"is not host:port: its port must be 1 to 65535, is {port!r}")
    return f"{host}:{port}"


def _refuse_url(scheme: str, rest: str) -> NoReturn:
    """Raise ValueError with the target that was probably meant."""
    host = re.split(r"[/?#]", rest.rpartition("@")[2])[0] or "localhost"
    ported = re.search(r":[0-9]+$", host) and not _is_ipv6(host)
    right = _host_and_port(host if ported else f"{host}:{_URLS[scheme]}")
    advice = f"is a URL, not a gRPC target: write {right}"
    if ported:
        advice += f", with the port of gRPC (by default {DEFAULT_PORT}), not that of HTTP"
    if scheme in ("https", "grpcs"):
        advice += "; turn TLS on with tls=Tls() or HEADSTART_CA=system"
    raise ValueError(advice)


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6  # noqa: PLR2004  # the version
    except ValueError:
        return False
