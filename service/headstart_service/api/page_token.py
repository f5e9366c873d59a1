"""The token of a list's next page: the last run that was listed."""

from __future__ import annotations

import base64
import binascii

from ..domain import RunKey
from ..domain.errors import Violation


def page_token(last: RunKey, partitions: int) -> str:
    """Return the token of the page behind `last`, in the order of a store of so many partitions."""
    text = f"{partitions}:{last.namespace}:{last.key}"
    return base64.urlsafe_b64encode(text.encode()).decode()


def from_page_token(token: str, partitions: int, into: list[Violation]) -> RunKey | None:
    """Return the run that `token` stands behind; None for the first page.

    With another number of partitions the runs have another order: a list would repeat runs or omit
    them. Append what is wrong with the token to `into`.
    """
    if not token:
        return None
    try:
        text = base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        text = ""
    count, _, text = text.partition(":")
    namespace, _, key = text.partition(":")
    found = RunKey(namespace, key)
    if not count.isdecimal() or found.violations():
        into.append(Violation("page_token", "is not a next_page_token of this method"))
    elif count != str(partitions):
        rule = f"is of a store with {count} partitions, now it has {partitions}: list anew"
        into.append(Violation("page_token", rule))
    return found
