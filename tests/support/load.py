"""Callers that keep a service busy while it is broken, and the verdict on each run they started."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from headstart import DeadlineExceeded as CallTimedOut
from headstart import (
    NotFound,
    PrecomputeClient,
    PrecomputeStatus,
    ResourceExhausted,
    Results,
    ServiceUnavailable,
)
from tests.support.waiting import PATIENT

_BREATH = 0.05
STUCK = 120.0
"""Seconds after which a run that has not ended counts as stuck; far more than any fault lasts."""


@dataclass
class Verdict:
    """What became of the runs. All but `right` and what the callers saw must stay empty."""

    right: int = 0
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    failed_calls: int = 0
    """Calls that were answered with an error, all of their client's own retries included."""
    refused: int = 0
    """Those of them that were told that there is no room."""
    told: Counter[str] = field(default_factory=Counter)
    """What those errors said."""
    outwaited: int = 0
    """Waits that took all the time that they were given."""
    started_again: int = 0
    """Runs that the store had forgotten, so that their callers started them once more."""

    @property
    def bad(self) -> list[str]:
        return [*self.lost, *self.duplicated, *self.wrong, *self.stuck]

    def __str__(self) -> str:
        return (
            f"{self.right} right, {len(self.lost)} lost, {len(self.duplicated)} duplicated, "
            f"{len(self.wrong)} wrong, {len(self.stuck)} stuck; {self.failed_calls} failed calls, "
            f"{self.started_again} started again"
        )


class Load:
    """Callers, each of which starts a run of `chain`, waits for its result, and judges it."""

    def __init__(
        self, client: PrecomputeClient, name: str, *, forgets: bool = False, wait: float = 2.0
    ) -> None:
        """With `forgets`, the store may lose runs; their callers then start them anew.

        Each call waits `wait` seconds for its run's end.
        """
        self.verdict = Verdict()
        self.numbers = 0
        self.pause = 0.0
        self.under_way: set[int] = set()
        """The numbers of the runs that their callers have not seen to their end."""
        self._client = client
        self._name = name
        self._forgets = forgets
        self._wait = wait
        self._open = False

    @asynccontextmanager
    async def running(self, callers: int, pause: float = 0.0) -> AsyncIterator[None]:
        """Keep so many callers busy while the context is open, then see every run to its end."""
        self._open, self.pause = True, pause
        tasks = [asyncio.create_task(self._caller(), name="caller") for _ in range(callers)]
        try:
            yield
        finally:
            self._open = False
            done, late = await asyncio.wait(tasks, timeout=2 * STUCK)
            for task in late:
                task.cancel()
            assert not late, f"{len(late)} callers hang"
            for task in done:
                task.result()
            print(f"{self._name}: {self.verdict}")

    async def _caller(self) -> None:
        while self._open:
            number = self.numbers
            self.numbers += 1
            self.under_way.add(number)
            try:
                await self.see_to_end(number)
            finally:
                self.under_way.discard(number)
            await asyncio.sleep(self.pause)

    async def see_to_end(self, number: int) -> None:
        key = f"{self._name}-{number}"
        deadline = time.monotonic() + STUCK
        starts = 0
        begun = False
        while time.monotonic() < deadline:
            try:
                if not begun:
                    await self._client.start(key, "chain", {"value": number}, timeout=PATIENT)
                    begun = True
                    starts += 1
                began = time.monotonic()
                results = await self._client.get_results(
                    key, wait=self._wait, timeout=self._wait + PATIENT
                )
                self.verdict.outwaited += time.monotonic() - began >= self._wait
            except NotFound:
                if not self._forgets:
                    self.verdict.lost.append(key)
                    return
                self.verdict.started_again += 1
                begun = False
            except (ServiceUnavailable, CallTimedOut, ResourceExhausted) as error:
                self.verdict.failed_calls += 1
                self.verdict.refused += isinstance(error, ResourceExhausted)
                self.verdict.told[f"{type(error).__name__}: {error}"[:120]] += 1
                await asyncio.sleep(_BREATH)
            else:
                if results.status in (PrecomputeStatus.PENDING, PrecomputeStatus.IN_PROGRESS):
                    continue
                self._judge(key, number, starts, results)
                return
        self.verdict.stuck.append(key)

    def _judge(self, key: str, number: int, starts: int, results: Results) -> None:
        one = number + 1
        expected = {"one": one, "two": one * 2, "three": one * 2 + 3}
        if results.status is not PrecomputeStatus.COMPLETED or results.custom != expected:
            self.verdict.wrong.append(f"{key}: {results.status} {results.error} {results.custom}")
        elif results.revision > starts:
            self.verdict.duplicated.append(key)
        else:
            self.verdict.right += 1


async def serves(client: PrecomputeClient, within: float = 30.0) -> None:
    """Return when a call is answered."""
    deadline = time.monotonic() + within
    while True:
        with suppress(ServiceUnavailable, CallTimedOut):
            await client.get_stats(timeout=1)
            return
        assert time.monotonic() < deadline, "the service does not answer again"
        await asyncio.sleep(_BREATH)
