"""Fragments that no caller could read never leave the API."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headstart_service.api.results.answer import answer_from
from headstart_service.domain import StepState
from headstart_service.domain.errors import RecordDamaged
from tests.unit.api.conftest import Api, snapshot_of

WHOLE = snapshot_of({"one": StepState.COMPLETED, "two": StepState.RUNNING})


@pytest.mark.parametrize("body", [WHOLE.body[:-1], b"\xff", b"\x0a\xff\xff\xff\xff\xff", b"\x07"])
def test_fragments_that_cannot_be_read_are_damage(body: bytes):
    assert answer_from(WHOLE).data
    with pytest.raises(RecordDamaged, match="default/game-1"):
        answer_from(replace(WHOLE, body=body))


# The waiter finds the damage when it reads again.
@pytest.mark.parametrize("api", [0.1], indirect=True)
async def test_who_waits_for_a_record_that_gets_damaged_is_told(api: Api):
    waiter = api.get()
    await api.parked()
    assert api.store.snapshot is not None
    api.store.snapshot = replace(api.store.snapshot, body=b"\xff")
    api.wire.say("step", "one")
    with pytest.raises(RecordDamaged):
        await waiter
