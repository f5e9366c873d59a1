"""The steps that a request names, and which of them a run does not have."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from headstart._for_service import unknown_among

from ..domain.errors import Violation


class StepNames(tuple[str, ...]):  # noqa: SLOT001  # a tuple has no room for the attribute
    """Names of steps in one field of a request.

    A batch asks the same for each of a thousand keys, so each answer is worked out once. A tuple,
    because protobuf makes a new text each time that a name is read.
    """

    def __init__(self, _: Iterable[str] = ()) -> None:
        self._unknown: dict[tuple[str, frozenset[str]], Sequence[Violation]] = {}

    def unknown(self, field: str, known: Collection[str]) -> Sequence[Violation]:
        """Return a violation for each name that is none of `known`."""
        case = field, frozenset(known)
        if (found := self._unknown.get(case)) is None:
            found = [Violation(f"{field}[{i}]", rule) for i, rule in unknown_among(self, case[1])]
            self._unknown[case] = found
        return found
