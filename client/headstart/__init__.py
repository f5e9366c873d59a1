"""The light client of Headstart, a service that computes results while users are busy.

`PrecomputeClient` is the asyncio client, `BlockingClient` the one for threads; `EagerPrecompute`
the same service behind the interface of an in-process singleton that never raises. `relevance` and
`percentile` score a caller's own words as the service scores its null samples.
"""

import headstart._quiet_grpc  # noqa: F401  # first, because it loads gRPC
from headstart._clients.batches import Start
from headstart._clients.blocking_client import BlockingClient
from headstart._clients.client import PrecomputeClient
from headstart._clients.eager_precompute import EagerPrecompute
from headstart._clients.precompute_result import PrecomputeResult
from headstart._errors import (
    DeadlineExceeded,
    HeadstartError,
    Incomplete,
    InvalidRequest,
    NoResult,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    ServiceError,
    ServiceUnavailable,
    Unauthenticated,
    UnusableProcess,
    Violation,
)
from headstart._get_or_compute.computed import Computed, Source
from headstart._messages.artifacts import Artifact, Json
from headstart._messages.descriptions import (
    ExecutorKind,
    Fate,
    Ledger,
    LedgerHidden,
    LedgerWork,
    PipelineDescription,
    Stats,
    StepDescription,
)
from headstart._messages.durations import StepEstimate
from headstart._messages.failure_reasons import FailureReason
from headstart._messages.items import ItemProgress, ItemResult
from headstart._messages.results import (
    BridgingResults,
    Cancelled,
    Embedding,
    Page,
    PendingReason,
    PrecomputeStatus,
    RecipientType,
    Results,
    RunSummary,
    RunToken,
    Started,
    StartOutcome,
    Status,
    StepOrigin,
    StepProgress,
    StepReport,
    StepState,
    Touched,
    UnservedStep,
)
from headstart._messages.stream_pieces import StreamPiece
from headstart._messages.tensors import Tensor
from headstart._scoring import percentile, relevance
from headstart._transport.security import Tls

__version__ = "0.1.0"

__all__ = [
    "Artifact",
    "BlockingClient",
    "BridgingResults",
    "Cancelled",
    "Computed",
    "DeadlineExceeded",
    "EagerPrecompute",
    "Embedding",
    "ExecutorKind",
    "FailureReason",
    "Fate",
    "HeadstartError",
    "Incomplete",
    "InvalidRequest",
    "ItemProgress",
    "ItemResult",
    "Json",
    "Ledger",
    "LedgerHidden",
    "LedgerWork",
    "NoResult",
    "NotFound",
    "Page",
    "PendingReason",
    "PermissionDenied",
    "PipelineDescription",
    "PrecomputeClient",
    "PrecomputeResult",
    "PrecomputeStatus",
    "RecipientType",
    "ResourceExhausted",
    "Results",
    "RunSummary",
    "RunToken",
    "ServiceError",
    "ServiceUnavailable",
    "Source",
    "Start",
    "StartOutcome",
    "Started",
    "Stats",
    "Status",
    "StepDescription",
    "StepEstimate",
    "StepOrigin",
    "StepProgress",
    "StepReport",
    "StepState",
    "StreamPiece",
    "Tensor",
    "Tls",
    "Touched",
    "Unauthenticated",
    "UnservedStep",
    "UnusableProcess",
    "Violation",
    "percentile",
    "relevance",
]
