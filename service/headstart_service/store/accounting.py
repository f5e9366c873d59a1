"""Encode the cost of steps for the ledger in Redis, and decode its sums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress

from ..domain import Fate, Hidden, Ledger, StepRecord, Work
from .batches import Reply
from .records import step_letter

ALL = "*"
"""The book of all namespaces; none is called so."""
_OPEN = "open"
_HIDDEN_RUNS, _HIDDEN_US = "hidden_runs/", "hidden_us/"


def work_text(ended: Sequence[StepRecord]) -> str:
    """Return the cost of these steps as note_work in _accounting.lua takes it."""
    return ",".join(
        f"{record.name} {step_letter(record.state)} {_us(record.work.elapsed)}"
        f" {_us(record.work.cpu_seconds)} {max(0, record.work.llm_tokens)}"
        for record in ended
        if record.work is not None
    )


def _us(seconds: float) -> int:
    return max(0, round(seconds * 1e6))


def book_from(sums: Reply, unsettled: int | None) -> Counter[str]:
    """Return one partition's sums of stats.lua, with the number of runs whose fate is open.

    That number is `unsettled` for all namespaces; for one alone it is what its fates leave over.
    Damaged sums are left out.
    """
    book: Counter[str] = Counter()
    for name, value in zip(sums[::2], sums[1::2], strict=True):
        with suppress(ValueError):  # a name that is no text, or a sum that is no number
            book[name.decode()] = int(value)
    settled = sum(book[f"{fate}.runs"] for fate in Fate)
    book[_OPEN] = book["starts"] - settled if unsettled is None else unsettled
    return book


def ledger_from(books: Iterable[Counter[str]]) -> Ledger | None:
    """Return the ledger of all partitions' books; None if none has begun."""
    begun = [book for book in books if book["since"]]
    if not begun:
        return None
    book = sum(begun, Counter())
    pipelines = sorted(n.removeprefix(_HIDDEN_RUNS) for n in book if n.startswith(_HIDDEN_RUNS))
    return Ledger(
        since_us=min(one["since"] for one in begun),
        starts=book["starts"],
        joined=book["joined"],
        reused=book["reused"],
        open=book[_OPEN],
        hidden=book["hidden_us"] / 1e6,
        waited=book["waited_us"] / 1e6,
        llm_calls=book["llm_calls"],
        llm_cached_tokens=book["llm_cached_tokens"],
        fates={fate: _work(book, fate) for fate in Fate},
        pipelines={
            name: Hidden(book[_HIDDEN_RUNS + name], book[_HIDDEN_US + name] / 1e6)
            for name in pipelines
        },
    )


def _work(book: Counter[str], fate: Fate) -> Work:
    return Work(
        runs=book[f"{fate}.runs"],
        steps=book[f"{fate}.steps"],
        compute=book[f"{fate}.compute_us"] / 1e6,
        cpu=book[f"{fate}.cpu_us"] / 1e6,
        llm_tokens=book[f"{fate}.llm_tokens"],
    )
