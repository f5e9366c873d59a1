"""A pipeline whose steps do every kind of harm, in a real worker, with another run beside it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from headstart import PrecomputeClient
from tests.support.executors import REFERENCES
from tests.support.processes import api, serving, worker
from tests.support.waiting import wait_until

REASONS = {
    "raises": "internal",
    "unsendable": "wrong_type",
    "blocks": "blocked",
    "never_ends": "timed_out",
    "dies": "worker_lost",
    "leaves": "worker_lost",
    "refuses": "step_failed",
    "prints": None,
}
SETTINGS = {
    "HEADSTART_BRIDGING": "false",
    "HEADSTART_PIPELINES": REFERENCES,
    "HEADSTART_BLOCK_LIMIT": "0.5",
    "HEADSTART_LEASE": "30",
}


def ended(pid: int) -> bool:
    """Whether no process of this id runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


async def test_steps_that_do_harm_fail_by_themselves(tmp_path) -> None:
    settings = SETTINGS | {"HEADSTART_DATA_DIR": str(tmp_path / "data")}
    inputs = {"directory": str(tmp_path)}
    async with serving(**settings) as (process, address), PrecomputeClient(address) as client:
        await client.start("harm", "harm", inputs)
        await client.start("beside", "beside", inputs)
        beside = await client.get_results("beside", wait=60)
        results = await client.get_results("harm", wait=60)
        assert str(beside.status) == "completed"
        assert {str(step.state) for step in beside.steps.values()} == {"completed"}
        assert str(results.status) == "completed"  # no step of it is required
        errors = {name: step.error for name, step in results.steps.items()}
        reasons = {name: step.failure_reason for name, step in results.steps.items()}
        assert "restarts" not in process.output
        assert "the worker ended" not in process.output
        assert "hunter2" in process.output
    os.kill(int((tmp_path / "grandchild").read_text()), signal.SIGKILL)
    for name in ("raises", "quits", "quits_in_task", "quits_in_thread", "quits_in_process"):
        assert errors.pop(name).startswith("internal error ")
    assert errors.pop("wordy") == "?" + "x" * 1_998 + "…"
    assert {name: reasons[name] for name in REASONS} == REASONS
    returned = errors.pop("unsendable")
    assert returned.startswith("returned a function, which cannot leave its process")
    assert errors == {
        "blocks": "blocked the event loop for more than 0.5 s: use runs_on='thread'",
        "never_ends": "took longer than 0.3 s",
        "dies": "its process was killed by SIGKILL: out of memory?",
        "leaves": "its process ended with exit code 3",
        "forks": "its process ended with exit code 4",
        "hangs": "took longer than 0.5 s",
        "refuses": "no such word",
        "prints": None,
        "prints_too": None,
        "quits_in_callback": None,
    }
    assert len((tmp_path / "deaths").read_text().splitlines()) == 2


async def test_no_process_of_a_killed_worker_is_left(valkey, tmp_path) -> None:
    async with (
        api(valkey.url, **SETTINGS) as (_, address),
        worker(valkey.url, **SETTINGS) as working,
    ):
        async with PrecomputeClient(address) as client:
            await client.start("held", "held", {"directory": str(tmp_path)})
            file = tmp_path / "held"
            await wait_until(lambda: file.exists() and file.read_text())
            pid = int(file.read_text())
            assert not ended(pid)
            assert pid != os.getpid()
            working.kill()
            await wait_until(lambda: ended(pid))
