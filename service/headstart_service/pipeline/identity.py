"""What a provider's answers depend on beside the question, as a text that digests can hold.

A result is reused where today's providers would make the same. So a provider that can be exchanged
without a change of code has an `identity`. It is one text for as long as the answers are the same,
on any machine, in any process, after any restart.
"""

from __future__ import annotations

import inspect
import string
from typing import Any, Final
from urllib.parse import quote

from ..domain.errors import StartupError

_ABSENT: Final = object()
_KEPT: Final = string.punctuation.replace("%", "")
_SHOWN: Final = 80


def identity_of(provider: object) -> str:
    """Return the provider's `identity`; the empty text if it has none.

    None or an empty one means that its answers are the same everywhere, as far as steps may
    depend on them. Raises StartupError, which names the provider's type, if the identity is not a
    text of printable ASCII without spaces, or cannot be read.
    """
    name = f"the provider {type(provider).__qualname__}"
    value: Any = getattr(provider, "identity", _ABSENT)
    if value is _ABSENT:
        if inspect.getattr_static(provider, "identity", _ABSENT) is not _ABSENT:
            raise StartupError(f"{name}: its property `identity` raises AttributeError: mend it")
        return ""
    if not isinstance(value, str):
        raise StartupError(
            f"{name}: its `identity` is of type {type(value).__name__}: must be a str of "
            "printable ASCII without spaces; a property, if it is a method"
        )
    if not all("!" <= letter <= "~" for letter in value):
        raise StartupError(
            f"{name}: its `identity` is {value[:_SHOWN]!r}: must be printable ASCII without "
            "spaces; take a digest of it, or percent-encode it"
        )
    return value


def printable(text: str) -> str:
    """Return `text` as a part of an identity: percent-encoded where it is not printable ASCII.

    Different texts stay different.
    """
    return quote(text.encode("utf-8", "surrogateescape"), safe=_KEPT)
