"""What Redis spends on a call, by its own account: it hardly depends on what else the machine does.

Time inside of commands is what `INFO commandstats` says; the processor's is that of Redis's main
thread, so that receiving, parsing and answering are part of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

_SCRIPTS = ("evalsha", "eval", "fcall")
"""What runs a script. What a script runs is counted once more, under its own name."""


@dataclass(frozen=True)
class Spent:
    """Microseconds since the servers started, all of them together."""

    scripts: float
    jobs: int
    """How many jobs were queued, which every start of a run does once: a script carries many."""
    reads: int
    """How many records were read whole."""
    processor: float

    def __sub__(self, before: Spent) -> Spent:
        return Spent(
            self.scripts - before.scripts,
            self.jobs - before.jobs,
            self.reads - before.reads,
            self.processor - before.processor,
        )

    def per_call(self, calls: int) -> float:
        """Time in scripts for each of so many calls."""
        return self.scripts / calls


async def spent(*servers: Redis) -> Spent:
    """What these servers have spent until now."""
    total = Spent(0, 0, 0, 0)
    for server in servers:
        stats: Mapping[str, Mapping[str, Any]] = await server.info("commandstats")
        found = {name.removeprefix("cmdstat_").partition("|")[0]: s for name, s in stats.items()}
        scripts: Sequence[Mapping[str, Any]] = [found[name] for name in _SCRIPTS if name in found]
        cpu: Mapping[str, float] = await server.info("cpu")
        total = Spent(
            total.scripts + sum(float(each["usec"]) for each in scripts),
            total.jobs + int(found.get("xadd", {}).get("calls", 0)),
            total.reads + int(found.get("hgetall", {}).get("calls", 0)),
            total.processor
            + 1e6 * (cpu["used_cpu_user_main_thread"] + cpu["used_cpu_sys_main_thread"]),
        )
    return total
