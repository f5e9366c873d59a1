"""Results as people read them: a table of steps, words whole, numbers summarised."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from ...base.escaping import escaped
from ...base.output import (
    COLOURS,
    ago,
    clipped,
    coloured,
    shortened,
    spoken,
    table,
)

_FIRST: Final = 3
"""So many numbers of a vector are shown."""
_LONGEST: Final = 100
"""So many characters of another step's value are shown."""


def described(results: Any) -> str:
    """A run, its steps and what they gave."""
    lines = [_head(results), steps_table(results)]
    if results.bridging:
        lines += _bridging(results.bridging)
    lines += [f"{name}: {short_value(value)}" for name, value in (results.custom or {}).items()]
    lines += [f"{name}: {_items(items)}" for name, items in results.partial_items.items()]
    lines += [
        f"{name}, so far: {short_value(partial)}"
        for name, partial in results.partials.items()
        if name in results.missing
    ]
    return "\n".join(lines)


def step_cells(report: Any) -> tuple[str, str, str]:
    """A step's time, attempts and error, as text; empty where there is nothing to say.

    The origin of a result that was not computed for this run stands in place of the time.
    """
    elapsed = "" if report.elapsed is None else spoken(report.elapsed.total_seconds())
    if report.state == "completed" and report.origin != "computed":
        elapsed = str(report.origin)
    return elapsed, f"{report.attempts}" if report.attempts else "", report.error or ""


def items_text(report: Any) -> str:
    """Return how far a step is with its list, as text; empty for a step without one."""
    if report.items is None:
        return ""
    failed = f", {report.items.failed} failed" if report.items.failed else ""
    return f"{report.items.ended} of {report.items.total} items{failed}"


def expected(report: Any) -> str:
    """Return when a step is expected to end, as text; empty without an estimate."""
    if report.estimate is None:
        return ""
    soon, late = (spoken(t.total_seconds()) for t in (report.estimate.p50, report.estimate.p90))
    return f"~{soon}, p90 {late}"


def progressed(report: Any) -> str:
    """Return how far a running step has come, as text; empty if it does not report that."""
    progress = report.progress
    if progress is None:
        return ""
    share = "" if progress.fraction is None else f"{progress.fraction:.0%}"
    return " ".join(part for part in (share, progress.message) if part)


def steps_table(results: Any) -> str:
    """How each step stands."""
    with_items = any(report.items is not None for report in results.steps.values())
    rows = [("STEP", "STATE", *(["ITEMS"] if with_items else []), "TIME", "ATTEMPTS", "ERROR")]
    for name, report in results.steps.items():
        elapsed, *others = step_cells(report)
        items = [items_text(report)] if with_items else []
        soon = progressed(report) or expected(report)
        rows.append((name, str(report.state), *items, elapsed or escaped(soon), *others))
    return table(rows)


def vector(numbers: Sequence[float]) -> str:
    """Return the first numbers, whole ones without decimals, and how many there are."""
    shown = shortened(numbers[:_FIRST])
    if not all(isinstance(number, int) for number in shown):
        shown = [_number(number) for number in numbers[:_FIRST]]
    first = ", ".join(map(str, shown))
    more = ", …" if len(numbers) > _FIRST else ""
    return f"[{first}{more}] ({len(numbers)} numbers)"


def _number(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:.3f}"


_PENDING: Final = {
    "no_worker": "no worker is running",
    "no_worker_for_pool": "no worker serves the pool of the pipeline {}",
    "no_worker_for_pipeline": "no worker has the pipeline {}",
    "no_worker_for_version": "no worker has this version of the pipeline {}",
}


def reason_of(results: Any) -> str:
    """Return why a run failed, or why no worker takes it; empty if neither is so."""
    if results.error:
        return str(results.error)
    if unserved := getattr(results, "unserved_steps", None):  # a list's rows have none
        return "; ".join(map(_unserved, unserved))
    return _PENDING.get(results.pending_reason or "", "").format(results.pipeline)


def _unserved(step: Any) -> str:
    """Describe a step of another pool for which there is no worker."""
    reason = _PENDING.get(step.reason or "", "no worker computes {}")
    if step.reason == "no_worker_for_pool":
        return f"no worker serves the pool {step.pool} of the step {step.step}"
    return reason.format(f"of the step {step.step}")


def _head(results: Any) -> str:
    status = coloured(str(results.status), COLOURS.get(str(results.status)))
    head = f"{results.key} revision {results.revision}: {status}"
    if reason := reason_of(results):
        head += f" ({escaped(reason)})"
    now = datetime.now(UTC)
    if results.expires_at and results.status.ended:
        head += f", expires {ago(results.expires_at, now)}"
    return head


def _bridging(bridging: Any) -> list[str]:
    lines = []
    for name, vectors in (
        ("anchor", bridging.anchor_embedding),
        ("target", bridging.target_embedding),
    ):
        if vectors:
            lines.append(f"{name} embedding: {vector(vectors)}")
    for name, words, vectors in (
        ("lexical bridge", bridging.lexical_bridge, bridging.lexical_embeddings),
        ("haiku's bridge", bridging.haiku_clues, bridging.haiku_embeddings),
    ):
        if words:
            lines.append(f"{name}: {', '.join(escaped(word) for word in words)}")
        if vectors:
            lines.append(f"{name}, embeddings: {len(vectors)} of {len(vectors[0])} numbers")
    samples = bridging.null_samples
    if samples:
        middle = samples[len(samples) // 2]
        lines.append(
            f"null samples: {len(samples)} from {samples[0]:.3f} to {samples[-1]:.3f}, "
            f"median {middle:.3f}"
        )
    if bridging.embedding_model:
        lines.append(f"embedding model: {escaped(bridging.embedding_model)}")
    return lines


def short_value(value: Any) -> str:
    """Return a value as text on one line, cut to what people read."""
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if hasattr(value, "shape"):
        return f"tensor {' by '.join(map(str, value.shape))}: {vector(value.values)}"
    if _is_vector(value):
        return vector(value)
    return clipped(escaped(json.dumps(shortened(value), ensure_ascii=False)), _LONGEST)


def _items(items: Sequence[Any]) -> str:
    """Return the items that there are, each behind its place."""
    shown = (f"[{i.index}] {i.error or json.dumps(i.value, ensure_ascii=False)}" for i in items)
    return clipped(escaped(", ".join(shown)), _LONGEST)


def _is_vector(value: Any) -> bool:
    if not isinstance(value, list | tuple) or len(value) <= _FIRST:
        return False
    return all(isinstance(item, float) for item in value)
