"""What people waited at submit, as a table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

BUCKETS = ((0.0, 30.0), (30.0, 60.0), (60.0, 90.0), (90.0, 120.0), (120.0, math.inf))
"""Seconds of typing."""
_QUANTILES = (0.5, 0.9, 0.99)
_HEADER = ("games", "typing", "n", *2 * ("p50", "p90", "p99"))
_WIDTHS = (29, 10, 5, *6 * (9,))


@dataclass(frozen=True)
class Submit:
    """One submit of a game."""

    recipient: str
    head_start: bool
    typed: float
    """Seconds that a person takes for the clues."""
    waited: float
    """Seconds from submit to the answer, as the player's client saw it."""
    sources: Mapping[str, int]
    """How many parts were ready, waited for, computed live, or failed."""


def table(submits: Sequence[Submit], haiku: str) -> str:
    """Quantiles of the waits, with and without a head start, by recipient and by typing time."""
    lines = [
        "What people wait at submit: the answer's p50, p90 and p99",
        "",
        _row(("", "", "", "", "without", "", "", "with", ""), _WIDTHS),
        _row(_HEADER, _WIDTHS),
    ]
    for recipient, name in (("haiku", f"against {haiku}"), ("human", "for a person")):
        own = [each for each in submits if each.recipient == recipient]
        if not own:
            continue
        lines.append(_quantiles_row(name, "all", own))
        for low, high in BUCKETS:
            some = [each for each in own if low <= each.typed < high]
            if some:
                lines.append(_quantiles_row("", _bucket(low, high), some))
    lines += ["", parts(submits)]
    return "\n".join(lines)


def headline(submits: Sequence[Submit], haiku: str) -> str:
    """Return the medians of the games against the language model, else of all, as a sentence."""
    own = [each for each in submits if each.recipient == "haiku"] or list(submits)
    medians = [
        quantile(waits, 0.5)
        for head_start in (False, True)
        if (waits := [each.waited for each in own if each.head_start is head_start])
    ]
    if len(medians) < 2:
        return "Only one kind of game was played, so there is nothing to compare."
    opponent = f"against {haiku} " if own[0].recipient == "haiku" else ""
    without, ahead = map(seconds, medians)
    return f"People who played {opponent}waited {without} without a head start, {ahead} with one."


def parts(submits: Sequence[Submit]) -> str:
    """Where the parts of the games with a head start came from."""
    sources: Counter[str] = Counter()
    for each in submits:
        if each.head_start:
            sources.update(each.sources)
    words = {"ready": "ready", "waited": "waited for", "live": "computed then", "failed": "failed"}
    shares = ", ".join(f"{sources[source]} {phrase}" for source, phrase in words.items())
    return f"With a head start, of {sources.total()} parts at submit: {shares}."


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the values do not exceed, by the nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def seconds(value: float) -> str:
    """A duration in the unit that suits it."""
    if value < 1:
        return f"{value * 1000:.{1 if value < 0.01 else 0}f} ms"
    return f"{value:.2f} s"


def _quantiles_row(name: str, typing: str, submits: Sequence[Submit]) -> str:
    cells = []
    for head_start in (False, True):
        waits = [each.waited for each in submits if each.head_start is head_start]
        cells += [seconds(quantile(waits, share)) if waits else "-" for share in _QUANTILES]
    return _row((name, typing, str(len(submits) // 2), *cells), _WIDTHS)


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = zip(cells, widths, strict=True)
    left = f"{first[0]:<{first[1]}}"
    return (left + "".join(f"{cell:>{width}}" for cell, width in rest)).rstrip()


def _bucket(low: float, high: float) -> str:
    if not low:
        return f"< {high:g} s"
    return f"> {low:g} s" if math.isinf(high) else f"{low:g}-{high:g} s"
