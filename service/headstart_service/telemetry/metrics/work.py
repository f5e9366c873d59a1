"""Figures of a worker: its runs and their steps, its batches, its models.

Satisfies `worker.worker_observer.WorkObserver` and both Protocols of `providers.provider_observer`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ...base.metric_labels import BatchEnd, TextSource
from ...domain import Claim
from ...pipeline.language_model import Usage
from ...pipeline.registry import Registry
from ...worker.worker_observer import ItemEnd, RunOutcome, StepEnd, StepOutcome
from .instruments import SIZES, Instruments, one_of

OTHER = "other"
"""The label of a pipeline that this worker does not have: its name is a caller's text."""
ENDS = ("completed", "failed")
"""States that are exported from the beginning, as 0.

Alerts use the rate of failed runs, which needs a sample before the first failure.
"""
ENCODER, SCAN = "encoder", "scan"
_TOKENS = ("input", "output", "cache_read", "cache_write")


class WorkerMetrics(Instruments):
    """Counts and times what a worker does."""

    def __init__(self, registry: Registry) -> None:
        """Name the pipelines and steps of this registry, and no others."""
        super().__init__()
        self._registry = registry
        self._runs = self.histogram(
            "run_duration_seconds",
            "Time of a run on a worker: `completed`, `failed`, `handed_on` at drain, or `stopped` "
            "(cancelled, replaced, lost).",
            ("pipeline", "state"),
        )
        self._steps = self.histogram(
            "step_duration_seconds",
            f"Time of a step with its tries and the pauses between them: {one_of(StepEnd)}.",
            ("pipeline", "step", "state"),
        )
        self._retries = self.counter(
            "step_retries_total", "Tries of a step after its first.", ("pipeline", "step")
        )
        self._items = self.counter(
            "step_items_total",
            f"Items of steps that run once for each of a list: {one_of(ItemEnd)}. Counted when "
            "the step ends.",
            ("pipeline", "step", "outcome"),
        )
        self._redelivered = self.counter(
            "run_redeliveries_total",
            "Claims of a run after the first: its worker was lost, or handed it on.",
            ("pipeline",),
        )
        self._runs.of(OTHER, "failed")
        for pipeline in registry:
            for state in ENDS:
                self._runs.of(pipeline.name, state)
            self._redelivered.begin([(pipeline.name,)])
            for name in pipeline.by_name:
                for state in ENDS:
                    self._steps.of(pipeline.name, name, state)
                self._retries.begin([(pipeline.name, name)])
                if pipeline.by_name[name].each:
                    self._items.begin((pipeline.name, name, end) for end in ItemEnd)

    def watch_pool(
        self,
        *,
        slots: int,
        busy: Callable[[], int],
        held: Callable[[], int],
        unavailable: Callable[[], int],
        hung: Callable[[], int],
    ) -> None:
        """Show the worker's pool, and what of it cannot be used now."""
        self.reading(
            "worker_slots",
            "Most runs that compute at once in this worker, `HEADSTART_WORKER_CONCURRENCY`.",
            lambda: slots,
        )
        self.reading("worker_slots_busy", "Runs that compute in this worker now.", busy)
        self.reading(
            "worker_runs",
            "Runs that this worker holds: those that compute, and those that only wait for a "
            "language model or another service.",
            held,
        )
        self.reading(
            "worker_pipelines_unavailable",
            "Pipelines that this worker cannot run now. Its log has the reason.",
            unavailable,
        )
        self.reading(
            "step_threads_hung",
            "Threads in steps that timed out a minute ago or earlier.",
            hung,
        )

    def watch_limits(self, refusals: Callable[[], int]) -> None:
        """Show how often a new file of limits could not be used."""
        self.reading(
            "limits_reload_failures_total",
            "Unusable new files of limits; the old limits stay in force.",
            refusals,
        )

    @contextmanager
    def run(self, claim: Claim, outcome: RunOutcome) -> Iterator[None]:
        """Time a run. A step run is none: its step is timed."""
        if claim.step:
            yield
            return
        pipeline = claim.pipeline if self._registry.find(claim.pipeline) else OTHER
        if claim.lease.attempt > 1:
            self._redelivered.add(pipeline)
        began = time.perf_counter()
        try:
            yield
        finally:
            self._runs.of(pipeline, outcome.state).note(time.perf_counter() - began)

    @contextmanager
    def step(self, claim: Claim, name: str, outcome: StepOutcome) -> Iterator[None]:
        """Time a step; only what a registered pipeline declares is ever run."""
        began = time.perf_counter()
        try:
            yield
        finally:
            spread = self._steps.of(claim.pipeline, name, outcome.state)
            spread.note(time.perf_counter() - began)
            if outcome.attempts > 1:
                self._retries.add(claim.pipeline, name, by=outcome.attempts - 1)
            for end, count in outcome.items.items():
                self._items.add(claim.pipeline, name, end, by=count)


