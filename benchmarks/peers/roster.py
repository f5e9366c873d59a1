"""Who takes part: what each peer needs, how its worker is started, what to know about it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from . import work

_HERE = __package__
_ADAPTERS = f"{_HERE}.adapters"


@dataclass(frozen=True)
class Peer:
    """One contender beside Headstart."""

    name: str
    adapter: str
    """Its module in `adapters`."""
    packages: tuple[str, ...] = ()
    """What pip installs into its environment; nothing: it runs in Headstart's."""
    worker: tuple[str, ...] = ()
    """Arguments of its interpreter; without them, nothing but its client runs."""
    listens: bool = False
    """Whether the worker is the server that the client talks to; else both talk to Redis."""
    url_variable: str = work.REDIS_URL
    """Where the worker's command line looks for Redis."""
    variables: dict[str, str] = field(default_factory=dict)
    measured_against: bool = True
    """Whether Headstart must be ahead of it; if not, its lines are information."""
    format: str = ""
    """What a result is stored as."""

    @property
    def environment(self) -> str:
        """The name of its environment."""
        return self.adapter.partition("_")[0]

    def polling(self, seconds: float) -> Peer:
        """The same, tuned to poll so often: information, beside what its defaults give."""
        return replace(
            self,
            name=f"{self.name}, polls each {seconds * 1000:g} ms",
            variables={work.POLL: str(seconds)},
            measured_against=False,
        )


FASTAPI = Peer(
    "FastAPI, redis-py",
    "fastapi_app",
    ("fastapi[standard]", "redis[hiredis]", "httpx"),
    ("-m", f"{_ADAPTERS}.fastapi_app"),
    listens=True,
    format="JSON in Redis, parsed and encoded again by the endpoint",
)
CELERY = Peer(
    "Celery",
    "celery_app",
    ("celery[redis]",),
    ("-m", "celery", "-A", f"{_ADAPTERS}.celery_app", "worker"),
    format="JSON",
)
ARQ = Peer(
    "arq",
    "arq_tasks",
    ("arq",),
    ("-m", "arq", f"{_ADAPTERS}.arq_tasks.WorkerSettings"),
    format="pickle",
)
TASKIQ = Peer(
    "taskiq",
    "taskiq_tasks",
    ("taskiq", "taskiq-redis"),
    (
        *("-m", "taskiq", "worker", f"{_ADAPTERS}.taskiq_tasks:broker"),
        *("--log-level", "WARNING"),
        # Its idle stream reader never notices that it shall stop: the first signal must be enough.
        *("--hardkill-count", "-1"),
    ),
    format="pickle of JSON values, checked by pydantic",
)
DOCKET = Peer(
    "docket",
    "docket_tasks",
    ("pydocket",),
    (
        *("-m", "docket", "worker", "--tasks", f"{_ADAPTERS}.docket_tasks:TASKS"),
        *("--logging-level", "WARNING"),
    ),
    url_variable="DOCKET_URL",
    format="pickle, base64 in JSON",
)
SEED = Peer("the seed, in-process", "seed", format="the object itself, in a dict of this process")
BARE_GRPC = Peer(
    "bare grpc.aio calls", "bare_grpc", listens=True, measured_against=False, format="bytes"
)
BARE_REDIS = Peer(
    "bare redis-py SET, GET", "bare_redis", measured_against=False, format="bytes, not parsed"
)
PEERS = (FASTAPI, CELERY, ARQ, TASKIQ, DOCKET, SEED)
FLOORS = (BARE_GRPC, BARE_REDIS)
_OFTEN = 0.02
"""Seconds: oftener, and those who poll would slow down everyone on a small machine."""
TUNED = tuple(peer.polling(_OFTEN) for peer in (FASTAPI, ARQ, TASKIQ))
