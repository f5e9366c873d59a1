"""One call of `get_or_compute` against a service whose answers a test chooses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from headstart._get_or_compute.computation import Computation, Experience
from headstart._get_or_compute.computed import Computed
from headstart._get_or_compute.fallbacks import Fallbacks
from headstart._messages import convert
from headstart._messages.results import Results
from headstart.v1 import precompute_pb2 as pb
from tests.unit.client.messages import expected, values


class PlayedService:
    """Notes what it is asked, and answers when each step is expected: in `p90` seconds."""

    def __init__(self, *, status: Any = pb.PRECOMPUTE_STATUS_IN_PROGRESS, **p90: float) -> None:
        self.calls: list[tuple[float, tuple[str, ...], float]] = []
        """The wait, the steps and the timeout of each call."""
        self.experience = Experience()
        self.ready: dict[str, Any] = {}
        """Values by step."""
        self.held: dict[str, asyncio.Event] = {}
        """By step, what a wait for it waits for."""
        self.patient = False
        """Whether a wait lasts as long as it may."""
        self.answer: Callable[[], Awaitable[Results]] = self.pending
        self._status, self._p90 = status, p90

    @property
    def waits(self) -> list[tuple[str, ...]]:
        """The steps of each call."""
        return [steps for _, steps, _ in self.calls]

    async def get(
        self,
        *,
        wait: float,
        required_steps: Sequence[str],
        timeout: float,  # noqa: ASYNC109
        result_steps: Sequence[str] = (),
    ) -> Results:
        self.calls.append((wait, tuple(required_steps), timeout))
        for step in required_steps:
            if step in self.held:
                await self.held[step].wait()
        if self.patient:
            await asyncio.sleep(wait)
        return await self.answer()

    async def pending(self) -> Results:
        await asyncio.sleep(0)
        pending = {step: expected(p90, p90) for step, p90 in self._p90.items()}
        left = {step: report for step, report in pending.items() if step not in self.ready}
        message = values(left, **self.ready)
        message.status = self._status
        return convert.results_from(message)

    async def hang(self) -> Results:
        return await asyncio.Event().wait()  # type: ignore[return-value]

    async def compute(
        self, *, deadline: float = 30.0, budget: float = 20.0, **fallback: Any
    ) -> Computed:
        computation = Computation(
            self.get,
            Fallbacks(fallback),
            self.experience,
            key="k",
            deadline=deadline,
            budget=budget,
            min_revision=0,
            hand_back=None,
            spawn=lambda _: None,
        )
        return await computation.run(tuple(fallback))
