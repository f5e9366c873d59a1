"""The token of a list's next page: the last run, or the last name, that was listed."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from ..domain import RunKey
from ..domain.errors import Violation

_FOREIGN: Final = "is not a next_page_token of this method"
_NAME: Final = "name:"


def name_token(last: str) -> str:
    """Return the token of the page behind the name `last`."""
    return _encoded(_NAME + last)


def from_name_token(token: str, into: list[Violation]) -> str:
    """Return the name that `token` stands behind; empty for the first page.

    Append what is wrong with the token to `into`.
    """
    if not token:
        return ""
    text = _decoded(token)
    if not text.startswith(_NAME):
        into.append(Violation("page_token", _FOREIGN))
    return text.removeprefix(_NAME)


def page_token(last: RunKey, partitions: int) -> str:
    """Return the token of the page behind `last`, in the order of a store of so many partitions."""
    namespace = last.namespace.replace(":", ";")  # which no namespace has
    return _encoded(f"{partitions}:{namespace}:{last.key}")


def from_page_token(token: str, partitions: int, into: list[Violation]) -> RunKey | None:
    """Return the run that `token` stands behind; None for the first page.

    With another number of partitions the runs have another order: a list would repeat runs or omit
    them. Append what is wrong with the token to `into`.
    """
    if not token:
        return None
    text = _decoded(token)
    count, _, text = text.partition(":")
    namespace, _, key = text.partition(":")
    found = RunKey(namespace.replace(";", ":"), key)
    if not count.isdecimal() or found.violations():
        into.append(Violation("page_token", _FOREIGN))
    elif count != str(partitions):
        rule = f"is of a store with {count} partitions, now it has {partitions}: list anew"
        into.append(Violation("page_token", rule))
    return found


def _encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


def _decoded(token: str) -> str:
    """Return the text of a token; empty for what is none."""
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
