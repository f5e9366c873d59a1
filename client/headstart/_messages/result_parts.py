"""Parts of an answer: the results of some steps, or what has changed since an earlier answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from headstart.v1 import precompute_pb2 as pb

BRIDGING_FIELDS: Final[Mapping[str, Sequence[str]]] = {
    "embed_endpoints": ("anchor_embedding", "target_embedding", "embedding_model"),
    "lexical_bridge": ("lexical_bridge", "lexical_embeddings"),
    "null_samples": ("null_samples",),
    "haiku_bridge": ("haiku_clues",),
    "haiku_embeddings": ("haiku_embeddings",),
}
"""The fields that each step fills, as the comments of BridgingResults list them."""


def only_results(data: bytes, steps: Collection[str]) -> bytes:
    """Return a serialized GetResultsResponse with the results of these steps alone."""
    message = pb.GetResultsResponse.FromString(data)
    _keep(message, steps)
    return message.SerializeToString()


class Changes:
    """What of one run's answers was sent before, so that only what has changed is sent."""

    def __init__(self, steps: Collection[str]) -> None:
        """Send the results of these steps alone; with none, of all."""
        self._steps = steps
        self._run: tuple[int, int, int] | None = None
        self._reports: dict[str, bytes] = {}
        self._items: dict[tuple[str, int], int] = {}
        """The hash of each item, by step and place."""

    def since(self, data: bytes) -> bytes:
        """Return what has changed in a serialized GetResultsResponse; all of it in a new run."""
        message = pb.GetResultsResponse.FromString(data)
        run = (message.revision, message.created_at.seconds, message.created_at.nanos)
        before = self._reports if run == self._run else {}
        sent = self._items if run == self._run else {}
        self._run = run
        self._items = {
            (item.step, item.index): hash(item.SerializeToString(deterministic=True))
            for item in message.items
        }
        self._reports = {
            name: report.SerializeToString(deterministic=True)
            for name, report in message.steps.items()
        }
        changed = {name for name, report in self._reports.items() if before.get(name) != report}
        for name in self._reports.keys() - changed:
            del message.steps[name]
        items = [
            item
            for item in message.items
            if sent.get(place := (item.step, item.index)) != self._items[place]
            and (not self._steps or item.step in self._steps)
        ]
        _keep(message, changed.intersection(self._steps) if self._steps else changed)
        message.ClearField("items")
        message.items.extend(items)
        return message.SerializeToString()


def _keep(message: pb.GetResultsResponse, steps: Collection[str]) -> None:
    """Remove the results of all other steps, and their items."""
    kept = [item for item in message.items if item.step in steps]
    if len(kept) < len(message.items):
        message.ClearField("items")
        message.items.extend(kept)
    match message.WhichOneof("results"):
        case "custom":
            for name in set(message.custom.artifacts) - set(steps):
                del message.custom.artifacts[name]
            empty = not message.custom.artifacts
        case "bridging":
            for name, fields in BRIDGING_FIELDS.items():
                for field in fields if name not in steps else ():
                    message.bridging.ClearField(field)  # type: ignore[arg-type]  # a name from the table
            empty = not message.bridging.ByteSize()
        case _:
            return
    if empty:
        message.ClearField("results")
