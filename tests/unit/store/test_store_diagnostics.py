"""What the doctor reads of a store, and when the embedded Valkey is started again."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import stat
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError

from headstart_service.domain.errors import StartupError, StoreUnavailable
from headstart_service.store.connect import check_version, eviction_policy
from headstart_service.store.data_directory import locked, make_directory, make_private
from headstart_service.store.diagnostics import StoreFacts, examine
from headstart_service.store.embedded import EmbeddedValkey, embedded_valkey, stop
from headstart_service.store.store_rules import StoreRules
from tests.support.virtual_time import Clock, run_virtually

MEMORY = {"maxmemory": 1000, "used_memory": 10, "maxmemory_policy": "allkeys-lru"}


class Store(Redis):
    """A store of two partitions whose clock is five seconds ahead; each trip takes its time."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        # The quickest tells the time best; of 15, the median is 0.09.
        self.trips = iter([0.3, 0.02, *[0.09] * 7, *[0.2] * 5, 0.05])
        self.server = {"redis_version": "7.2.5"}
        self.persistence: dict[str, Any] = {"aof_enabled": 1}
        self.error: Exception | None = None
        self.asked: list[str] = []

    async def time(self) -> Any:
        trip = next(self.trips)
        # A slow trip is slow on its way back, so that it tells a wrong time.
        self.clock.now += 0.01
        at = self.clock.now + 5
        self.clock.now += trip - 0.01
        return int(at), round(at % 1 * 1e6)

    async def info(self, section: str) -> Any:
        if self.error:
            raise self.error
        return {"memory": MEMORY, "persistence": self.persistence, "server": self.server}[section]

    async def xinfo_consumers(self, jobs: str, group: str) -> Any:
        self.asked.append(jobs)
        idle = [100, 59_000, 61_000]
        number = int(jobs.split("{")[1][0])
        return [{"name": b"w%d" % (i + number), "idle": each} for i, each in enumerate(idle)]

    async def xinfo_groups(self, jobs: str) -> Any:
        lags = {"headstart:{0}:jobs": 3, "headstart:{1}:jobs": 4}
        return [{"name": b"other", "lag": 100}, {"name": b"workers", "lag": lags[jobs]}]

    async def get(self, key: str) -> Any:
        return b"format=4 partitions=2"


RULES = StoreRules(partitions=2, max_records=10, failure_ttl=60)


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    clock = Clock()
    made = Store(clock)
    yield made
    await made.aclose()


async def test_the_facts_of_a_store_are_read_and_its_clock_by_its_quickest_trip(
    store: Store,
) -> None:
    facts = await examine(store, RULES, recent=60, clock=store.clock)
    assert facts.clock_ahead == pytest.approx(5.0, abs=1e-5)
    assert facts.clock_error == pytest.approx(0.01)
    assert facts.latency == pytest.approx(0.09)
    assert facts == StoreFacts(
        version="Redis 7.2.5",
        latency=facts.latency,
        clock_ahead=facts.clock_ahead,
        clock_error=facts.clock_error,
        eviction="allkeys-lru",
        memory_limit=1000,
        memory_used=10,
        append_only=True,
        workers=3,  # w0 and w1 of the one, w1 and w2 of the other; each once
        queued=7,
        layout="format=4 partitions=2",
    )
    assert await eviction_policy(store) == "allkeys-lru"


@pytest.mark.parametrize(("persistence", "found"), [({}, None), ({"aof_enabled": 0}, False)])
async def test_a_store_that_does_not_report_whether_it_appends_is_not_judged(
    store: Store, persistence: dict[str, Any], *, found: bool | None
) -> None:
    store.persistence = persistence
    assert (await examine(store, RULES, recent=60, clock=store.clock)).append_only is found


async def test_before_the_first_job_nobody_waits_and_a_missing_right_is_reported(
    store: Store,
) -> None:
    async def none(*_: Any) -> Any:
        raise ResponseError("no such key")

    async def denied(*_: Any) -> Any:
        raise NoPermissionError("no")

    store.xinfo_consumers = none  # type: ignore[method-assign]
    facts = await examine(store, RULES, recent=60, clock=store.clock)
    assert (facts.workers, facts.queued) == (0, 0)
    store.trips = itertools.repeat(0.01)
    store.xinfo_consumers = denied  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable, match="denies a right"):
        await examine(store, RULES, recent=60, clock=store.clock)


@pytest.mark.parametrize(
    ("server", "version"),
    [
        ({"redis_version": "7.0.0"}, "Redis 7.0.0"),
        ({"redis_version": "6.2.9"}, None),
        ({"redis_version": "7.2.4", "valkey_version": "8.0.1"}, "Valkey 8.0.1"),
        ({"redis_version": "7.2.4", "valkey_version": "7.2.9"}, None),
    ],
)
async def test_a_server_that_is_too_old_is_refused(
    store: Store, server: dict[str, str], version: str | None
) -> None:
    store.server = server
    if version:
        assert await check_version(store) == version
    else:
        with pytest.raises(StartupError, match="is too old: Headstart needs Redis 7 or Valkey 8"):
            await check_version(store)
    store.error = OSError("away")
    with pytest.raises(StoreUnavailable):
        await check_version(store)
    assert await eviction_policy(store) == ""


class _Process:
    """A child that ends so many seconds after its start."""

    pid = 1

    def __init__(self, lives: float) -> None:
        self.ends = asyncio.get_running_loop().time() + lives

    async def wait(self) -> int:
        await asyncio.sleep(self.ends - asyncio.get_running_loop().time())
        return 3


