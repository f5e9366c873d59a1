"""Encode and decode a run's record: the one place that declares its layout.

A record is a hash. Its small fields are one line of text, `about`, in the order of `ABOUT`. Each
step that runs or has ended has a field `s:<name>`. It holds the letter of the step's state and
the step's fragment of the response. `lua/_records.lua` describes the fields beside these.

Python decodes what scripts return, and encodes steps. Scripts alone write `about`: `lua_codec`
generates their encoder and decoder from `ABOUT`, so both languages share one order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from ..domain import (
    FailureReason,
    KeptItems,
    Lack,
    RunKey,
    RunPlan,
    RunSummary,
    Snapshot,
    Status,
    StepRecord,
    StepState,
    UnservedStep,
)
from .keys import from_member


@dataclass(frozen=True, slots=True)
class Field:
    """A field of `about`."""

    name: str
    pattern: str
    """The Lua pattern that its text matches."""

    @property
    def numeric(self) -> bool:
        """Whether the field holds a whole number below 2 ** 53, exact in a Lua double."""
        return self.pattern == _NUMBER


_NUMBER: Final = "%d+"
_WORD: Final = "%S+"

ABOUT: Final = (
    Field("status", _WORD),
    Field("revision", _NUMBER),
    Field("attempt", _NUMBER),
    Field("tries", _NUMBER),
    Field("run", _WORD),
    Field("entry", _WORD),
    Field("ttl", _NUMBER),
    Field("created", _NUMBER),
    Field("started", _NUMBER),
    Field("completed", _NUMBER),
    Field("expires", _NUMBER),
    Field("seen", _NUMBER),
    Field("pipeline", "[%w._-]+"),
    Field("definition", "[%w_/-]+"),
    Field("digest", _WORD),
    Field("steps", _WORD),
    Field("made", _WORD),
    Field("reason", _WORD),
    Field("error", ".*"),
)
"""The fields of a record's line, in their order; the last one alone may hold spaces."""
NAMES: Final = tuple(field.name for field in ABOUT)
_LETTERS: Final = {
    StepState.PENDING: "P",
    StepState.RUNNING: "R",
    StepState.COMPLETED: "C",
    StepState.FAILED: "F",
    StepState.SKIPPED: "S",
}
"""What the record keeps in front of a step's fragment."""
_STATES: Final = {ord(letter): state for state, letter in _LETTERS.items()}
_STATUSES: Final = {status.value: status for status in Status}
_NONE: Final = "-"
"""What `about` has for a text without a value."""
_STEP: Final = "s:"
_STEP_BYTES: Final = _STEP.encode()
_ITEMS: Final = "i:"
"""Begins the fields of a step's items: the step's name, a colon and the chunk's number follow."""
_ITEMS_BYTES: Final = _ITEMS.encode()
_CHUNKS: Final = "n:"
"""Begins the field with how many chunks of items a step has, and what these were made of."""
_CHUNKS_BYTES: Final = _CHUNKS.encode()
_STEP_DIGEST: Final = 16
"""Characters of a step's digest that a record keeps: 96 bits, compared within one key alone.

All 22 would move a record's line into Redis' next allocation size, 64 bytes more.
"""


# The line `about`.


def decode_about(line: bytes) -> dict[str, str]:
    """Return the fields of a record's line by name. Raises ValueError for a damaged line."""
    return dict(zip(NAMES, line.decode().split(" ", len(NAMES) - 1), strict=True))


def _failure_reason(text: str) -> FailureReason | None:
    """Return the reason of the field `reason`. Raises ValueError for a damaged one."""
    return None if text == _NONE else FailureReason(text)


def expires_us(line: bytes) -> int:
    """Return when the record of this line expires, in microseconds since the epoch.

    Raises ValueError and IndexError for a damaged line.
    """
    return int(line.split(b" ", _EXPIRES + 1)[_EXPIRES])


_EXPIRES: Final = NAMES.index("expires")


