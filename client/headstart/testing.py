"""Offers tests results, a server with scripted answers, and a way to run a pipeline.

Results, whole or with the gaps that a caller must cope with:

    results = completed_results("game-1", missing=["haiku_bridge", "haiku_embeddings"])
    assert results.bridging.haiku_clues is None

The vectors are made up: of unit length, in the right shapes, the same every time.

A pipeline of one's own, without Redis and without a server (needs `headstart[server]`):

    run = await run_pipeline(PIPELINE, {"text": "a b"}, providers={"embedder": Embedder()})
    assert run.values["words"] == ["a", "b"]
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

from headstart._clients.precompute_result import PrecomputeResult, result_from
from headstart._fake.reported_steps import ReportedStep
from headstart._fake.script import Estimated, Failed, Scripted, script_of
from headstart._fake.server import FakeServer, RecordedRequest
from headstart._messages.artifacts import Json
from headstart._messages.failure_reasons import FailureReason
from headstart._messages.pipeline_run import PipelineRun
from headstart._messages.results import (
    BridgingResults,
    Embedding,
    PrecomputeStatus,
    RecipientType,
    Results,
    StepOrigin,
    StepReport,
    StepState,
)

__all__ = [
    "FakeServer",
    "PipelineRun",
    "RecordedRequest",
    "ReportedStep",
    "completed_precompute_result",
    "completed_results",
    "fake_server",
    "run_pipeline",
    "run_pipeline_sync",
]

_NO_PROVIDERS: Final[Mapping[str, Any]] = MappingProxyType({})
_STARTED_AT: Final = datetime(2026, 1, 1, tzinfo=UTC)
_PARTS_OF_STEPS: Final = {
    "embed_endpoints": ("anchor_embedding", "target_embedding"),
    "haiku_bridge": ("haiku_clues",),
    "haiku_embeddings": ("haiku_embeddings",),
    "lexical_bridge": ("lexical_bridge", "lexical_embeddings"),
    "null_samples": ("null_samples",),
}
_HAIKU_STEPS: Final = frozenset({"haiku_bridge", "haiku_embeddings"})


def completed_results(
    key: str = "game-1",
    *,
    recipient_type: RecipientType | str = RecipientType.HAIKU,
    missing: Iterable[str] = (),
    clue_count: int = 5,
    null_sample_count: int = 100,
    dimensions: int = 384,
) -> Results:
    """Build what `PrecomputeClient.get_results` returns for a completed bridging game.

    Args:
        key: The run's key.
        recipient_type: For "human" there are no haiku steps.
        missing: Steps to show as failed, with their parts None.
        clue_count: Words in each bridge.
        null_sample_count: How many null samples.
        dimensions: The length of every embedding.

    Raises:
        ValueError: `missing` names a step that this game does not have.
    """
    steps = [
        name
        for name in sorted(_PARTS_OF_STEPS)
        if name not in _HAIKU_STEPS or RecipientType(recipient_type) is RecipientType.HAIKU
    ]
    failed = set(missing)
    if unknown := failed.difference(steps):
        message = f"no such step: {', '.join(sorted(unknown))}; there are {', '.join(steps)}"
        raise ValueError(message)
    embeddings = tuple(_embedding(number, dimensions) for number in range(2 + clue_count))
    whole = BridgingResults(
        anchor_embedding=embeddings[0],
        target_embedding=embeddings[1],
        haiku_clues=tuple(f"clue{number}" for number in range(clue_count)),
        haiku_embeddings=embeddings[2:],
        lexical_bridge=tuple(f"word{number}" for number in range(clue_count)),
        lexical_embeddings=embeddings[2:],
        null_samples=tuple(number / null_sample_count / 2 for number in range(null_sample_count)),
        embedding_model="made-up",
    )
    absent = failed.union(_PARTS_OF_STEPS).difference(set(steps) - failed)
    return Results(
        namespace="default",
        key=key,
        pipeline="bridging",
        revision=1,
        status=PrecomputeStatus.COMPLETED,
        created_at=_STARTED_AT,
        started_at=_STARTED_AT,
        completed_at=_STARTED_AT + timedelta(seconds=2),
        expires_at=_STARTED_AT + timedelta(minutes=30, seconds=2),
        error=None,
        steps={
            name: StepReport(
                state=StepState.FAILED if name in failed else StepState.COMPLETED,
                error="made to fail" if name in failed else None,
                elapsed=timedelta(seconds=1),
                attempts=1,
                origin=None if name in failed else StepOrigin.COMPUTED,
                failure_reason=FailureReason.STEP_FAILED if name in failed else None,
            )
            for name in steps
        },
        bridging=replace(
            whole, **{part: None for step in absent for part in _PARTS_OF_STEPS[step]}
        ),
        custom=None,
    )


def completed_precompute_result(
    game_id: str = "game-1",
    *,
    recipient_type: RecipientType | str = RecipientType.HAIKU,
    missing: Iterable[str] = (),
    clue_count: int = 5,
    null_sample_count: int = 100,
    dimensions: int = 384,
) -> PrecomputeResult:
    """Build what `EagerPrecompute.get_precomputed_results` returns; as `completed_results`."""
    return result_from(
        completed_results(
            game_id,
            recipient_type=recipient_type,
            missing=missing,
            clue_count=clue_count,
            null_sample_count=null_sample_count,
            dimensions=dimensions,
        )
    )


def fake_server(
    results: Scripted | None = None,
    *,
    delays: Mapping[str, float] | None = None,
    failed: Mapping[str, Failed] | None = None,
    error: Failed | None = None,
    queued: float = 0.0,
    estimates: Mapping[str, Estimated] | None = None,
    origins: Mapping[str, StepOrigin | str] | None = None,
    needs: Mapping[str, Iterable[str]] | None = None,
    items: Mapping[str, Iterable[float]] | None = None,
    streams: Mapping[str, Iterable[Json]] | None = None,
) -> FakeServer:
    """Serve the contract over real gRPC on loopback, for the tests of code that calls it.

    A context manager, for sync and async tests alike: the server has a thread of its own.

        with fake_server({"related": ["a-2", "a-7"]}, delays={"related": 0.3}) as server:
            async with PrecomputeClient(server.address) as client:
                await client.start("page-1", "recommendations", {"text": "…"})
                results = await client.get_results("page-1", wait=1.0)

    It keeps runs as the service does: starts are STARTED, JOINED, REUSED or REPLACED, and waits
    are honoured. Answers are partial with each step's state and estimate; callers' reports are kept
    or not. Runs are cancelled, listed, counted and expire. What breaks a rule of the contract is
    refused with the same violations, but for inputs of custom pipelines, which it does not know. It
    computes nothing: what it gives is scripted, and games for which nothing is scripted get
    `completed_results`. The arguments are the script of all runs; `FakeServer.script` scripts
    single keys and pipelines, and `FakeServer.reported` returns what callers have handed in.

    Args:
        results: What runs give: a `Results` such as `completed_results(...)`; or the values of a
            custom pipeline's steps, by name: JSON values, bytes, arrays, `Tensor`; or a function
            that makes those of the run's inputs. What has not ended in a `Results` never does.
        delays: By step, seconds until it ends, from when the run is taken. Others end at once.
        failed: By step, why it fails: a text, or a pair of a text and a `FailureReason`. Default
            reason: STEP_FAILED.
        error: Why the run fails in the end, likewise; without a reason it has that of the first
            failed step. Default: it is completed, with or without failed steps.
        queued: Seconds that each run is PENDING first.
        estimates: By step, when the service believes that it ends: seconds from when the run is
            taken, or a pair of them, p50 and p90. Answers have what is left of it, and not less
            than a tenth. Default: no estimate. A `Results` may have estimates, too.
        origins: By step, where its result comes from, such as "kept" or "memoised". Default: the
            run computes it. A step that a caller has reported is "reported" by itself.
        needs: By step of a custom pipeline, those that it needs: without their results it is
            PENDING, and reports of it are not accepted. Times are as scripted all the same. Behind
            one that it can do without stands a `?`, as in `carriers?`.
        items: By step that runs for each item of a list, the seconds until each item ends, from
            when the run is taken. Its value is a list of `{"value": …}` and of
            `{"error": …, "reason": …}`. The step ends with its last item.
        streams: By step, the pieces that it gives before its end, at equal distances: text, or
            items. Default result of such a step: all of it.

    Raises:
        ValueError: A script for a step that the results do not have; an origin that is
            none; an estimate whose p90 is less than its p50.
        TypeError: A value is not bytes, an array or JSON.
    """
    script = script_of(
        results,
        delays=delays,
        failed=failed,
        error=error,
        queued=queued,
        estimates=estimates,
        origins=origins,
        needs=needs,
        items=items,
        streams=streams,
    )
    return FakeServer(completed_results, script)


async def run_pipeline(
    pipeline: Any,
    inputs: Any,
    *,
    providers: Mapping[str, Any] = _NO_PROVIDERS,
    timeout: float = 60.0,  # noqa: ASYNC109  (of the run, so that no test hangs)
) -> PipelineRun:
    """Run a pipeline in this process, and return what it gave once it has ended.

    Inputs are validated, steps are tried, timed out and repeated, and values are made results and
    read again. The code of production does all this; only the store is left out.

    Args:
        pipeline: A `headstart_service.sdk.Pipeline`.
        inputs: A mapping of JSON values, or an instance of the pipeline's model of inputs.
        providers: What steps take beside inputs and steps, by name: the real thing or a fake.
        timeout: Seconds that the whole run may take.

    Raises:
        InvalidRequest: The inputs break rules; `violations` names every field, as the service does.
        ValueError: A provider is missing, or is one that no step takes or no worker has. Workers
            have the built-in ones, and those of entry points and HEADSTART_PROVIDERS.
        TimeoutError: The run took longer than `timeout`; the message names the steps.
        ImportError: The service is not installed.
    """
    try:
        from headstart_service import testing
    except ImportError as exc:
        how = "pip install '.[server]' in Headstart's clone"
        message = f"running pipelines needs the service: {how} ({exc})"
        raise ImportError(message) from exc
    return await testing.run_pipeline(pipeline, inputs, providers=providers, timeout=timeout)


def run_pipeline_sync(
    pipeline: Any,
    inputs: Any,
    *,
    providers: Mapping[str, Any] = _NO_PROVIDERS,
    timeout: float = 60.0,
) -> PipelineRun:
    """Do what `run_pipeline` does, from a test that is not async, in an event loop of its own."""
    running = run_pipeline(pipeline, inputs, providers=providers, timeout=timeout)
    return asyncio.run(running)


def _embedding(number: int, dimensions: int) -> Embedding:
    """Return a unit vector along one axis, another one for each number."""
    return tuple(1.0 if axis == number % dimensions else 0.0 for axis in range(dimensions))
