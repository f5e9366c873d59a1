"""Every backend that the store must work on. A new one is one more line here."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.contract.backend import Backend
from tests.support import deployments
from tests.support.deployments import Deployment

Opener = Callable[[Path], AbstractContextManager[Deployment]]

BACKENDS: dict[str, tuple[Opener, int]] = {
    "standalone-1": (deployments.standalone, 1),
    "standalone-4": (deployments.standalone, 4),
    "embedded-1": (deployments.embedded, 1),
    "cluster-4": (deployments.cluster, 4),
    "sentinel-1": (deployments.sentinel, 1),
    "acl-1": (deployments.acl, 1),
    "tls-1": (deployments.tls, 1),
}
"""How each is opened, and its number of partitions."""

TWO = ("acl-1", "cluster-4")
"""Those that `make test` runs on, with DEPLOYMENTS=two. `.ci/run` adds the rest, with DEPLOYMENTS=rest.

Without DEPLOYMENTS, every test runs on all of them.

These two find most. `cluster-4` finds what several partitions and several masters break: keys in
other slots, scripts that a node lacks, redirections, reads that one server cannot answer. `acl-1`
finds what one partition and a plain client break, as `standalone-1` does, and also a key, a channel
or a command outside the rights that the store asks for. The integration tests use the embedded one.
What `standalone-4`, `sentinel-1` and `tls-1` add is how a connection is opened.
"""


def chosen(name: str | None) -> tuple[str, ...]:
    """The deployments that DEPLOYMENTS names: `two`, the `rest`, or all of them."""
    if name == "two":
        return TWO
    rest = tuple(backend for backend in BACKENDS if backend not in TWO)
    return rest if name == "rest" else tuple(BACKENDS)


DEPLOYMENTS = os.environ.get("DEPLOYMENTS")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `rest`, leave out what `two` has run: also the contract's tests of no deployment."""
    if DEPLOYMENTS != "rest":
        return
    here, rest = Path(__file__).parent, chosen("rest")
    left_out = [
        item for item in items if here in item.path.parents and _deployment(item) not in rest
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _deployment(item: pytest.Item) -> str | None:
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return parameters.get("deployment")


@pytest.fixture(scope="session", params=chosen(DEPLOYMENTS))
def deployment(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Deployment, int]]:
    """A running deployment, shared by all tests, and its number of partitions."""
    opener, partitions = BACKENDS[request.param]
    with opener(tmp_path_factory.mktemp(request.param)) as opened:
        yield opened, partitions


@pytest.fixture
async def store_backend(deployment: tuple[Deployment, int]) -> AsyncIterator[Backend]:
    """The store on an empty deployment. No test may leave a key that lives for ever."""
    opened, partitions = deployment
    opened.wipe()
    async with Backend.open(opened, partitions) as backend:
        yield backend
    immortal = {key for key, ttl in opened.ttls().items() if ttl == -1}
    assert immortal <= {name for p in range(partitions) for name in fixed_keys(p)}


def fixed_keys(partition: int) -> tuple[str, ...]:
    """What a partition keeps for ever, spelled out once more so that a slip in `keys` shows."""
    names = ("jobs", "expiry", "unread", "read", "waiting", "tickets")
    statuses = ("pending", "in_progress", "completed", "failed", "cancelled")
    later = (
        "waiting",
        "waiting:order",
        *(f"waiting:turns:{band}" for band in range(3)),
        "tickets",
        "ledger",
        "unsettled",
        "unserved",
        "offers",
        "starters",
        "layout",
        "pools",
        *(f"pool:gpu:{status}" for status in ("pending", "in_progress")),
        *(f"step_runs:{status}" for status in ("pending", "in_progress")),
    )
    return tuple(
        f"headstart:{{{partition}}}:{name}"
        for name in (*names, *(f"status:{status}" for status in statuses), *later)
    )
