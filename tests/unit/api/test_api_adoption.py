"""Runs that a rolling update leaves behind: one that cannot be adopted keeps none of the others."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from pydantic import BaseModel

from headstart_service.api.adoption import Adoption
from headstart_service.domain import Orphan, RunKey
from headstart_service.domain.errors import RecordDamaged
from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.registry import Registry
from headstart_service.pipeline.step import step
from tests.support.run_store import FakeRunStore
from tests.support.waiting import wait_until


class Words(BaseModel):
    words: list[str]


@step(when=lambda inputs: inputs.words[0] != "")
async def first_word(words: list[str]) -> str:
    return words[0]


WORDS = Pipeline(name="words", version="2", description="A word", inputs=Words, steps=(first_word,))


def orphan(key: str, inputs: bytes = b'{"words": ["sea"]}') -> Orphan:
    return Orphan(RunKey("default", key), f"run of {key}", "words", inputs)


async def test_inputs_and_records_that_do_not_fit_keep_no_other_run_from_being_adopted() -> None:
    orphans = [
        orphan("of other inputs", b'{"text": "sea"}'),
        orphan("no text", b"\xff"),
        orphan("whose `when` raises", b'{"words": []}'),
        orphan("damaged"),
        orphan("fits"),
    ]
    store = FakeRunStore()
    store.orphaned = orphans
    store.fails[orphans[3].key] = RecordDamaged("damaged")
    adoption = Adoption(store, Registry([WORDS]))
    await adoption.look()
    await adoption.look()
    adopted = [(key, plan.definition) for key, plan in store.asked("adopt") if key != "damaged"]
    assert adopted == [("fits", WORDS.definition)] * 2


async def test_a_process_that_ends_starts_nothing_any_more() -> None:
    store = FakeRunStore()
    task = asyncio.create_task(Adoption(store, Registry([WORDS])).run())
    await wait_until(lambda: store.calls)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert store.asked("orphans")[-1][1] == 0
