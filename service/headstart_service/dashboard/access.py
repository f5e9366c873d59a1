"""Access to the live page: hosts, peers and tokens, checked in front of every answer.

Without tokens, being on this machine is the permission. A browser on this machine
can be made to ask by any site. So a name that is not this machine's is refused (DNS rebinding), and
so is a request that another site caused. Whatever a browser does not show across sites it need not
be refused for: answers carry no CORS headers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request

from ..base.listening import is_loopback_address
from ..domain import namespace_violations
from ..domain.errors import PermissionDenied
from ..http.host_names import is_own_name
from .viewer import Admit, Viewer

HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Of every answer. No element of the page may run, or be made of, text that came from a caller."""
PAGE_HEADER: Final = "x-headstart"
"""A header that a page of another site cannot send: what changes something needs it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """The rules of a process's HTTP port."""

    host: str
    """What it listens on."""
    tokens: bool
    """Whether data is for bearers of a token alone."""
    open: bool
    """Whether data may go to other machines: in the clear, for this port speaks no TLS."""

    def check(self, request: Request) -> None:
        """Refuse what no token makes right. Raises PermissionDenied."""
        peer = request.client.host if request.client else ""
        if not self.open and not is_loopback_address(peer):
            raise PermissionDenied(
                "peer",
                "this port speaks no TLS, so the live page is for this machine alone: come "
                "through a tunnel, such as kubectl port-forward, or set HEADSTART_INSECURE",
                "tunnel",
            )
        if not self.tokens and not is_own_name(request.headers.get("host", ""), self.host):
            raise PermissionDenied(
                "Host",
                "without tokens the page answers to localhost, to addresses and to this machine's "
                "own name alone",
                "host",
            )
        if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise PermissionDenied("Sec-Fetch-Site", "another site has asked", "same-origin")


@dataclass(frozen=True, slots=True)
class View:
    """What one viewer sees: a snapshot is made once for all who see the same."""

    scope: frozenset[str] | None
    """The namespaces; None for all at once."""
    whole: bool
    """Whether what concerns the process and its workers is part of it."""


def viewer_of(request: Request, admit: Admit) -> Viewer:
    """Return the viewer of a request. Raises Unauthenticated."""
    return admit(request.headers.get("authorization"))


def view_of(viewer: Viewer, namespace: str) -> View:
    """Return the view of `namespace`, or, if that is empty, of all. Raises PermissionDenied."""
    if namespace:
        if namespace_violations(namespace) or not viewer.reads(namespace):
            rule = f"the token {viewer.name!r} lacks read in {namespace[:64]!r}"
            raise PermissionDenied("namespace", rule, "read")
        return View(frozenset({namespace}), viewer.whole)
    if viewer.whole:
        return View(None, whole=True)
    if viewer.namespaces is None:
        # This token may not list all namespaces.
        rule = f"the token {viewer.name!r} sees one namespace at a time: name it"
        raise PermissionDenied("namespace", rule, "admin")
    seen = frozenset(name for name in viewer.namespaces if viewer.reads(name))
    if not seen:
        raise PermissionDenied("namespace", f"the token {viewer.name!r} lacks read", "read")
    return View(seen, whole=False)
