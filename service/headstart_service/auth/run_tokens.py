"""Tokens for one run: signed by the server, short-lived, checked without a look-up.

A backend that may read a run asks for such a token, and hands it to a browser. It names the run,
the backend's own token and a time. It ends with that time, with the backend's token, or with the
key that signed it. The first key signs and all verify, so a new first key rotates.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Callable, Sequence
from typing import Final

from ..domain import RunKey
from ..domain.errors import Unauthenticated

RUN_PREFIX: Final = "hsr_"
"""How a token for one run begins."""
_PARTS: Final = 4
_PURPOSE: Final = b"headstart run token\n"


class RunTokens:
    """Signs and verifies tokens for one run."""

    def __init__(self, keys: Sequence[bytes] = (), clock: Callable[[], float] = time.time) -> None:
        """Sign with the first of the keys; `clock` returns seconds since the epoch."""
        self._keys, self._clock = tuple(keys), clock

    @property
    def usable(self) -> bool:
        """Whether there is a key to sign with."""
        return bool(self._keys)

    def sign(self, key: RunKey, granter: str, lives_for: float) -> tuple[str, int]:
        """Return a token to read this run, and when it ends, in milliseconds since the epoch.

        `granter` names the token whose bearer asks for it.
        """
        ends = round((self._clock() + lives_for) * 1000)
        payload = f"{ends}\n{granter}\n{key.namespace}\n{key.key}".encode()
        signature = _signature(self._keys[0], payload)
        return _token(payload, signature), ends

    def read(self, token: str) -> tuple[RunKey, str]:
        """Return the run that a token is for, and its granter. Raises Unauthenticated."""
        payload, _, signature = token.removeprefix(RUN_PREFIX).partition(".")
        data, given = _decoded(payload), _decoded(signature)
        # All keys are compared, and in full, so that the time reveals nothing.
        right = [hmac.compare_digest(_signature(key, data), given) for key in self._keys]
        parts = data.decode(errors="replace").split("\n")
        # Base 64 has several spellings of the same bytes: only the one that was signed is a token.
        if not any(right) or len(parts) != _PARTS or token != _token(data, given):
            raise Unauthenticated("the token for one run is not one that this server has signed")
        ends, granter, namespace, key = parts
        if int(ends) <= self._clock() * 1000:
            raise Unauthenticated("the token for one run has ended: its backend signs another")
        return RunKey(namespace, key), granter


def _signature(key: bytes, payload: bytes) -> bytes:
    return hmac.new(key, _PURPOSE + payload, hashlib.sha256).digest()


def _token(payload: bytes, signature: bytes) -> str:
    return f"{RUN_PREFIX}{_encoded(payload)}.{_encoded(signature)}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return b""
