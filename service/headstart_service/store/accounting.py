"""The ledger between Redis and the domain: what steps cost on the way in, sums on the way out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress

from ..domain import Fate, Hidden, Ledger, StepRecord, Work
from .batches import Reply

ALL = "*"
"""The book of all namespaces; none is called so."""
_OPEN = "open"
_HIDDEN_RUNS, _HIDDEN_US = "hidden_runs/", "hidden_us/"


def work_text(ended: Sequence[StepRecord]) -> str:
    """What these steps cost, as note_work in _lib.lua takes it."""
    return ",".join(
        f"{record.name} {record.state.value} {_us(record.work.elapsed)}"
        f" {_us(record.work.cpu_seconds)} {max(0, record.work.llm_tokens)}"
        for record in ended
        if record.work is not None
    )


def _us(seconds: float) -> int:
    return max(0, round(seconds * 1e6))


def book_from(sums: Reply, unsettled: int | None) -> Counter[str]:
    """One partition's sums as stats.lua gives them, with the runs whose fate is open.

    Of these it counts those of all namespaces, `unsettled`; of one alone they are what is left.
    What a damaged record has brought in is passed over.
    """
    book: Counter[str] = Counter()
    for name, value in zip(sums[::2], sums[1::2], strict=True):
        with suppress(ValueError):  # a name that is no text, or a sum that is no number
            book[name.decode()] = int(value)
    told = sum(book[f"{fate}.runs"] for fate in Fate)
    book[_OPEN] = book["starts"] - told if unsettled is None else unsettled
    return book


def ledger_from(books: Iterable[Counter[str]]) -> Ledger | None:
    """The partitions' books as one; None if none has begun."""
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
