"""`get_or_compute`: the service's values where they are there in time, else computed ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, Protocol

from headstart._errors import HeadstartError, Incomplete, InvalidRequest, Violation
from headstart._get_or_compute.budgeted_call import BudgetedCall, Experience, stop
from headstart._get_or_compute.computed import Computed, Source
from headstart._get_or_compute.fallbacks import Fallbacks
from headstart._messages.results import Results, StepState
from headstart._messages.values import ABSENT, value_of

_CALL: Final = "get_or_compute"
# A wait that ended sooner than this, in seconds, without a result is not repeated. A server that
# stops ends waits at once, and the client must not call it in a loop.
_SHORT_WAIT: Final = 0.05
# The longest wait that the service accepts, and how long its answer may take behind a wait.
_LONGEST_WAIT: Final = 600.0
_BEHIND: Final = 1.0


class Get(Protocol):
    """Reads one key's results from the service."""

    def __call__(
        self,
        *,
        wait: float,
        required_steps: Sequence[str],
        timeout: float,
        result_steps: Sequence[str] = (),
    ) -> Coroutine[Any, Any, Results]:
        """Read as `PrecomputeClient.get_results`; `timeout` begins behind `wait`."""
        ...


HandBack = Callable[[Results, str, Any, float], Coroutine[Any, Any, bool]]
"""Reports a step's value, and the seconds that it took; returns whether it was accepted."""


