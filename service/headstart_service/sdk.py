"""What a package of pipelines imports, and all that it needs to: see docs/pipelines.md.

Importing it imports neither numpy nor torch nor any SDK, so that the API process can declare and
plan pipelines without them.
"""

from __future__ import annotations

from .domain import FailureReason
from .domain.errors import StepFailed
from .pipeline.language_model import Answer, LanguageModel, Prompt, SpokenText, Turn, Usage
from .pipeline.pipeline import Pipeline
from .pipeline.providers import Embedder, Ratings, RelevanceScan, Storage, Vocabulary
from .pipeline.ray_options import RayOptions
from .pipeline.step import Step, step
from .values import wire_format
from .values.artifacts import ArtifactCodec
from .values.codec import ResultCodec
from .values.items import Item
from .values.references import Reference
from .worker.batching import Batcher
from .worker.progress import report_progress

__all__ = [
    "Answer",
    "ArtifactCodec",
    "Batcher",
    "Embedder",
    "FailureReason",
    "Item",
    "LanguageModel",
    "Pipeline",
    "Prompt",
    "Ratings",
    "RayOptions",
    "Reference",
    "RelevanceScan",
    "ResultCodec",
    "SpokenText",
    "Step",
    "StepFailed",
    "Storage",
    "Turn",
    "Usage",
    "Vocabulary",
    "report_progress",
    "step",
    "wire_format",
]
