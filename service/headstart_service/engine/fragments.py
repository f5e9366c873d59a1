"""Step reports as wire fragments.

Concatenated protobuf messages merge, and a later map entry replaces an earlier one of its name. So
each step's report and result can be a serialized GetResultsResponse of their own, and a whole
answer is those pieces joined. Not every runtime merges, though: `merged` joins them for all.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

from headstart.v1 import precompute_pb2 as pb

from ..domain import StepState

PROTO_STATE = {
    StepState.PENDING: pb.STEP_STATE_PENDING,
    StepState.RUNNING: pb.STEP_STATE_RUNNING,
    StepState.COMPLETED: pb.STEP_STATE_COMPLETED,
    StepState.FAILED: pb.STEP_STATE_FAILED,
    StepState.SKIPPED: pb.STEP_STATE_SKIPPED,
}


def report_fragment(
    step: str,
    state: StepState,
    *,
    error: str = "",
    elapsed: float | None = None,
    attempts: int = 0,
    started_us: int = 0,
    origin: pb.StepOrigin.ValueType = pb.STEP_ORIGIN_UNSPECIFIED,
) -> bytes:
    """The piece of GetResultsResponse that says how `step` fares; `elapsed` is in seconds."""
    report = pb.StepReport(
        state=PROTO_STATE[state],
        error=error,
        attempts=attempts,
        started_us=started_us,
        origin=origin,
    )
    if elapsed is not None:
        report.elapsed.FromNanoseconds(round(elapsed * 1e9))
    return pb.GetResultsResponse(steps={step: report}).SerializeToString()


def merged(fragments: bytes) -> bytes | None:
    """Joined fragments as one message with every field once; None if they cannot be read.

    Of several `results` fields protobuf.js, and so every Node caller, keeps the last alone
    (docs/decisions/0023).
    """
    try:
        return pb.GetResultsResponse.FromString(fragments).SerializeToString()
    except DecodeError:
        return None
