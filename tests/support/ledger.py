"""An in-memory run ledger, and claims for runs of any pipeline: what the runner's tests need."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

from headstart.v1 import precompute_pb2 as pb
from headstart_service.domain import (
    Claim,
    FailureReason,
    ItemsChunk,
    Job,
    Lease,
    PartialWrite,
    RunKey,
    Status,
    StepRecord,
    StepState,
)
from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.step import Step
from headstart_service.values.artifacts import ArtifactCodec

CLAIMED_US = 1_700_000_000_000_000
"""When every claim here was made."""


class NoInputs(BaseModel):
    """The inputs of pipelines that need none."""


def pipeline_of(*steps: Step, name: str = "test", inputs: type[BaseModel] = NoInputs) -> Pipeline:
    return Pipeline(
        name=name, version="1", description="", inputs=inputs, steps=steps, codec=ArtifactCodec()
    )


def claim_of(
    pipeline: Pipeline,
    raw: Mapping[str, Any] | None = None,
    ended: Mapping[str, StepRecord] | None = None,
) -> Claim:
    lease = Lease(Job(0, "1-1", RunKey("default", "run"), "1-1"), 1)
    plan = pipeline.plan(raw or {}, "inputs")
    return Claim(lease, 1, pipeline.name, plan.inputs, ended or {}, CLAIMED_US)


def claim_for(
    pipeline: Pipeline, key: str, *, namespace: str = "default", fresh: bool = False, **inputs: Any
) -> Claim:
    claim = claim_of(pipeline, inputs)
    job = replace(claim.lease.job, key=RunKey(namespace, key))
    return replace(claim, lease=replace(claim.lease, job=job), fresh=fresh)


@dataclass(frozen=True)
class Write:
    """One write as the ledger got it. `status` is None for a commit."""

    ended: Sequence[StepRecord]
    running: Sequence[StepRecord]
    status: Status | None = None
    error: str = ""
    failure_reason: FailureReason | None = None

    @property
    def names(self) -> list[str]:
        return [record.name for record in self.ended]


class Ledger:
    """Keeps every write in order. Closing `gate` holds writes back; `failure` makes them raise."""

    def __init__(self) -> None:
        self.writes: list[Write] = []
        self.chunks: list[ItemsChunk] = []
        self.begun = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None
        self.given: list[PartialWrite] = []
        """What steps gave before their ends."""
        self.append_failure: Exception | None = None
        self._busy = False

    async def commit(
        self, lease: Lease, ended: Sequence[StepRecord], running: Sequence[StepRecord]
    ) -> None:
        await self._keep(Write(tuple(ended), tuple(running)))

    async def keep_items(self, lease: Lease, chunk: ItemsChunk) -> bool:
        await self._keep(Write((), ()))
        self.writes.pop()
        self.chunks.append(chunk)
        return True

    async def append(self, lease: Lease, write: PartialWrite) -> int:
        if self.append_failure:
            raise self.append_failure
        self.given.append(write)
        await asyncio.sleep(0)
        return write.offset + len(write.data)

    async def finish(
        self,
        lease: Lease,
        ended: Sequence[StepRecord],
        status: Status,
        error: str,
        failure_reason: FailureReason | None = None,
        slot_seconds: float | None = None,
    ) -> None:
        await self._keep(Write(tuple(ended), (), status, error, failure_reason))

    async def _keep(self, write: Write) -> None:
        assert not self._busy, "a write overtakes another"
        assert self.end is None, "a write after the end"
        self._busy = True
        self.begun += 1
        try:
            await self.gate.wait()
            await asyncio.sleep(0)
            if self.failure is not None:
                raise self.failure
            self.writes.append(write)
        finally:
            self._busy = False

    @property
    def end(self) -> Write | None:
        """The write that ended the run, if one did."""
        return next((write for write in self.writes if write.status), None)

    @property
    def records(self) -> dict[str, StepRecord]:
        """The last that was kept of each step."""
        return {r.name: r for write in self.writes for r in (*write.running, *write.ended)}

    @property
    def states(self) -> dict[str, StepState]:
        return {name: record.state for name, record in self.records.items()}

    def report(self, step: str) -> pb.StepReport:
        """A step's report as a caller would read it."""
        message = pb.GetResultsResponse.FromString(self.records[step].fragment)
        return message.steps[step]

    def value(self, step: str) -> Any:
        """A completed step's value, decoded."""
        return ArtifactCodec().decode(step, self.records[step].fragment)


class Dictionary:
    """A MemoStore that forgets nothing."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], bytes] = {}
        self.ttls: dict[tuple[str, str], float | None] = {}
        self.looks = 0

    async def memo_get(self, namespace: str, digest: str) -> bytes | None:
        self.looks += 1
        return self.kept.get((namespace, digest))

    async def memo_put(
        self, namespace: str, digest: str, result: bytes, ttl: float | None = None
    ) -> None:
        self.ttls[namespace, digest] = ttl
        self.kept[namespace, digest] = result


def tasks_left() -> set[str]:
    """The names of the tasks that run beside the caller's own."""
    return {task.get_name() for task in asyncio.all_tasks() - {asyncio.current_task()}}  # type: ignore[arg-type]
