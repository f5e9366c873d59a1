"""The part of an answer that a caller wants."""

from __future__ import annotations

from collections.abc import Collection

from headstart._for_service import only_results

from .results.answer import Answer


def part_of(answer: Answer, steps: Collection[str]) -> bytes:
    """Return an answer's data with the results of these steps alone; with none, of all."""
    if not steps or answer.states.keys() <= set(steps):
        return answer.data
    return only_results(answer.data, steps)
