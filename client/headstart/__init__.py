"""The light client of Headstart, a service that computes results while users are busy.

`PrecomputeClient` is the asyncio client; `EagerPrecompute` the same service behind the interface
of an in-process singleton that never raises. `relevance` and `percentile` score a caller's own
words as the service scores its null samples.
"""

from headstart._artifacts import Artifact, Json, Tensor
from headstart._client import PrecomputeClient
from headstart._eager import EagerPrecompute, PrecomputeResult
from headstart._errors import (
    DeadlineExceeded,
    HeadstartError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    ServiceError,
    ServiceUnavailable,
    Unauthenticated,
    Violation,
)
from headstart._results import (
    BridgingResults,
    Cancelled,
    Embedding,
    Page,
    PipelineDescription,
    PrecomputeStatus,
    RecipientType,
    Results,
    RunSummary,
    Started,
    StartOutcome,
    Stats,
    Status,
    StepDescription,
    StepOrigin,
    StepReport,
    StepState,
)
from headstart._scoring import percentile, relevance
from headstart._security import Tls

__all__ = [
    "Artifact",
    "BridgingResults",
    "Cancelled",
    "DeadlineExceeded",
    "EagerPrecompute",
    "Embedding",
    "HeadstartError",
    "InvalidRequest",
    "Json",
    "NotFound",
    "Page",
    "PermissionDenied",
    "PipelineDescription",
    "PrecomputeClient",
    "PrecomputeResult",
    "PrecomputeStatus",
    "RecipientType",
    "ResourceExhausted",
    "Results",
    "RunSummary",
    "ServiceError",
    "ServiceUnavailable",
    "StartOutcome",
    "Started",
    "Stats",
    "Status",
    "StepDescription",
    "StepOrigin",
    "StepReport",
    "StepState",
    "Tensor",
    "Tls",
    "Unauthenticated",
    "Violation",
    "percentile",
    "relevance",
]
