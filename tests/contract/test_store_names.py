"""No key and no namespace is more than a name to the store, whatever characters it is made of."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headstart_service.domain import STEP_RUN, Announcement, RunKey, Status
from tests.contract.backend import RESULT, Backend
from tests.contract.conftest import fixed_keys
from tests.support.deployments import Deployment

NAMESPACES = st.text("abA.-_:0", min_size=1, max_size=4)
# What Redis, Lua, Python's logging and formats, shells and this service's own keys give a meaning.
SPECIAL = (
    "{",
    "}",
    "{0}",
    "{1}",
    "*",
    "?",
    "[a-z]",
    "%s",
    "%d",
    "%n",
    "\0",
    "\n",
    "\r\n",
    " ",
    ":",
)
SPECIAL += ("::", ";", ",", "=", "'", '"', "]]", "--", "\\", "$", "`", "run:", "headstart:{0}:jobs")
SPECIAL += ("default:bystander", "\x1b[2J", "\u2028", "\u200b", "é", "🌊", "-", "0", "_", "a")
KEYS = st.one_of(
    st.lists(st.sampled_from(SPECIAL), min_size=1, max_size=8).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60),
    st.sampled_from(SPECIAL).map(lambda part: (part * 256)[: 256 // len(part.encode())]),
).filter(lambda key: 1 <= len(key.encode()) <= 256 and STEP_RUN not in key)
BYSTANDER = RunKey("default", "bystander")


@pytest.mark.promise("A key is one record", "names are arguments, never code")
def test_any_name_is_one_run_of_its_namespace_and_touches_no_other(
    deployment: tuple[Deployment, int],
):
    opened, partitions = deployment
    fixed = {name for p in range(partitions) for name in fixed_keys(p)}
    with asyncio.Runner() as loop:

        @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(st.sets(st.builds(RunKey, NAMESPACES, KEYS), min_size=1, max_size=4))
        def try_names(names: set[RunKey]) -> None:
            loop.run(_tried(opened, partitions, names - {BYSTANDER}, fixed))

        try_names()


async def _tried(opened: Deployment, partitions: int, names: set[RunKey], fixed: set[str]) -> None:
    opened.wipe()
    async with Backend.open(opened, partitions) as backend:
        await backend.complete(BYSTANDER)
        record = backend.keys_of(BYSTANDER).record(BYSTANDER)
        before = opened.dump()[record]
        await backend.complete(*sorted(names))
        records = {backend.keys_of(name).record(name): name for name in names}
        served = {f"headstart:{{{p}}}:waiting:served:1" for p in range(partitions)}
        assert set(opened.ttls()) - fixed - served == {*records, record}
        assert len(records) == len(names)
        for namespace in {name.namespace for name in names}:
            mine = {name for name in names if name.namespace == namespace}
            listed = await backend.store.list(namespace, list(Status), None, 100)
            assert {summary.key for summary in listed} == mine
            counts = (await backend.store.stats(namespace)).counts
            assert counts == {Status.COMPLETED: len(mine)}
        for name in names:
            snapshot = await backend.store.read(name)
            assert (snapshot.summary.key, snapshot.body) == (name, RESULT)
            await backend.store.cancel(name)
        assert opened.dump()[record] == before


@pytest.mark.promise("Announcements match exact names", "the name is the last field")
async def test_an_announcement_is_about_the_run_of_exactly_that_name(
    deployment: tuple[Deployment, int],
):
    opened, partitions = deployment
    opened.wipe()
    async with Backend.open(opened, partitions) as backend, backend.announcements() as heard:
        for special in SPECIAL:
            name = RunKey("a", f"x{special}y {special}")
            await backend.start(name)
            async with asyncio.timeout(20):
                announcement: Announcement = await anext(heard)
            assert (announcement.kind, announcement.key) == ("started", name)
