"""What processes use over a long time under load and faults, and whether it grows."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from redis.asyncio import Redis

WARM_UP = 0.25
"""This part of the time is not judged: caches fill, code is loaded."""
TOLERANCES: Mapping[str, tuple[float, float]] = {
    "RSS MB": (1.10, 8),
    "threads": (1.0, 4),
    "files": (1.25, 12),
    "sockets": (1.25, 12),
    # Runs of the last seconds: twice as many when the machine has twice as much time for them.
    "keys": (2.0, 100),
}
"""What the last third may have beside the first: so many times as much, and so much more."""


@dataclass(frozen=True)
class Change:
    """The medians of a quantity in the first and in the last third of what is judged."""

    what: str
    first: float
    last: float
    most: float

    @property
    def grows(self) -> bool:
        return self.last > self.most

    def __str__(self) -> str:
        return f"{self.what:24} {self.first:8.1f} -> {self.last:8.1f} (at most {self.most:.1f})"


@dataclass
class Gauges:
    """Samples of every process and of Redis, once a second."""

    processes: Mapping[str, int]
    samples: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    async def sample(self, redis: Redis, every: float = 1.0) -> None:
        """Take samples for ever; a server that does not answer is asked again."""
        while True:
            for name, pid in self.processes.items():
                for what, value in _uses(pid).items():
                    self.samples[f"{name} {what}"].append(value)
            with suppress(Exception):
                async with asyncio.timeout(2):
                    self.samples["redis keys"].append(float(await redis.dbsize()))
                    clients = (await redis.info("clients"))["connected_clients"]
                    self.samples["redis sockets"].append(float(clients))
            await asyncio.sleep(every)

    def changes(self) -> list[Change]:
        """How the end compares with the beginning, for each quantity."""
        found = []
        for name, values in sorted(self.samples.items()):
            judged = values[int(len(values) * WARM_UP) :]
            third = len(judged) // 3
            assert third, f"too few samples of {name}"
            first, last = median(judged[:third]), median(judged[-third:])
            [(times, more)] = [t for what, t in TOLERANCES.items() if name.endswith(" " + what)]
            found.append(Change(name, first, last, first * times + more))
        return found


def _uses(pid: int) -> dict[str, float]:
    """What the kernel knows of a process."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    files = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            files.append(str(each.readlink()))
    return {
        "RSS MB": int(status["VmRSS"].split()[0]) / 1024,
        "threads": float(status["Threads"]),
        "files": float(len(files)),
        "sockets": float(sum(name.startswith("socket:") for name in files)),
    }
