"""Durations of the service's messages, and the estimates that are made of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from headstart.v1 import precompute_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEstimate:
    """When a step that has not ended is expected to end, counted from the answer."""

    p50: timedelta
    """In one case of two."""
    p90: timedelta
    """In nine cases of ten."""


def estimate_of(message: pb.StepReport | pb.ItemProgress) -> StepEstimate | None:
    """Return a message's estimate, if it has one."""
    p50 = elapsed_of(message.estimate, "p50", message.estimate.p50)
    p90 = elapsed_of(message.estimate, "p90", message.estimate.p90)
    return None if p50 is None or p90 is None else StepEstimate(p50=p50, p90=p90)


def elapsed_of(message: Message, field: str, duration: Duration) -> timedelta | None:
    """Return a duration, the field of a message, if it is set."""
    if not message.HasField(field):
        return None
    return timedelta(seconds=duration.seconds, microseconds=duration.nanos / 1000)
