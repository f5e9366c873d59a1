"""Access over HTTP: peers, and what a browser can be made to send by pages of other sites.

With tokens, a call needs one in a header, which no page of another site has: a browser adds none by
itself. Without tokens, being on this machine or network is the permission, and a browser there
can be made to call by any site. So:

- A page may not send JSON or protobuf to another site without asking (CORS). The answer to that
  question names the allowed origins alone.
- A page may send a form, or read by GET, without asking. A browser marks a form with its Origin,
  and most requests with Sec-Fetch-Site: without tokens neither may name another site.
- A page whose name resolves to this machine (DNS rebinding) counts as the same site. So without
  tokens the Host of what a browser could have sent must be this machine's.

A program that is no browser sends none of these headers, so `curl -d` works.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from ...base.listening import is_loopback_address
from ...domain.errors import PermissionDenied
from ..host_names import is_own_name
from .head import Head

ANY: Final = "*"
_SHOWN: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Decides which requests may be calls at all, before tokens and limits."""

    host: str
    """What the port listens on."""
    tokens: bool
    """Whether every call needs a token."""
    local: bool
    """Whether the port listens on this machine alone."""
    open: bool
    """Whether calls may come from other machines: over TLS, or in the clear where that is meant."""
    origins: Collection[str] = ()
    """Origins whose pages may call; `*` is every one."""

    def check(self, head: Head) -> None:
        """Raise PermissionDenied for a request that no token makes right."""
        if not self.open and not is_loopback_address(head.client[0]):
            raise PermissionDenied(
                "peer",
                "this port speaks no TLS, so it takes calls of its own machine alone: call over "
                "gRPC, or have the operator set HEADSTART_CONNECT_PORT or HEADSTART_HTTP_TLS",
                "tls",
            )
        if self.tokens:
            return
        origin = head.headers.get("origin")
        if origin is not None and (ANY in self.origins or origin in self.origins):
            return
        host = head.headers.get("host", "")
        if origin is not None and origin.partition("://")[2] != host:
            raise PermissionDenied(
                "Origin",
                f"pages of {origin[:_SHOWN]!r} may not call: HEADSTART_CORS_ORIGINS does not "
                "have it",
                "origin",
            )
        if head.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise PermissionDenied(
                "Sec-Fetch-Site", "a page of another site has asked", "same-origin"
            )
        browser = origin is not None or head.verb != "POST"
        if (self.local or browser) and not is_own_name(host, self.host):
            raise PermissionDenied(
                "Host",
                "without tokens this port answers to localhost, to addresses and to this "
                "machine's own name alone",
                "host",
            )