class ModelMetrics(Instruments):
    """Counts and times what a worker's models do."""

    def __init__(self) -> None:
        super().__init__()
        self._sizes = self.histogram(
            "batch_size",
            "What is computed at once: texts by the `encoder`, games by a `scan`.",
            ("kind",),
            SIZES,
        )
        self._durations = self.histogram(
            "batch_duration_seconds", "Time of a batch of the `encoder` or a `scan`.", ("kind",)
        )
        # Made here, so that one thread writes each of them, and no dictionary grows on another
        # thread.
        self._encoder = self._sizes.of(ENCODER), self._durations.of(ENCODER)
        self._scan = self._sizes.of(SCAN), self._durations.of(SCAN)
        self._texts = self.counter(
            "embedded_texts_total",
            f"Texts by the source of their embedding: {one_of(TextSource)}. "
            "Their shares size `HEADSTART_WORD_CACHE`.",
            ("source",),
        )
        self._texts.begin((source,) for source in TextSource)
        self._requests = self.histogram(
            "llm_request_duration_seconds",
            "Time of a request to the language model with retries: `answered`, `no_key`, "
            "`declined`, `cut_off`, `malformed`, `timeout`, `unreachable`, `unreadable`, "
            "`rate_limited`, `overloaded`, `refused`, `server_error`, `over_budget` or "
            "`cancelled`.",
            ("end",),
        )
        self._requests.of("answered")
        self._retries = self.counter(
            "llm_retries_total", "Repetitions of requests to the language model."
        )
        self._batched = self.counter(
            "llm_batched_total",
            "Calls of the language model that went into batches: `answered`, or `late` or `failed` "
            "and then made directly, or `left` by their runs.",
            ("end",),
        )
        self._batched.begin((end,) for end in BatchEnd)
        self._tokens = self.counter(
            "llm_tokens_total",
            "Tokens of the language model: `input`, `output`, `cache_read` or `cache_write`.",
            ("kind",),
        )
        self._tokens.begin((kind,) for kind in _TOKENS)

    def requested(self, end: str, seconds: float, retries: int) -> None:
        """Count a request to the language model."""
        self._requests.of(end).note(seconds)
        self._retries.add(by=retries)

    def batched(self, end: BatchEnd) -> None:
        """Count a call that went into a batch."""
        self._batched.add(end)

    def spent(self, usage: Usage) -> None:
        """Count tokens."""
        for kind in _TOKENS:
            self._tokens.add(kind, by=getattr(usage, f"{kind}_tokens"))

    def embedded(self, source: TextSource, texts: int) -> None:
        """Count texts that got their embedding."""
        self._texts.add(source, by=texts)

    def encoded(self, texts: int, seconds: float) -> None:
        """Count a batch of the embedding model."""
        sizes, durations = self._encoder
        sizes.note(texts)
        durations.note(seconds)

    def scanned(self, games: int, seconds: float) -> None:
        """Count a product of the vocabulary with the games that waited for it."""
        sizes, durations = self._scan
        sizes.note(games)
        durations.note(seconds)