def test_a_valkey_that_ends_is_started_again_with_pauses_that_grow_and_begin_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lives = [0.5] * 8 + [61.0, 0.5, 59.0, 0.5, 0.5]
    began: list[float] = []

    class Mortal(EmbeddedValkey):
        async def start(self) -> None:
            began.append(asyncio.get_running_loop().time())
            if len(began) == 3:
                raise OSError("no memory")
            self.process = _Process(lives[len(began) - 1])  # type: ignore[assignment]

    async def main() -> None:
        valkey = Mortal(tmp_path, tmp_path / "socket", 0, AsyncExitStack())
        await valkey.start()
        with suppress(IndexError):
            await valkey.keep()

    run_virtually(main())
    ends = [at + life for at, life in zip(began, lives, strict=False)]
    ends[2] = began[2]  # it did not start
    pauses = [round(at - end, 3) for at, end in zip(began[1:], ends, strict=False)]
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0, 0.1, 0.2, 0.4, 0.8, 1.6]
    assert "embedded Valkey ended with code 3, see " in caplog.text
    assert "next start in 0.1 s" in caplog.text
    assert "embedded Valkey does not start: no memory" in caplog.text


class _Stopping(_Process):
    """A child that needs so many seconds to write its data when it is asked to end."""

    returncode = None

    def __init__(self, needs: float) -> None:
        super().__init__(float("inf"))
        self.needs = needs
        self.killed_at: float | None = None

    def terminate(self) -> None:
        self.ends = asyncio.get_running_loop().time() + self.needs

    def kill(self) -> None:
        self.killed_at = self.ends = asyncio.get_running_loop().time()


@pytest.mark.parametrize(("needs", "killed_at"), [(9.9, None), (10.1, 10.0)])
def test_a_valkey_has_ten_seconds_to_end_before_it_is_killed(
    needs: float, killed_at: float | None
) -> None:
    async def main() -> float | None:
        began = asyncio.get_running_loop().time()
        process = _Stopping(needs)
        await stop(process)  # type: ignore[arg-type]
        return process.killed_at and round(process.killed_at - began, 3)

    assert run_virtually(main()) == killed_at


@pytest.mark.parametrize(("held", "taken"), [(9.5, True), (10.5, False)])
def test_a_dead_owners_lock_is_awaited_for_ten_seconds(
    tmp_path: Path, held: float, *, taken: bool
) -> None:
    owner = subprocess.Popen(["true"])
    owner.wait()

    async def main() -> None:
        with (tmp_path / "lock").open("w") as lock:
            lock.write(f"{owner.pid}\n")
            lock.flush()
            fcntl.flock(lock, fcntl.LOCK_EX)
            asyncio.get_running_loop().call_later(held, fcntl.flock, lock, fcntl.LOCK_UN)
            async with locked(tmp_path):
                pass

    if taken:
        run_virtually(main())
    else:
        with pytest.raises(StartupError, match=r"another server .* uses"):
            run_virtually(main())


# The embedded Valkey's program.


def _program(path: Path, text: str, mode: int = 0o700) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("text", "seconds", "told"),
    [
        ("exit 3", 20.0, "embedded Valkey ended with code 3; see .*valkey.log"),
        ("exec sleep 60", 0.2, "embedded Valkey did not answer in 0.2 s; see .*valkey.log"),
    ],
)
async def test_a_valkey_that_does_not_come_up_is_told_and_ended(
    tmp_path: Path, text: str, seconds: float, told: str
) -> None:
    program = _program(tmp_path / "program", text)
    directory = tmp_path / "data"
    with pytest.raises(StartupError, match=told):
        async with embedded_valkey(directory, program=lambda: program, start_within=seconds):
            raise AssertionError("it runs")
    async with locked(directory) as lock:
        assert lock > 0, "it is free again"


async def test_a_program_that_may_not_be_run_is_copied_and_none_is_reported(
    tmp_path: Path,
) -> None:
    program = _program(tmp_path / "program", "exit 4", mode=0o600)
    with pytest.raises(StartupError, match="ended with code 4"):
        async with embedded_valkey(tmp_path / "data", program=lambda: program):
            raise AssertionError("it runs")
    assert stat.S_IMODE((tmp_path / "data" / "valkey-server").stat().st_mode) == 0o700

    def missing() -> Path:
        raise RuntimeError("no wheel for this machine")

    with pytest.raises(StartupError, match="there is no embedded Valkey here: no wheel for this"):
        async with embedded_valkey(tmp_path / "data", program=missing):
            raise AssertionError("it runs")


@pytest.mark.parametrize(
    ("mode", "holds", "private"),
    [
        (0o700, "other things", True),
        (0o755, "", True),  # new, or empty: it is closed
        (0o755, "lock", True),
        (0o710, "other things", False),
        (0o701, "other things", False),
        (0o1777, "", False),
    ],
)
def test_a_directory_that_others_can_enter_is_closed_if_it_is_ours(
    tmp_path: Path, mode: int, holds: str, *, private: bool
) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    if holds:
        (directory / holds).touch()
    directory.chmod(mode)
    if private:
        make_private(directory)
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    else:
        with pytest.raises(StartupError, match=r"others can enter .*chmod 700 it, or name a new"):
            make_private(directory)
        assert stat.S_IMODE(directory.stat().st_mode) == mode


def test_a_place_that_can_be_no_directory_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartupError, match=r"HEADSTART_DATA_DIR: cannot use .*file"):
        make_directory(tmp_path / "file" / "data")
    make_directory(tmp_path / "a" / "b")
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
