"""One module a curve; `ALL` has them in the order in which docs/performance.md explains them."""

from __future__ import annotations

from . import announcements, keys, partitions, payload, processes, queue, vocabulary, waiters

ALL = (
    payload.CURVE,
    waiters.CURVE,
    queue.CURVE,
    keys.CURVE,
    vocabulary.CURVE,
    processes.API,
    processes.WORKERS,
    partitions.CURVE,
    announcements.CURVE,
)
