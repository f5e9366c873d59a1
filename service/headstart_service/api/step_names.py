"""The steps that a request names, and which of them a run does not have."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Self

from headstart._for_service import unknown_among

from ..domain.errors import Violation


class StepNames(tuple[str, ...]):  # noqa: SLOT001  # a tuple has no room for the attributes
    """Names of steps in one field of a request, each once.

    A batch asks the same for each of a thousand keys, and each change of a run for each caller that
    waits. So a name that is repeated costs nothing there, and what is wrong is worked out once.
    """

    _given: Sequence[str]
    _unknown: dict[tuple[str, frozenset[str]], Sequence[Violation]]

    def __new__(cls, given: Iterable[str]) -> Self:
        """Take the names as they were given."""
        names = tuple(given)
        self = super().__new__(cls, dict.fromkeys(names))
        self._given, self._unknown = names, {}
        return self

    def unknown(self, field: str, known: Collection[str]) -> Sequence[Violation]:
        """Return a violation for each name, in its place, that is none of `known`."""
        case = field, frozenset(known)
        if (found := self._unknown.get(case)) is None:
            wrong = unknown_among(self._given, case[1])
            found = self._unknown[case] = [Violation(f"{field}[{i}]", rule) for i, rule in wrong]
        return found