def encode_plan_steps(plan: RunPlan) -> str:
    """Return the field `steps` of a plan: "name=digest" for each step, joined by commas.

    "/pool" stands behind a step that is in another pool than the pipeline.
    """
    return ",".join(
        f"{name}={digest[:_STEP_DIGEST]}" + (f"/{plan.pools[name]}" if name in plan.pools else "")
        for name, digest in plan.steps.items()
    )


def _plan_steps(text: str) -> list[str]:
    """Return the names of the field `steps`, in their order."""
    return [item.partition("=")[0] for item in text.split(",")]


# Step fields.


def step_letter(state: StepState) -> str:
    """Return the letter that records keep for this state."""
    return _LETTERS[state]


def step_state(value: bytes) -> StepState:
    """Return the state of a step's value. Raises LookupError for a damaged or empty one."""
    return _STATES[value[0]]


def encode_step_value(step: StepRecord) -> bytes:
    """Return the value of a step's field: the state's letter, then the fragment."""
    return _LETTERS[step.state].encode() + step.fragment


def encode_steps(steps: Sequence[StepRecord]) -> list[str | bytes]:
    """Return the steps' fields in HSET's order: name, value, name, value."""
    return [part for step in steps for part in (_STEP + step.name, encode_step_value(step))]


def decode_step(field: bytes, value: bytes) -> StepRecord:
    """Return the step of a record's field. Raises ValueError or LookupError for a damaged one."""
    name = field.decode().removeprefix(_STEP)
    return StepRecord(name, step_state(value), value[1:])


def decode_since(value: bytes) -> dict[str, int]:
    """Return the field `since`: when each settling step's digest first appeared, in microseconds.

    Raises ValueError for a damaged one.
    """
    pairs = (item.split("=", 1) for item in value.decode().split(","))
    return {name: int(us) for name, us in pairs}


def decode_steps(fields: Sequence[bytes]) -> Iterator[StepRecord]:
    """Yield the steps of these fields: name, value, name, value.

    Raises ValueError or LookupError for damaged ones.
    """
    for field, value in zip(fields[::2], fields[1::2], strict=True):
        yield decode_step(field, value)


# Items of steps that have not ended.


def is_items(field: bytes) -> bool:
    """Return whether a record's field is about items of a step."""
    return field[:2] in (_ITEMS_BYTES, _CHUNKS_BYTES)


def decode_items(fields: Mapping[bytes, bytes]) -> dict[str, KeptItems]:
    """Return the kept items of each step, of fields that are about items.

    Raises ValueError or LookupError for damaged ones.
    """
    found = {}
    for field, value in fields.items():
        if field.startswith(_CHUNKS_BYTES):
            name = field[2:].decode()
            count, _, basis = value.decode().partition(" ")
            chunks = [
                fields.get(f"{_ITEMS}{name}:{number}".encode(), b"")
                for number in range(1, int(count) + 1)
            ]
            found[name] = KeptItems(basis, len(chunks), b"".join(chunks))
    return found


# Whole records, as scripts return them.


def decode_snapshot(key: RunKey, left_us: int, fields: Sequence[Any]) -> Snapshot:
    """Return the run of these fields: name, value, name, value.

    `left_us` are the microseconds until the record expires. Beside the record's own fields there
    may be `ahead`, a number, `lacks` and `lacking`. Raises ValueError and LookupError for a damaged
    record.
    """
    about, ended, fragments = b"", {}, []
    running: dict[str, bytes] = {}
    ahead: int | None = None
    lacks: Lack | None = None
    lacking: tuple[UnservedStep, ...] = ()
    pairs = iter(fields)
    for field, value in zip(pairs, pairs, strict=True):
        if field[:2] == _STEP_BYTES:
            state = ended[field[2:].decode()] = _STATES[value[0]]
            if state is StepState.RUNNING:
                running[field[2:].decode()] = value[1:]
            fragments.append(memoryview(value)[1:])  # `join` copies it, so it is not copied here
        elif field[:2] == _ITEMS_BYTES:
            fragments.append(value)
        elif field == b"about":
            about = value
        elif field == b"ahead":
            ahead = value
        elif field == b"lacks" and value:
            lacks = Lack(value.decode())
        elif field == b"lacking" and value:
            lacking = _lacking(value.decode())
    line = decode_about(about)
    summary = RunSummary(
        key,
        line["pipeline"],
        int(line["revision"]),
        _STATUSES[line["status"]],
        int(line["created"]),
        int(line["started"]),
        int(line["completed"]),
        int(line["expires"]),
        line["error"],
        lacks,
        lacking,
        _failure_reason(line["reason"]),
    )
    states = dict.fromkeys(_plan_steps(line["steps"]), StepState.PENDING) | ended
    body = b"".join(fragments)
    return Snapshot(summary, line["run"], states, body, left_us / 1e6, running, ahead)


