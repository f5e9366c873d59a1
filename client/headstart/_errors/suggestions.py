"""Rules for wrong names: what is allowed, and the name that was probably meant.

Imports nothing of the client, because the service uses it too: its fake refuses in the same words.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final

# `difflib` takes some 10 µs for a pair of short names, and more for long ones.
_LONGEST: Final = 64
"""Characters of a name that is compared."""
_MOST_KNOWN: Final = 200
"""Names that it is compared with."""
_MOST_WRONG: Final = 8
"""Names of one request that get a suggestion: an answer has no room for more."""
_SHOWN: Final = 40
"""Characters of a wrong name in a message."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "did you mean 'x'?" for the known name that is closest; empty if none is close."""
    from difflib import get_close_matches  # wrong names are rare, and importing it takes 0.6 ms

    names = list(known)
    if len(name) > _LONGEST or len(names) > _MOST_KNOWN:
        return ""
    by_lower = {each.lower(): each for each in names}
    close = get_close_matches(name.lower(), by_lower, n=1)
    return f"did you mean {str(by_lower[close[0]])!r}?" if close else ""


def with_suggestion(rule: str, name: str, known: Iterable[str]) -> str:
    """Return `rule`, followed by the known name that was probably meant, if there is one."""
    return "; ".join(filter(None, (rule, did_you_mean(name, known))))


def suggested(rule: str, names: Iterable[str], known: Collection[str]) -> Iterator[str]:
    """Yield `rule` for each of the wrong names, the first few with their suggestions."""
    for place, name in enumerate(names):
        yield with_suggestion(rule, name, known) if place < _MOST_WRONG else rule


def not_one_of(name: str, known: Collection[str]) -> str:
    """Return the rule that `name` breaks, which is none of `known`.

    The suggestion comes first, because the service cuts long descriptions.
    """
    return " ".join(filter(None, (did_you_mean(name, known), _rule(name, known))))


def unknown_among(names: Iterable[str], known: Collection[str]) -> Iterator[tuple[int, str]]:
    """Yield the place of each name that is none of `known`, and the rule that it breaks."""
    found = 0
    for place, name in enumerate(names):
        if name not in known:
            found += 1
            yield place, (not_one_of if found <= _MOST_WRONG else _rule)(name, known)


def _rule(name: str, known: Collection[str]) -> str:
    shown = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…"
    return f"must be one of: {', '.join(sorted(known))}; is {shown!r}"
