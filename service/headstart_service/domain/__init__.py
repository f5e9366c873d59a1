"""The words of the domain: runs, the queue, events and accounting.

Knows neither gRPC nor Redis. All names are imported from here.
"""

from __future__ import annotations

from .accounting import (
    Fate,
    Hidden,
    Ledger,
    Stats,
    Work,
)
from .events import (
    Announcement,
    Awaits,
    EventKind,
    Reported,
    Unserved,
    Withdrawal,
)
from .failures import FailureReason
from .queue import (
    Claim,
    ExpectedRuns,
    Job,
    Lease,
    Offer,
    Orphan,
    Spread,
    WorkerState,
)
from .runs import (
    DEFAULT_NAMESPACE,
    MAX_KEY_BYTES,
    Cancelled,
    Inspection,
    Lack,
    Outcome,
    Report,
    RunKey,
    RunPlan,
    RunSummary,
    Snapshot,
    Started,
    Status,
    StepRecord,
    StepState,
    StepWork,
    digest,
    has_control_characters,
    namespace_violations,
    runs_class,
)

__all__ = [
    "DEFAULT_NAMESPACE",
    "MAX_KEY_BYTES",
    "Announcement",
    "Awaits",
    "Cancelled",
    "Claim",
    "EventKind",
    "ExpectedRuns",
    "FailureReason",
    "Fate",
    "Hidden",
    "Inspection",
    "Job",
    "Lack",
    "Lease",
    "Ledger",
    "Offer",
    "Orphan",
    "Outcome",
    "Report",
    "Reported",
    "RunKey",
    "RunPlan",
    "RunSummary",
    "Snapshot",
    "Spread",
    "Started",
    "Stats",
    "Status",
    "StepRecord",
    "StepState",
    "StepWork",
    "Unserved",
    "Withdrawal",
    "Work",
    "WorkerState",
    "digest",
    "has_control_characters",
    "namespace_violations",
    "runs_class",
]