def _lacking(text: str) -> tuple[UnservedStep, ...]:
    """Return the steps of the field `lacking`: "step pool lack" joined by commas."""
    rows = (row.split(" ") for row in text.split(","))
    return tuple(sorted(UnservedStep(step, pool, Lack(lack)) for step, pool, lack in rows))


def decode_large_snapshot(
    key: RunKey, head: Sequence[Any], record: Mapping[bytes, bytes], age: float
) -> Snapshot:
    """Return a run whose fields were read by themselves, `age` seconds after its `head`.

    `head` is read.lua's reply for a large record: microseconds until it expires, "size", the size,
    "about", the line. A queued run adds more. Raises ValueError and LookupError for a
    damaged record.
    """
    left_us, _, _, _, before, *queued = head
    about = record[b"about"]
    if about != before:
        queued = []  # it was queued with another revision, or another status
        left_us += expires_us(about) - expires_us(before)
    fields = chain.from_iterable(record.items())
    return decode_snapshot(key, left_us - round(age * 1e6), [*fields, *queued])


def decode_summary(
    name: bytes,
    status: bytes,
    revision: int,
    pipeline: bytes,
    created: bytes,
    started: bytes,
    completed: bytes,
    expires: bytes,
    error: bytes,
    lacks: bytes,
    reason: bytes,
) -> RunSummary:
    """Return a run of a row of list.lua. Raises ValueError and, for a name alone, TypeError."""
    return RunSummary(
        key=from_member(name.decode()),
        pipeline=pipeline.decode(),
        revision=revision,
        status=Status(status.decode()),
        created_us=int(created),
        started_us=int(started),
        completed_us=int(completed),
        expires_us=int(expires),
        error=error.decode(),
        lacks=Lack(lacks.decode()) if lacks else None,
        failure_reason=_failure_reason(reason.decode()),
    )


# The same for scripts.


def lua_codec() -> str:
    """Return the Lua functions that decode and encode `about`, and the constants of step fields.

    They are straight code, one expression per field: each script runs them for each record.
    """
    pattern = " ".join(f"({field.pattern})" for field in ABOUT)
    names = ", ".join(NAMES)
    numbers = ", ".join(field.name for field in ABOUT if field.numeric)
    converted = ", ".join(f"tonumber({field.name})" for field in ABOUT if field.numeric)
    fields = ", ".join(f"{name} = {name}" for name in NAMES)
    values = ", ".join(
        f"integer(r.{field.name})" if field.numeric else f"r.{field.name}" for field in ABOUT
    )
    letters = ", ".join(f"{state.value} = '{letter}'" for state, letter in _LETTERS.items())
    ended = ", ".join(f"{_LETTERS[state]} = true" for state in StepState if state.ended)
    return f"""\
local STEP_FIELD = '{_STEP}'
local ITEMS_FIELD = '{_ITEMS}'
local CHUNKS_FIELD = '{_CHUNKS}'
local LETTER = {{{letters}}}
local STEP_ENDED = {{{ended}}}
local LARGEST = 2 ^ 53
local function decode_about(text)
  local {names} = string.match(text, '^{pattern}$')
  {numbers} = {converted}
  if {NAMES[-1]} and math.max({numbers}) < LARGEST then
    return {{{fields}}}
  end
end
local function encode_about(r)
  return table.concat({{{values}}}, ' ')
end
"""
