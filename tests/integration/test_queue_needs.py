"""Which run a busy worker takes next, and what callers are told meanwhile, between processes."""

from __future__ import annotations

from pathlib import Path

from headstart.v1 import precompute_pb2 as pb
from tests.support.pipelines import REFERENCES, began
from tests.support.processes import Service, api, stub, worker
from tests.support.requests import probe, results
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

SETTINGS = {
    "HEADSTART_BRIDGING": "false",
    "HEADSTART_PIPELINES": REFERENCES,
    "HEADSTART_WORKER_CONCURRENCY": "1",
    "HEADSTART_WORKER_RUNS": "1",
    "HEADSTART_LEASE": "1",
}


async def _start(service: Service, key: str, directory: Path, needed_in: int | None) -> None:
    request = probe(key, directory)
    if needed_in is not None:
        request.expected_need_in.FromSeconds(needed_in)
    await service.StartPrecompute(request)


async def _ends(service: Service, *keys: str) -> list[str]:
    """These in the order in which a worker took them, once all have ended."""
    answers = [await service.GetResults(results(key, 30)) for key in keys]
    assert {answer.status for answer in answers} == {pb.PRECOMPUTE_STATUS_COMPLETED}
    taken = sorted(answers, key=lambda answer: answer.started_at.ToMicroseconds())
    return [answer.key for answer in taken]


async def test_a_worker_takes_what_is_waited_for_then_by_need_and_missing_steps_have_estimates(
    valkey: Valkey, tmp_path: Path
):
    async with (
        api(valkey.url, **SETTINGS) as (_, address),
        worker(valkey.url, **SETTINGS),
        stub(address) as service,
    ):
        (tmp_path / "go").touch()
        await _start(service, "known", tmp_path, None)
        await service.GetResults(results("known", 20))
        (tmp_path / "go").unlink()
        await _start(service, "busy", tmp_path, None)
        await wait_until(lambda: len(began(tmp_path)) == 4)
        for key, needed_in in (("in a day", 86_400), ("soon", 60), ("awaited", 600), ("now", None)):
            await _start(service, key, tmp_path, needed_in)
        partial = await service.GetResults(results("awaited", 0.05, "first"))
        assert partial.status == pb.PRECOMPUTE_STATUS_PENDING

        async def estimated() -> pb.GetResultsResponse | None:
            answer = await service.GetResults(results("in a day"))
            told = all(step.HasField("estimate") for step in answer.steps.values())
            return answer if told else None

        answer = await wait_until(estimated)
        first, gated = answer.steps["first"].estimate, answer.steps["gated"].estimate
        assert 0 < first.p50.ToMicroseconds() < gated.p50.ToMicroseconds()
        assert first.p50.ToMicroseconds() <= first.p90.ToMicroseconds()
        running = await service.GetResults(results("busy"))
        assert running.steps["gated"].HasField("estimate")
        assert not running.steps["first"].HasField("estimate")

        (tmp_path / "go").touch()
        order = await _ends(service, "in a day", "now", "soon", "awaited")
        # Who waits for "in a day" here promotes it, behind the one that was waited for before.
        assert order[0] == "awaited"
        assert order.index("now") < order.index("soon")
        done = await service.GetResults(results("awaited"))
        assert not any(step.HasField("estimate") for step in done.steps.values())
