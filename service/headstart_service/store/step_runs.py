"""Have steps of other pools computed there: the store's side of `worker.step_runs`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ..domain import Lease, RunKey
from ..domain.errors import LeaseLost, RecordDamaged
from .batches import Reply
from .connect import Client
from .job_delivery import TRY
from .keys import PartitionKeys
from .retries import Retries
from .run_ids import run_ids
from .script_loader import Batches, in_lua, script
from .store_observer import StoreObserver
from .store_rules import StoreRules
from .worker_batches import worker_batches

_ENDED = 1
"""The reply of step_run.lua for a step that has ended."""


class _Scripts:
    """The script of step runs."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    @script
    async def step_run(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *,
        run_id: str,
        attempt: int,
        step: str,
        step_run_id: str,
        digest: str,
        needs: str,
        lost: bytes,
        by_need: int,
    ) -> Reply:
        """Queue the step run of a step of another pool, or see that it is there. Fenced."""
        return in_lua()


class RedisStepRuns:
    """Satisfies `worker.ports.StepRuns`."""

    def __init__(
        self,
        client: Client,
        rules: StoreRules,
        *,
        budget: float,
        observer: StoreObserver | None = None,
    ) -> None:
        """Try each call for `budget` seconds, to outlast a short outage."""
        self._batches = worker_batches(client, rules, budget=min(TRY, budget), observer=observer)
        self._script = _Scripts(self._batches).step_run
        self._retries = Retries(budget)
        self._keys = rules.keys(client)
        self._by_need = int(rules.by_need)
        self._ids = run_ids()

    async def aclose(self) -> None:
        """End what is under way for callers that have gone; the client is its opener's to close."""
        await self._batches.aclose()

    async def has_ended(
        self, lease: Lease, step: str, digest: str, needs: Sequence[str], lost: bytes
    ) -> bool:
        """Queue the step's run in its pool unless it is there; return whether the step has ended.

        The report `lost` becomes the step's if its workers are lost too often. Raises LeaseLost.
        """
        call = partial(
            self._script,
            self._keys[lease.job.partition],
            lease.job.key,
            run_id=lease.job.run,
            attempt=lease.attempt,
            step=step,
            step_run_id=next(self._ids),
            digest=digest[:16],
            needs=",".join(needs),
            lost=lost,
            by_need=self._by_need,
        )
        try:
            reply = await self._retries.run(call)
        except RecordDamaged:
            reply = 0  # which proves no lease
        if not reply:
            raise LeaseLost(str(lease.job.key))
        return bool(reply == _ENDED)
