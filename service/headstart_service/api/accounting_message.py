"""The ledger as a message."""

from __future__ import annotations

from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from headstart.v1 import precompute_pb2 as pb

from ..domain import Fate, Hidden, Ledger, Work

_FATES: Final = {fate: pb.Fate.Value(f"FATE_{fate.name}") for fate in Fate}


def ledger_message(ledger: Ledger) -> pb.Ledger:
    """Return the message of a ledger, with the fates that nothing has met."""
    since = Timestamp()
    since.FromMicroseconds(ledger.since_us)
    return pb.Ledger(
        since=since,
        starts=ledger.starts,
        joined=ledger.joined,
        reused=ledger.reused,
        unsettled=ledger.open,
        hidden=_duration(ledger.hidden),
        waited=_duration(ledger.waited),
        llm_calls=ledger.llm_calls,
        llm_cached_tokens=ledger.llm_cached_tokens,
        fates=[_work(fate, ledger.fates.get(fate, Work())) for fate in Fate],
        pipelines={name: _hidden(hidden) for name, hidden in ledger.pipelines.items()},
    )


def _work(fate: Fate, work: Work) -> pb.LedgerWork:
    return pb.LedgerWork(
        fate=_FATES[fate],
        runs=work.runs,
        steps=work.steps,
        compute=_duration(work.compute),
        cpu=_duration(work.cpu),
        llm_tokens=work.llm_tokens,
    )


def _hidden(hidden: Hidden) -> pb.LedgerHidden:
    return pb.LedgerHidden(runs=hidden.runs, hidden=_duration(hidden.seconds))


def _duration(seconds: float) -> Duration:
    made = Duration()
    made.FromMicroseconds(round(seconds * 1e6))
    return made
