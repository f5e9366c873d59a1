"""The weights of namespaces come from the limits file, and a running worker reads it again."""

from __future__ import annotations

from pathlib import Path

from headstart.v1 import precompute_pb2 as pb
from tests.support.pipelines import REFERENCES, began
from tests.support.processes import api, stub, worker
from tests.support.requests import probe
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

SETTINGS = {
    "HEADSTART_BRIDGING": "false",
    "HEADSTART_PIPELINES": REFERENCES,
    "HEADSTART_WORKER_CONCURRENCY": "1",
    "HEADSTART_WORKER_RUNS": "1",
}
RUNS = 12


def write(path: Path, **weights: float) -> None:
    """Put a file with these weights in the place of another."""
    tables = (f"[namespaces.{name}]\nweight = {weight}\n" for name, weight in weights.items())
    new = path.with_suffix(".new")
    new.write_text("".join(tables))
    new.replace(path)


async def test_a_weight_that_changes_counts_without_a_restart(valkey: Valkey, tmp_path: Path):
    limits = tmp_path / "limits.toml"
    write(limits, first=1000, second=0.01)
    async with (
        api(valkey.url, **SETTINGS) as (_, address),
        worker(valkey.url, HEADSTART_LIMITS=str(limits), **SETTINGS) as computing,
        stub(address) as service,
    ):
        await service.StartPrecompute(probe("busy", tmp_path))
        await wait_until(lambda: len(began(tmp_path)) == 2)
        for namespace in ("first", "second"):
            for number in range(RUNS):
                spec = pb.CustomSpec(pipeline="noop")
                await service.StartPrecompute(
                    pb.StartPrecomputeRequest(namespace=namespace, key=str(number), custom=spec)
                )
        write(limits, first=0.01, second=1000)
        await computing.says("limits read from")
        (tmp_path / "go").touch()

        async def started() -> list[str]:
            answers = [
                await service.GetResults(pb.GetResultsRequest(namespace=namespace, key=str(number)))
                for namespace in ("first", "second")
                for number in range(RUNS)
            ]
            ended = [a for a in answers if a.status == pb.PRECOMPUTE_STATUS_COMPLETED]
            ended.sort(key=lambda answer: answer.started_at.ToMicroseconds())
            return [a.namespace for a in ended] if len(ended) == 2 * RUNS else []

        order = await wait_until(started)
        # The other one is first once, because it has waited longest, and maybe where charges meet.
        assert order[: RUNS + 2].count("second") == RUNS
