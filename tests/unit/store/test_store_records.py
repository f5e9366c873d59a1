"""The codec of records: the order of a record's line, and the fields of steps."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from headstart_service.domain import StepRecord, StepState
from headstart_service.store.records import (
    ABOUT,
    NAMES,
    decode_about,
    decode_steps,
    encode_steps,
    expires_us,
    lua_codec,
    step_state,
)

FROZEN: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "contract/frozen/layout-4.json").read_text()
)


def frozen_lines() -> list[bytes]:
    hashes = FROZEN["hashes"].values()
    return [base64.b64decode(fields["about"]) for fields in hashes if "about" in fields]


@pytest.mark.parametrize("line", frozen_lines())
def test_the_fields_of_a_line_stand_where_they_always_stood(line: bytes) -> None:
    fields = decode_about(line)
    assert " ".join(fields.values()).encode() == line
    assert (fields["pipeline"], int(fields["expires"])) == ("chain", expires_us(line))
    assert fields["status"] in {"pending", "in_progress", "completed"}
    assert [name.partition("=")[0] for name in fields["steps"].split(",")] == [
        "one",
        "two",
        "three",
    ]
    assert int(fields["created"]) <= int(fields["started"]) or fields["started"] == "0"
    assert all(fields[field.name].isdecimal() for field in ABOUT if field.numeric)


def test_a_line_with_too_few_fields_is_damaged_and_an_error_may_hold_spaces() -> None:
    words = [name for name in NAMES if name != "error"]
    assert decode_about(" ".join([*words, "a b  c"]).encode())["error"] == "a b  c"
    with pytest.raises(ValueError, match="shorter"):
        decode_about(" ".join(words).encode())


def test_each_state_of_a_step_has_the_letter_that_it_always_had() -> None:
    letters = dict(zip(StepState, "PRCFS", strict=True))
    for state, letter in letters.items():
        step = StepRecord("first", state, b"<it>")
        field, value = encode_steps([step])
        assert (field, value) == ("s:first", letter.encode() + b"<it>")
        assert [*decode_steps([b"s:first", letter.encode() + b"<it>"])] == [step]
        assert f"{state.value} = '{letter}'" in lua_codec()
    for damaged in (b"", b"X"):
        with pytest.raises(LookupError):
            step_state(damaged)
