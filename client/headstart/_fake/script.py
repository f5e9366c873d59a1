"""Holds the script of a test: what runs of `headstart.testing.fake_server` shall give."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, TypeAlias

from headstart._fake.items import ScriptedItems, scripted_items
from headstart._fake.streams import ScriptedStream, stream_of
from headstart._messages.artifacts import Artifact, Json, artifact_to
from headstart._messages.durations import StepEstimate
from headstart._messages.failure_reasons import FailureReason
from headstart._messages.results import Results, StepOrigin, StepState
from headstart.v1 import precompute_pb2 as pb

Scripted: TypeAlias = (
    Results | Mapping[str, Artifact] | Callable[[Mapping[str, Json]], Mapping[str, Artifact]]
)
"""What a run will give: results, values by step, or a function that makes those of the inputs."""
Estimated: TypeAlias = float | tuple[float, float] | StepEstimate
"""When a step is expected to end: in seconds, p50 and p90 in one or as a pair."""
Failed: TypeAlias = str | tuple[str, FailureReason | str]
"""Why a step or a run fails: a text, which stands for STEP_FAILED, or a pair with the reason."""

SOFT: Final = "?"
"""Ends a need that a step can do without."""
UNENDED: Final = frozenset({StepState.PENDING, StepState.RUNNING})

_DEFAULT: Final = {
    StepState.FAILED: FailureReason.STEP_FAILED,
    StepState.SKIPPED: FailureReason.NEED_FAILED,
}
"""The reasons of steps whose scripted report has none."""


@dataclass(frozen=True, kw_only=True)
class ScriptedStep:
    """One step of a timetable."""

    state: StepState
    """How it ends; PENDING or RUNNING: never."""
    after: float
    """Seconds from when the run is taken until it ends."""
    error: str = ""
    failure_reason: FailureReason | None = None
    artifact: pb.Artifact | None = None
    estimate: StepEstimate | None = None
    """From when the run is taken."""
    origin: StepOrigin = StepOrigin.COMPUTED
    items: ScriptedItems | None = None
    stream: ScriptedStream | None = None


@dataclass(frozen=True, kw_only=True)
class Script:
    """What the runs of a key, or of a pipeline, shall give, and when."""

    results: Scripted | None
    """None: what each game needs, made up; nothing for other pipelines."""
    delays: Mapping[str, float]
    failed: Mapping[str, tuple[str, FailureReason]]
    error: tuple[str, FailureReason | None] | None
    """A reason of None is that of the first step that fails."""
    queued: float
    estimates: Mapping[str, StepEstimate]
    origins: Mapping[str, StepOrigin]
    needs: Mapping[str, tuple[str, ...]]
    items: Mapping[str, tuple[float, ...]]
    streams: Mapping[str, ScriptedStream]

    def steps(
        self, results: Scripted | None, inputs: Mapping[str, Json]
    ) -> dict[str, ScriptedStep]:
        """Return the steps of a run of these inputs; `results` is used where nothing is scripted.

        Raises ValueError for a script of a step that the run does not have.
        """
        given = self.results if self.results is not None else results
        steps: dict[str, ScriptedStep] = {}
        if isinstance(given, Results):
            for name, report in given.steps.items():
                value = None if given.custom is None else given.custom.get(name)
                steps[name] = ScriptedStep(
                    state=report.state,
                    after=math.inf if report.state in UNENDED else self.delays.get(name, 0.0),
                    error=report.error or "",
                    failure_reason=report.failure_reason or _DEFAULT.get(report.state),
                    artifact=None if given.custom is None else artifact_to(value),
                    estimate=report.estimate,
                    origin=report.origin or StepOrigin.COMPUTED,
                )
        else:
            values = dict(given(inputs) if callable(given) else given or {})
            for name, stream in self.streams.items():
                values.setdefault(name, stream.whole)
            for name, value in values.items():
                after = self.delays.get(name, 0.0)
                steps[name] = ScriptedStep(
                    state=StepState.COMPLETED, after=after, artifact=artifact_to(value)
                )
                if name in self.items:
                    items = scripted_items(name, value, self.items[name])
                    last = max(self.items[name], default=0.0)
                    steps[name] = replace(steps[name], items=items, after=max(after, last))
        for name, (error, reason) in self.failed.items():
            after = self.delays.get(name, 0.0)
            steps[name] = ScriptedStep(
                state=StepState.FAILED, after=after, error=error, failure_reason=reason
            )
        self._check_names(steps)
        for name, estimate in self.estimates.items():
            steps[name] = replace(steps[name], estimate=estimate)
        for name, origin in self.origins.items():
            steps[name] = replace(steps[name], origin=origin)
        for name, stream in self.streams.items():
            steps[name] = replace(steps[name], stream=stream)
        return steps

    def _check_names(self, steps: Mapping[str, ScriptedStep]) -> None:
        needed = [need.rstrip(SOFT) for needs in self.needs.values() for need in needs]
        named = {*self.delays, *self.estimates, *self.origins, *self.needs, *self.items, *needed}
        if unknown := sorted((named | self.streams.keys()) - steps.keys()):
            known = ", ".join(sorted(steps))
            raise ValueError(f"no such step: {', '.join(unknown)}; there are {known}")


def script_of(
    results: Scripted | None,
    *,
    delays: Mapping[str, float] | None,
    failed: Mapping[str, Failed] | None,
    error: Failed | None,
    queued: float,
    estimates: Mapping[str, Estimated] | None,
    origins: Mapping[str, StepOrigin | str] | None,
    needs: Mapping[str, Iterable[str]] | None,
    items: Mapping[str, Iterable[float]] | None = None,
    streams: Mapping[str, Iterable[Json]] | None = None,
) -> Script:
    """Return a script. Raises ValueError or TypeError for one that cannot be followed."""
    if results is None and streams:
        results = {}  # of a pipeline whose steps are these
    script = Script(
        results=results,
        delays=delays or {},
        failed={name: _failure(given) for name, given in (failed or {}).items()},
        error=(error, None) if isinstance(error, str) else error and _failure(error),
        queued=queued,
        estimates={name: _estimate(name, given) for name, given in (estimates or {}).items()},
        origins={name: StepOrigin(given) for name, given in (origins or {}).items()},
        needs={name: _needs(name, given) for name, given in (needs or {}).items()},
        items={name: tuple(given) for name, given in (items or {}).items()},
        streams={name: stream_of(name, given) for name, given in (streams or {}).items()},
    )
    if results is not None and not callable(results):
        script.steps(results, {})
    return script


def _failure(given: Failed) -> tuple[str, FailureReason]:
    error, reason = (given, FailureReason.STEP_FAILED) if isinstance(given, str) else given
    return error, FailureReason(reason)


def _estimate(step: str, given: Estimated) -> StepEstimate:
    if isinstance(given, StepEstimate):
        return given
    p50, p90 = given if isinstance(given, tuple) else (given, given)
    # Written so that NaN, which compares false with everything, is refused too.
    if not 0 <= p50 <= p90 < math.inf:
        raise ValueError(f"estimates[{step!r}] must be 0 <= p50 <= p90 seconds, is {given}")
    return StepEstimate(p50=timedelta(seconds=p50), p90=timedelta(seconds=p90))


def _needs(step: str, given: Iterable[str]) -> tuple[str, ...]:
    if isinstance(given, str):
        raise TypeError(f"needs[{step!r}] must be a list of steps, is {given!r}")
    return tuple(given)
