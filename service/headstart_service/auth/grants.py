"""The verbs, and the grants of tokens.

A token's digest is kept, never the token. A call that a grant does not cover is refused before
anything is read, so a refusal does not reveal whether a key exists.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from grpc.aio import ServicerContext

from ..domain import RunKey
from ..domain.errors import PermissionDenied, Unauthenticated
from .run_tokens import RUN_PREFIX, RunTokens

Context = ServicerContext[Any, Any]
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
    """The operator's name for it: it may be shown and logged, unlike the token."""
    namespaces: frozenset[str] | None
    """None means every one."""
    verbs: frozenset[Verb]
    run: str | None = None
    """The key of the only run that it is for; None where it is for all runs."""

    def covers(self, verb: Verb, namespace: str | None, key: str | None = None) -> bool:
        """Whether `verb` is granted in this namespace; None is all of them at once.

        With a `key`, whether it is granted for the run of this key.
        """
        if _ADMIN in self.verbs:
            return True
        if namespace is None or verb not in self.verbs:
            return False
        if self.run is not None and self.run != key:
            return False
        return self.namespaces is None or namespace in self.namespaces

    def demand(self, verb: Verb, namespace: str | None, key: str | None = None) -> None:
        """Raise PermissionDenied unless `covers` is true."""
        if self.covers(verb, namespace, key):
            return
        if self.run is not None:
            rule = f"the token {self.name!r} may only read the run that it was made for"
            raise PermissionDenied("key", rule, verb)
        if namespace is None:
            # This token may not list all namespaces, so a request must name one.
            missing = Verb.ADMIN
            lacks = f"the token {self.name!r} lacks {missing}, which all namespaces at once need"
            rule = f"{lacks}: name one"
        else:
            missing = verb
            shown = namespace[:_SHOWN_NAMESPACE]
            rule = f"the token {self.name!r} lacks {missing} in {shown!r}"
        raise PermissionDenied("namespace", rule, missing)

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
"""The grant of every caller where no tokens are required."""


def authorization_of(context: Context) -> str | bytes | None:
    """Return the value of the call's `authorization`; None without one."""
    given = context.invocation_metadata() or ()
    return next((value for name, value in given if name == "authorization"), None)


def digest_of(token: str) -> bytes:
    """Return what is kept of a token: unsalted, because a token is 256 random bits."""
    return hashlib.sha256(token.encode(errors="replace")).digest()


def _granter(digest: bytes, grant: Grant) -> str:
    """Return the name of a token, which another token of the same name does not have."""
    return f"{grant.name} {hashlib.sha256(digest).hexdigest()[:16]}"


class Grants:
    """Recognises tokens. What it accepts can be replaced while the server runs."""

    def __init__(self, grants: Mapping[bytes, Grant], run_tokens: RunTokens | None = None) -> None:
        """Accept the tokens with these digests, and those for one run that they have given."""
        self.replace(grants, run_tokens or RunTokens())

    def replace(self, grants: Mapping[bytes, Grant], run_tokens: RunTokens) -> None:
        """Accept these from the next call on, and no others."""
        self._grants = tuple(grants.items())
        self._granters = {_granter(digest, grant): grant for digest, grant in grants.items()}
        self.run_tokens = run_tokens
        # A header that was accepted once is found again in a fraction of the time. Only
        # callers with a token can add to it, and only as many entries as ways to spell one.
        self._accepted: dict[str | bytes, Grant] = {}

    @property
    def remembered(self) -> int:
        """How many spellings of accepted headers are kept."""
        return len(self._accepted)

    def of_call(self, context: Context) -> Grant:
        """Return the grant of the call's token. Raises Unauthenticated."""
        return self.admit(authorization_of(context))

    def admit(self, authorization: str | bytes | None) -> Grant:
        """Return the grant of a header's token. Raises Unauthenticated."""
        if authorization is None:
            raise Unauthenticated(
                "a token is needed: send the metadata `authorization: Bearer <token>`"
            )
        return self._accepted.get(authorization) or self._recognised(authorization)

    def name_of(self, authorization: str | bytes | None) -> str:
        """Return the name of a header's token; empty for one that is not accepted."""
        try:
            return self.admit(authorization).name
        except Unauthenticated:
            return ""

    def check_metrics(self, header: str | None) -> None:
        """Check a request for /metrics by its Authorization header.

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
        if token.startswith(RUN_PREFIX) and scheme.lower() == _SCHEME:
            return self._for_run(token)
        given = digest_of(token)
        found: Grant | None = None
        for digest, grant in self._grants:
            # All tokens are compared, and in full, so that the time reveals nothing.
            if hmac.compare_digest(given, digest):
                found = grant
        if found is None or scheme.lower() != _SCHEME:
            raise Unauthenticated("the token is not one that this server accepts")
        if len(self._accepted) > 8 * len(self._grants):
            self._accepted.clear()
        self._accepted[value] = found
        return found

    def sign(self, key: RunKey, grant: Grant, lives_for: float) -> tuple[str, int]:
        """Return a token to read this run, and when it ends, in milliseconds since the epoch.

        The bearer of `grant` asks for it. Raises Unauthenticated if that is no longer accepted.
        """
        for granter, accepted in self._granters.items():
            if accepted.name == grant.name:
                return self.run_tokens.sign(key, granter, lives_for)
        raise Unauthenticated("the token is no longer one that this server accepts")

    def _for_run(self, token: str) -> Grant:
        """Return the grant of a token for one run, as long as its granter may read the run."""
        key, granter = self.run_tokens.read(token)
        own = self._granters.get(granter)
        if own is None or not own.covers(Verb.READ, key.namespace):
            raise Unauthenticated("the token for one run is of a token that is no longer valid")
        name = f"{own.name}, for one run"
        return Grant(name, frozenset({key.namespace}), frozenset({Verb.READ}), key.key)