class Computation:
    """One call of `get_or_compute`. It ends with no task of its own left, but for reports."""

    def __init__(
        self,
        get: Get,
        fallbacks: Fallbacks,
        experience: Experience,
        *,
        key: str,
        deadline: float,
        budget: float,
        min_revision: int,
        hand_back: HandBack | None,
        spawn: Callable[[Coroutine[Any, Any, bool]], asyncio.Task[bool] | None],
    ) -> None:
        """Prepare; nothing is called or computed yet. `spawn` runs what may outlast the call."""
        loop = asyncio.get_running_loop()
        self._get = get
        self._fallbacks = fallbacks
        self._known = experience
        self._key = key
        self._began = time.perf_counter()
        self._deadline = self._began + deadline
        self._budget = budget
        self._min_revision = min_revision
        self._hand_back = hand_back
        self._spawn = spawn
        self._found: dict[str, asyncio.Future[Any]] = {
            step: loop.create_future() for step in fallbacks.order
        }
        self._results: Results | None = None
        self._sources: dict[str, Source] = {}
        self._seconds: dict[str, float] = {}
        self._reasons: dict[str, str] = {}
        self._reports: dict[str, asyncio.Task[bool] | None] = {}
        self._ask = BudgetedCall(experience, _CALL)
        self._refusal: InvalidRequest | None = None

    async def run(self, order: Sequence[str]) -> Computed:
        """Return the values in this order. Raises Incomplete, and what a fallback raised."""
        tasks: list[asyncio.Task[None]] = []
        try:
            if first := await self._ask_first():
                tasks.append(first)
            if self._unsure():
                tasks.append(asyncio.create_task(self._check_steps(), name=_CALL))
                left = min(self._began + self._budget - time.perf_counter(), self._left())
                await asyncio.wait(tasks[-1:], timeout=max(0.0, left))
            if self._refusal is not None:
                raise self._refusal
            missing = [step for step, found in self._found.items() if not found.done()]
            tasks += [asyncio.create_task(self._obtain(s), name=f"{_CALL} {s}") for s in missing]
            if missing:
                await asyncio.wait(
                    [self._found[step] for step in missing],
                    timeout=max(0.0, self._left()),
                    return_when=asyncio.FIRST_EXCEPTION,
                )
        finally:
            await stop(tasks)
        failed = {s: e for s, f in self._found.items() if f.done() and (e := f.exception())}
        for step, error in failed.items():
            if error is self._refusal:
                raise error
            error.add_note(f"in the fallback of step {step} of {self._key}")
            raise error
        computed = Computed(
            values={step: self._found[step].result() for step in order if step in self._sources},
            sources=_in_order(self._sources, order),
            seconds=_in_order(self._seconds, order),
            reasons=_in_order(self._reasons, order),
            results=self._results,
        )
        if computed.missing:
            what = ", ".join(computed.missing)
            message = f"no value within {self._deadline - self._began:g} s of {self._key}: {what}"
            raise Incomplete(message, computed)
        return computed

    def _left(self) -> float:
        return self._deadline - time.perf_counter()

    # Calls

    async def _ask_first(self) -> asyncio.Task[None] | None:
        """Read what exists, for at most the budget; return the read if it is still running then."""
        return await self._ask.within(min(self._budget, self._left()), self._first)

    async def _first(self) -> bool:
        results = await self._get(wait=0.0, required_steps=(), timeout=max(self._left(), _BEHIND))
        took = self._take(results, Source.WAITED if self._ask.late else Source.READY)
        if self._ask.late:
            await self._check_steps()
        return took

    async def _wait_for(self, step: str) -> None:
        """Take the step from the service, should it end there before the deadline."""
        while (left := self._left()) > 0 and not self._found[step].done():
            began = time.perf_counter()
            try:
                wait = min(left, _LONGEST_WAIT)
                # What the step was made of must come with it: see `_fits`.
                missing = [each for each, found in self._found.items() if not found.done()]
                results = await self._get(
                    wait=wait, required_steps=(step,), timeout=_BEHIND, result_steps=missing
                )
                self._take(results, Source.WAITED)
            except HeadstartError:
                return
            if not self._may_come(step) or time.perf_counter() - began < _SHORT_WAIT:
                return

    def _take(self, results: Results, source: Source) -> bool:
        """Take what is new of an answer; gives whether anything was."""
        if results.revision < self._min_revision:
            return False
        last = self._results
        if last is not None and (results.revision, results.created_at) != (
            last.revision,
            last.created_at,
        ):
            return False  # restarted meanwhile: its values do not fit those taken before
        self._results = results
        took = False
        for step, found in self._found.items():
            if found.done() or (value := value_of(results, step)) is ABSENT:
                continue
            if self._fits(step, results):
                took = True
                why = "the service had it" if source is Source.READY else "the service was faster"
                self._settle(step, value, source, why)
        return took

    def _fits(self, step: str, results: Results) -> bool:
        """Return whether the service made the step of the values that this call has.

        A language model, asked here and there, gives two different values.
        """
        for need in self._fallbacks.needs[step]:
            if need not in results.steps:
                continue  # this run's step does not need it
            source = self._sources.get(need)
            if source is None:
                return False
            if source is Source.LIVE and not _accepted(self._reports.get(need)):
                return False
        return True

    def _may_come(self, step: str) -> bool:
        """Return whether the service may still give it."""
        results = self._results
        report = results.steps.get(step) if results else None
        return (
            results is not None
            and report is not None
            and not results.status.ended
            and report.state in {StepState.PENDING, StepState.RUNNING}
        )

    # Misspelt steps

    def _unsure(self) -> list[str]:
        """Return steps that the run lacks: it leaves them out, or their names are misspelt."""
        if (results := self._results) is None:
            return []
        seen = self._known.left_out
        absent = [step for step in self._fallbacks.order if step not in results.steps]
        return [step for step in absent if (results.pipeline, step) not in seen]

    async def _check_steps(self) -> None:
        """Fail steps that the run's pipeline does not have; the service knows its names."""
        results, steps = self._results, self._unsure()
        if results is None or not steps:
            return
        try:
            await self._get(wait=0.0, required_steps=steps, timeout=_BEHIND)
        except InvalidRequest as exc:
            places = {f"required_steps[{place}]": step for place, step in enumerate(steps)}
            wrong = {places[v.field]: v.description for v in exc.violations if v.field in places}
            violations = [Violation(f"fallback[{s!r}]", rule) for s, rule in wrong.items()]
            refusal = InvalidRequest("", violations)
            for step in wrong:
                found = self._found[step]
                if not found.done():
                    self._refusal = refusal
                    found.set_exception(refusal)
                    found.exception()  # else asyncio logs it as never retrieved
        except HeadstartError:
            return  # the next call may know
        else:
            self._known.left_out.update((results.pipeline, step) for step in steps)

    # Obtaining one step

    async def _obtain(self, step: str) -> None:
        """Settle a missing step from the service or its fallback, the first to end; or fail it."""
        found = self._found[step]
        waiting: asyncio.Task[None] | None = None
        live: asyncio.Task[Any] | None = None
        try:
            if self._may_come(step):
                waiting = asyncio.create_task(self._wait_for(step), name=f"{_CALL} {step} wait")
            patience, self._reasons[step] = self._patience(step)
            if waiting is not None and patience > 0:
                await asyncio.wait({found, waiting}, timeout=patience, return_when=_FIRST)
            if found.done():
                return
            live = asyncio.create_task(self._live(step), name=f"{_CALL} {step} live")
            await asyncio.wait({found, live}, return_when=_FIRST)
            if found.done():
                return
            error = _error_of(live)
            if error is None:
                self._settle(step, live.result(), Source.LIVE, self._reasons[step])
                return
            if waiting is not None:
                # The service may still compute the step.
                await asyncio.wait({found, waiting}, return_when=_FIRST)
            if not found.done():
                found.set_exception(error)
        finally:
            await stop([task for task in (waiting, live) if task is not None])

    def _patience(self, step: str) -> tuple[float, str]:
        """Return for how long to wait before computing begins here, in seconds, and why."""
        if not self._may_come(step) or self._results is None:
            return 0.0, self._absence(step)
        estimate = self._results.steps[step].estimate
        if estimate is None:
            return 0.0, "the service has no estimate of it"
        soon = estimate.p90.total_seconds()
        due = f"expected within {soon:.3g} s"
        alone = self._expected(step)
        if alone is None:
            if soon <= self._budget:
                return soon, f"{due}, but it was not there"
            return 0.0, f"{due}, and how long computing it takes is not known"
        if soon <= alone:
            return soon, f"{due}, sooner than {alone:.3g} s for computing it, but it was not there"
        return 0.0, f"{due}, and computing it takes {alone:.3g} s"

    def _absence(self, step: str) -> str:
        if self._results is None:
            return self._ask.why
        report = self._results.steps.get(step)
        if report is None:
            return f"the run has no step {step}"
        if report.state in {StepState.FAILED, StepState.SKIPPED}:
            return f"{report.state} in the service: {report.error}"
        return f"the run is {self._results.status}"

    def _expected(self, step: str) -> float | None:
        """Return the seconds that computing it takes here, with missing needs; None if unknown."""
        own = self._known.durations.expected(self._pipeline, step)
        before = [
            self._expected(need)
            for need in self._fallbacks.needs[step]
            if not self._found[need].done()
        ]
        if own is None or None in before:
            return None
        return own + max((each for each in before if each is not None), default=0.0)

    @property
    def _pipeline(self) -> str:
        return self._results.pipeline if self._results else ""

    async def _live(self, step: str) -> Any:
        needed = {need: await _seen(self._found[need]) for need in self._fallbacks.needs[step]}
        began = time.perf_counter()
        value = await self._fallbacks.begin(step, needed)
        elapsed = time.perf_counter() - began
        self._known.durations.note(self._pipeline, step, elapsed)
        if self._hand_back is not None and not self._found[step].done() and self._may_come(step):
            self._reports[step] = self._spawn(self._report(step, value, elapsed))
        return value

    async def _report(self, step: str, value: Any, elapsed: float) -> bool:
        """Hand a value back, if all that it was made of is what the service keeps."""
        for need in self._fallbacks.needs[step]:
            if self._sources.get(need) is Source.LIVE:
                report = self._reports.get(need)
                if report is None or not await report:
                    return False
        if self._hand_back is None or self._results is None:
            return False
        return await self._hand_back(self._results, step, value, elapsed)

    def _settle(self, step: str, value: Any, source: Source, why: str) -> None:
        found = self._found[step]
        if found.done():
            return
        self._sources[step], self._reasons[step] = source, why
        self._seconds[step] = time.perf_counter() - self._began
        found.set_result(value)


_FIRST: Final = asyncio.FIRST_COMPLETED


def _accepted(report: asyncio.Task[bool] | None) -> bool:
    return report is not None and report.done() and not report.cancelled() and report.result()


def _error_of(task: asyncio.Task[Any]) -> BaseException | None:
    if task.cancelled():  # the function was cancelled through a task that it shares
        return RuntimeError("was cancelled")
    return task.exception()


async def _seen(found: asyncio.Future[Any]) -> Any:
    """Return a future's result; a cancelled caller does not cancel the future."""
    await asyncio.wait({found})
    return found.result()


def _in_order(found: Mapping[str, Any], order: Sequence[str]) -> dict[str, Any]:
    return {step: found[step] for step in order if step in found}
