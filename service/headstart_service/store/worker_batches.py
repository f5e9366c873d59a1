"""Opens the batches of script calls that each part of a worker's store sends."""

from __future__ import annotations

from .batches import ScriptBatches
from .connect import WORKER, Client
from .layout import StoreLayout
from .script_loader import SOURCES
from .store_observer import StoreObserver, Unwatched
from .store_rules import StoreRules


def worker_batches(
    client: Client, rules: StoreRules, *, budget: float, observer: StoreObserver | None
) -> ScriptBatches:
    """Return batches over a worker's connections; `budget` is in seconds, for one reply."""
    return ScriptBatches(
        client,
        SOURCES,
        budget=budget,
        connections=WORKER.connections,
        layout=StoreLayout(client, rules.partitions, rules.prefix),
        observer=observer or Unwatched(),
    )
