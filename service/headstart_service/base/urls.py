"""Parses URLs that may hold a password, without quoting any part of them.

Where a password has a `/`, `?` or `#` that is not percent-encoded, any part of the URL may be its
rest. That may be the port, the path or an option's name. So no message has a part,
and none has the text of an error of Python or of a library.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

ENCODING: Final = (
    "in a user or password, percent-encode all but letters, digits and '-._~': "
    "/ is %2F, ? is %3F, # is %23, @ is %40"
)
_MOST_PORTS: Final = 65535
_HIDDEN: Final = "***"
_CONTROL: Final = re.compile(r"[\x00-\x20\x7f]")


@dataclass(frozen=True, slots=True)
class Url:
    """The parts of a URL, decoded but for `path` and `query`."""

    scheme: str
    username: str | None
    password: str | None
    hosts: str
    """What follows the password: one host and port or, where commas may stand, several."""
    path: str
    query: str


def parsed_url(text: str) -> Url:
    """Split a URL. Raises ValueError, whose text has no part of it."""
    if _CONTROL.search(text):
        raise ValueError("a space, line end or control character must be percent-encoded")
    if "#" in text:
        raise ValueError("a # must be percent-encoded, as %23")
    try:
        parts: SplitResult = urlsplit(text)
    except ValueError:
        # Brackets, or characters that Unicode takes for one of /?#@:.
        raise ValueError("it cannot be split into its parts") from None
    if "@" in parts.path + parts.query:
        raise ValueError("a / or ? before an @, or the @, must be percent-encoded")
    credentials, at, hosts = parts.netloc.rpartition("@")
    username, colon, password = credentials.partition(":")
    return Url(
        parts.scheme,
        unquote(username) if at and username else None,
        unquote(password) if colon and password else None,
        hosts,
        parts.path,
        parts.query,
    )


def host_and_port(text: str) -> tuple[str, int | None]:
    """Split `host:port`, `[IPv6 address]:port` or a host alone. Raises ValueError, as above."""
    if text.startswith("["):
        host, closed, port = text[1:].partition("]")
        if not closed or (port and not port.startswith(":")):
            raise ValueError("an IPv6 address must stand in brackets, before its port")
        port = port[1:]
    else:
        host, _, port = text.partition(":")
        if ":" in port:
            raise ValueError("an IPv6 address must stand in brackets")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) <= _MOST_PORTS):
        raise ValueError(f"the port must be a number from 1 to {_MOST_PORTS}")
    return unquote(host), int(port) if port else None


def check_web_url(text: str) -> None:
    """Raise ValueError, as above, unless it is http:// or https:// with a host."""
    url = parsed_url(text)
    host, _ = host_and_port(url.hosts)
    if url.scheme not in ("http", "https") or not host:
        raise ValueError("it must begin with http:// or https:// and a host")


def redacted(text: str) -> str:
    """The URL as it may be shown: without user, password and query; *** if it does not parse."""
    try:
        url = parsed_url(text)
    except ValueError:
        return _HIDDEN
    credentials = f"{_HIDDEN}@" if url.username or url.password else ""
    query = f"?{_HIDDEN}" if url.query else ""
    return f"{url.scheme}://{credentials}{url.hosts}{url.path}{query}"
