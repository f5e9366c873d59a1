"""What a package of pipelines imports, and all that it needs to: see docs/pipelines.md.

Importing it imports neither numpy nor torch nor any SDK, so that the API process can declare and
plan pipelines without them.
"""

from __future__ import annotations

from .engine import packing
from .engine.artifacts import ArtifactCodec
from .engine.batching import Batcher
from .engine.pipeline import Pipeline, ResultCodec
from .engine.places.ray_options import RayOptions
from .engine.provided import Embedder, LanguageModel, RelevanceScan, SpokenText, Vocabulary
from .engine.step import Step, step
from .errors import StepFailed

__all__ = [
    "ArtifactCodec",
    "Batcher",
    "Embedder",
    "LanguageModel",
    "Pipeline",
    "RayOptions",
    "RelevanceScan",
    "ResultCodec",
    "SpokenText",
    "Step",
    "StepFailed",
    "Vocabulary",
    "packing",
    "step",
]
