"""The ledger as a message."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from headstart.v1 import precompute_pb2 as pb

from ..domain import Hidden, Ledger, Work


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
        fates={fate.value: _work(work) for fate, work in ledger.fates.items()},
        pipelines={name: _hidden(hidden) for name, hidden in ledger.pipelines.items()},
    )


def _work(work: Work) -> pb.LedgerWork:
    return pb.LedgerWork(
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
