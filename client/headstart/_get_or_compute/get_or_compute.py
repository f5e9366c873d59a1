"""`get_or_compute` of the asyncio client, and the reports that it leaves behind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from headstart._errors import HeadstartError
from headstart._get_or_compute.budgeted_call import BUDGET, Experience, check_seconds, end_last
from headstart._get_or_compute.computation import Computation
from headstart._get_or_compute.computed import Computed
from headstart._get_or_compute.fallbacks import Fallbacks
from headstart._messages import arguments, convert, requests
from headstart._messages.results import Results
from headstart._messages.values import report_request
from headstart._transport.connection import Connection
from headstart.v1 import precompute_pb2 as pb

logger = logging.getLogger("headstart")

# More reports than these at a time are left out: other callers can compute the step, too.
_MOST_REPORTS: Final = 16
# In seconds: how long the service may take for one.
_REPORT_LIMIT: Final = 2.0


class GetsOrComputes:
    """Adds `get_or_compute` to `PrecomputeClient`."""

    _connection: Connection
    _namespace: str

    def __init__(self) -> None:
        self._experience = Experience()
        self._reports: set[asyncio.Task[bool]] = set()

    async def get_or_compute(
        self,
        key: str,
        deadline: float | timedelta,
        fallback: Mapping[str, Callable[..., Awaitable[Any]]],
        *,
        report: bool = False,
        budget: float | timedelta = BUDGET,
        min_revision: int = 0,
        namespace: str | None = None,
    ) -> Computed:
        """Return every step's value: the service's if it is there in time, else computed here.

            async def null_samples(embed_endpoints):
                return await draw(embed_endpoints["anchor_embedding"], ...)

            computed = await headstart.get_or_compute(
                "game-1", 10.0, {"embed_endpoints": embed, "null_samples": null_samples}
            )
            computed.values["null_samples"], computed.sources["null_samples"]

        One call reads from the service, which has `budget` seconds to answer. A computation begins
        here for each step that is missing, as soon as there is what it needs, all at the same
        time. Meanwhile the service's own result is still taken if it comes first, and the
        computation is cancelled. A result that was made of another value than the one computed
        here is not taken. The computation begins later only where waiting is expected to be faster:

        - The service estimates when a step will be there. If nine in ten such steps would be there
          sooner than computing takes here, it is waited for that long. Computing includes what
          the step needs and is missing. What computing takes is the median of the last 31 times in
          this client.
        - As long as that is not known, only a step that is expected within the budget is waited
          for. A step for which there is no estimate is not waited for.

        So the call takes at most `budget` longer than computing everything here. If a step was
        waited for, and did not come, at most twice as long. After three calls in a row in which the
        service failed or was too late, it is not asked for half a second. Then one
        call asks, and if that fails too, the pause grows, up to 5 s.

        Args:
            key: As it was started. Nothing needs to have been.
            deadline: Within which time all values are needed, from now.
            fallback: By step, an async function. Its parameters name other steps of `fallback`, of
                which it gets the values. It must return what the step gives: see
                `Computed.values`. It is cancelled when the service is faster, so it must be able
                to end at any `await`.
            report: Hand what was computed here back to the service, after the call and at the
                caller's cost, if the run has not ended. The service then need not compute it, and
                other readers of this key get it. The values must be what the run's inputs give,
                made by the same models.
            budget: How long the service may take for its first answer.
            min_revision: Take nothing of an earlier run of this key; `Started.revision` has it.
                Without it a value may be of inputs that the key had before.
            namespace: Instead of the client's.

        Raises:
            ValueError: `fallback` is empty, a parameter names no step, or steps need each other in
                a circle; `deadline` or `budget` is out of range. Nothing was called or computed.
            InvalidRequest: The run's pipeline has no such step, which is known once the service
                answers. Without an answer a misspelt step is computed here.
            Incomplete: The deadline came first. It has what there is, and names what is missing.
            Exception: What a fallback raised, if the service does not give that step either: the
                first such error, with a note that names the step. What still runs is cancelled.
        """
        arguments.mapping("fallback", fallback, "steps to functions")
        fallbacks, order = Fallbacks(fallback), tuple(fallback)
        own = arguments.optional_text("namespace", namespace)
        whose = self._namespace if own is None else own
        arguments.flag("report", report)
        limits = [check_seconds("deadline", deadline), check_seconds("budget", budget)]

        def request(
            wait: float, steps: Sequence[str], result_steps: Sequence[str] = ()
        ) -> pb.GetResultsRequest:
            return requests.get_results(
                whose,
                key,
                wait=wait,
                required_steps=steps,
                result_steps=result_steps,
                min_revision=min_revision,
            )

        request(0.0, ())  # a wrong argument is an error also while no call is made

        async def get(
            *,
            wait: float,
            required_steps: Sequence[str],
            timeout: float,  # noqa: ASYNC109
            result_steps: Sequence[str] = (),
        ) -> Results:
            sent = request(wait, required_steps, result_steps or required_steps)
            return convert.results_from(
                await self._connection.call(lambda stub: stub.GetResults, sent, timeout + wait)
            )

        computation = Computation(
            get,
            fallbacks,
            self._experience,
            key=key,
            deadline=limits[0],
            budget=limits[1],
            min_revision=min_revision,
            hand_back=self._report if report else None,
            spawn=self._spawn,
        )
        return await computation.run(order)

    def _spawn(self, reporting: Coroutine[Any, Any, bool]) -> asyncio.Task[bool] | None:
        if len(self._reports) >= _MOST_REPORTS or self._connection.closed:
            reporting.close()
            return None
        task = asyncio.create_task(reporting, name="report step")
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)
        return task

    async def _report(self, results: Results, step: str, value: Any, elapsed: float) -> bool:
        """Hand a value back, and return whether it was accepted. Errors are logged, not raised."""
        try:
            request = report_request(results, step, value, elapsed)
            answer = await self._connection.call(
                lambda stub: stub.ReportStep, request, _REPORT_LIMIT
            )
        except HeadstartError as exc:
            logger.debug("step %s of %s was not handed back: %s", step, results.key, exc)
            return False
        except Exception as exc:  # noqa: BLE001  # of what the fallback returned
            logger.warning(
                "step %s of %s cannot be handed back: its fallback returned %s: %s",
                step,
                results.key,
                type(value).__name__,
                exc,
            )
            return False
        return answer.accepted

    async def _end_reports(self) -> None:
        await end_last(self._reports)
