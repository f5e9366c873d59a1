"""Who may call what: verbs, the grants of tokens, and the check in front of each method.

A token's digest is kept, never the token. A call that a grant does not cover is refused before
anything is looked up, so a refusal cannot tell whether a key exists.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from grpc.aio import ServicerContext

from ..domain import DEFAULT_NAMESPACE
from ..domain.errors import PermissionDenied, Unauthenticated

Context = ServicerContext[Any, Any]
Check = Callable[[Any, Context], None]
"""Called with a request and its context; raises Unauthenticated or PermissionDenied."""

_SCHEME: Final = "bearer "
_SHOWN_NAMESPACE: Final = 64


class Verb(StrEnum):
    """What a token may do in its namespaces."""

    READ = "read"
    WRITE = "write"
    METRICS = "metrics"
    """Of the process, not of a namespace: what it scrapes travels unencrypted, so it is no more."""
    ADMIN = "admin"


_ADMIN: Final = Verb.ADMIN
"""Found in a tenth of the time that an enum's attribute takes, in every call."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What the bearer of one token may do."""

    name: str
    """What the operator calls it: it may be told and logged, unlike the token."""
    namespaces: frozenset[str] | None
    """None means every one."""
    verbs: frozenset[Verb]

    def covers(self, verb: Verb, namespace: str | None) -> bool:
        """Whether `verb` is granted in this namespace; None is all of them at once."""
        if _ADMIN in self.verbs:
            return True
        if namespace is None or verb not in self.verbs:
            return False
        return self.namespaces is None or namespace in self.namespaces

    @property
    def whole(self) -> bool:
        """Whether it covers everything everywhere: all namespaces at once, and the process."""
        return _ADMIN in self.verbs

    def reads(self, namespace: str) -> bool:
        """Whether it covers looking at this namespace."""
        return self.covers(Verb.READ, namespace)

    def writes(self, namespace: str) -> bool:
        """Whether it covers changing runs of this namespace."""
        return self.covers(Verb.WRITE, namespace)


EVERYTHING: Final = Grant("", None, frozenset(Verb))
"""What everybody may do where no tokens are asked for."""


def digest_of(token: str) -> bytes:
    """What is kept of a token. No salt or stretching: a token is 256 random bits, no password."""
    return hashlib.sha256(token.encode(errors="replace")).digest()


class Access:
    """Recognises tokens. What it accepts can be replaced while the server runs."""

    def __init__(self, grants: Mapping[bytes, Grant]) -> None:
        """Accept the tokens with these digests."""
        self.replace(grants)

    def replace(self, grants: Mapping[bytes, Grant]) -> None:
        """Accept these from the next call on, and no others."""
        self._grants = tuple(grants.items())
        # A header that was accepted once is found again in a fraction of the time. Only who knows
        # a token can add to it, and no more than the ways to spell one.
        self._accepted: dict[str | bytes, Grant] = {}

    def grant(self, context: Context) -> Grant:
        """The grant of the call's token. Raises Unauthenticated."""
        for name, value in context.invocation_metadata() or ():
            if name == "authorization":
                return self.admit(value)
        return self.admit(None)

    def admit(self, authorization: str | bytes | None) -> Grant:
        """The grant of a token as a header brings it. Raises Unauthenticated."""
        if authorization is None:
            raise Unauthenticated(
                "a token is needed: send the metadata `authorization: Bearer <token>`"
            )
        return self._accepted.get(authorization) or self._recognised(authorization)

    def check_metrics(self, header: str | None) -> None:
        """The check of /metrics, by an HTTP request's Authorization header.

        Raises Unauthenticated and PermissionDenied.
        """
        if header is None:
            raise Unauthenticated("a token is needed: send `Authorization: Bearer <token>`")
        grant = self._accepted.get(header) or self._recognised(header)
        if not grant.verbs & {Verb.METRICS, Verb.ADMIN}:
            rule = f"the token {grant.name!r} lacks {Verb.METRICS}"
            raise PermissionDenied("authorization", rule, Verb.METRICS)

    def _recognised(self, value: str | bytes) -> Grant:
        text = value if isinstance(value, str) else value.decode(errors="replace")
        scheme, token = text[: len(_SCHEME)], text[len(_SCHEME) :]
        given = digest_of(token)
        found: Grant | None = None
        for digest, grant in self._grants:
            # Each is compared, and in full, so that time tells nothing.
            if hmac.compare_digest(given, digest):
                found = grant
        if found is None or scheme.lower() != _SCHEME:
            raise Unauthenticated("the token is not one that this server accepts")
        if len(self._accepted) > 8 * len(self._grants):
            self._accepted.clear()
        self._accepted[value] = found
        return found

    def check_run(self, verb: Verb) -> Check:
        """The check of a method about one run: an empty namespace is the default one."""

        def check(request: Any, context: Context) -> None:
            namespace = request.namespace or DEFAULT_NAMESPACE
            self._demand(context, verb, namespace)

        return check

    def check_many(self, verb: Verb) -> Check:
        """The check of a list or a count: an empty namespace is all of them."""

        def check(request: Any, context: Context) -> None:
            self._demand(context, verb, request.namespace or None)

        return check

    def check_known(self, _: Any, context: Context) -> None:
        """The check of what anybody with a token may see."""
        self.grant(context)

    def _demand(self, context: Context, verb: Verb, namespace: str | None) -> None:
        grant = self.grant(context)
        if grant.covers(verb, namespace):
            return
        if namespace is None:
            # Which namespaces there are is not for this token to know, so it cannot be left open.
            missing = Verb.ADMIN
            rule = f"the token {grant.name!r} lacks {missing}, which all namespaces at once need"
        else:
            missing = verb
            shown = namespace[:_SHOWN_NAMESPACE]
            rule = f"the token {grant.name!r} lacks {missing} in {shown!r}"
        raise PermissionDenied("namespace", rule, missing)
