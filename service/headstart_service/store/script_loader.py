"""Compose the scripts' texts, and bind each script to the Python method that declares it.

A script's text is the shared files `lua/_*.lua`, the script as a function, and a loop. The loop
runs the function for each call of a batch. `records.ABOUT` generates the record's codec.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Coroutine, Sequence
from importlib.resources import files
from itertools import pairwise
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar, cast

from ..domain import RunKey
from .batches import MAX_REPLY, Reply, Value
from .keys import FIXED, PartitionKeys, member
from .records import lua_codec

P = ParamSpec("P")
_LUA = files(__package__) / "lua"
# With full memory, Redis refuses these scripts before they run, and runs all others. So a ping
# reports full memory.
_REFUSED_WHEN_FULL: Final = {"start", "memo_put", "ping", "append_partial"}
_FUNCTION = """
local function transition({parameters})
{body}
end
"""
# A caller of another layout is refused before anything happens: see `layout`. Each call's arguments
# are its keyword arguments, then the rest. An error is the reply to its own call alone. Calls
# behind large replies are left for the next batch, so that none waits for the megabytes of others.
_LOOP = f"""
local function bytes_of(reply)
  if type(reply) ~= 'table' then
    return type(reply) == 'string' and #reply or 0
  end
  local sum = 0
  for _, value in ipairs(reply) do
    sum = sum + (type(value) == 'string' and #value or 0)
  end
  return sum
end
local found = redis.pcall('GET', layout)
if found ~= ARGV[4] then
  return redis.error_reply('LAYOUT ' .. (type(found) == 'string' and found or ''))
end
local replies, at, sent = {{}}, 5, 0
for i = 1, tonumber(ARGV[5]) do
  if sent > {MAX_REPLY} then
    break
  end
  local count = tonumber(ARGV[at + 1])
  local ok, reply = pcall(transition, KEYS[{len(FIXED)} + i], unpack(ARGV, at + 2, at + 1 + count))
  if not ok and type(reply) == 'string' then
    reply = {{err = 'ERR ' .. reply}}
  end
  replies[i] = reply ~= nil and reply or false -- a hole would end the array
  sent = sent + bytes_of(reply)
  at = at + 1 + count
end
return replies
"""


class Batches(Protocol):
    """Runs scripts; `batches.ScriptBatches` satisfies it."""

    async def call(
        self, name: str, keys: PartitionKeys, record: str | None, arguments: Sequence[Value]
    ) -> Reply:
        """Return the reply of the script of that name."""
        ...


class _Runner(Protocol):
    """The class whose methods are scripts."""

    batches: Batches


S = TypeVar("S", bound=_Runner)
_Method = Callable[
    Concatenate[S, PartitionKeys, RunKey | None, P],
    Coroutine[Any, Any, Reply],
]


_COMMENT: Final = re.compile(r"(?:^|\s+)--[^\n]*", re.MULTILINE)


def _text(name: str) -> str:
    """Return a file without its comments, whose words would count as used names."""
    return _COMMENT.sub("", (_LUA / f"{name}.lua").read_text(encoding="utf-8"))


_LIBRARY: Final = "\n".join(
    (
        *map(_text, ("_partition", "_partials")),
        lua_codec(),
        *map(_text, ("_records", "_offers", "_revisions")),
        *map(_text, ("_order", "_settling", "_charges", "_queue")),
        *map(_text, ("_accounting", "_step_runs", "_ends", "_transitions", "_clock")),
        *map(_text, ("_providers", "_message_batches")),
    )
)
SOURCES: Final[dict[str, str]] = {}
"""The text of every script by its name, as far as `script` has bound them."""


_STATEMENT: Final = re.compile(r"^local (?:function )?([\w, ]+)", re.MULTILINE)
_NAME: Final = re.compile(r"[A-Za-z_]\w*")
_LEVEL: Final = 40
"""Variables that a function declares before the next one begins inside it."""
_MOST_TAKEN: Final = 60
"""Variables that a Lua function may take of those around it."""


def _needed(library: str, script: str) -> list[str]:
    """Return the statements of the library that a script uses, itself or by others.

    Redis runs a script's whole text at each call, and the whole library takes 25 µs.
    """
    starts = [match.start() for match in _STATEMENT.finditer(library)]
    kept: list[str] = []
    used = set(_NAME.findall(script))
    for start, end in reversed([*pairwise([*starts, len(library)])]):
        statement = library[start:end]
        if not used.isdisjoint(_declared(statement)):
            kept.append(statement)
            used.update(_NAME.findall(statement))
    return kept[::-1]


def _declared(statement: str) -> list[str]:
    """Return the names of the local variables that a statement declares."""
    found = _STATEMENT.match(statement)
    return _NAME.findall(found[1]) if found else []


def _nested(statements: Sequence[str], script: str) -> str:
    """Return the statements and the script, as functions inside each other.

    Lua looks for each variable that a new function takes of the function around it, one variable
    after the other. What is further out it finds at once, so 40 variables here take half the time
    of 190. A function may take 60 from further out.
    """
    later = set(_NAME.findall(script))
    used_from: list[set[str]] = []
    for statement in reversed(statements):
        later = later | set(_NAME.findall(statement))
        used_from.insert(0, later)
    parts: list[str] = []
    declared: set[str] = set()
    levels = here = 0
    for statement, used in zip(statements, used_from, strict=True):
        if here >= _LEVEL and len(declared & used) <= _MOST_TAKEN:
            parts.append("return (function()\n")
            levels, here = levels + 1, 0
        names = _declared(statement)
        declared.update(names)
        here += len(names)
        parts.append(statement)
    return "".join(parts) + script + "end)()\n" * levels


def _source(name: str, arguments: tuple[str, ...]) -> str:
    """Return a script's text. Raises TypeError for an argument that the script does not use."""
    body = _text(name)
    unused = [a for a in arguments if not re.search(rf"\b{a}\b", body)]
    if unused:
        raise TypeError(f"{name}.lua does not use {', '.join(unused)}")
    header = "#!lua\n" if name in _REFUSED_WHEN_FULL else "#!lua flags=allow-oom\n"
    parameters = ", ".join(("record", "member", *arguments, "..."))
    script = _FUNCTION.format(parameters=parameters, body=body) + _LOOP
    return header + _nested(_needed(_LIBRARY, script), script)


def script(method: _Method[S, P]) -> _Method[S, P]:
    """Replace a method's body, which only documents, by a call of the script of its name.

    Raises TypeError if the script does not use one of the method's keyword arguments.
    """
    name = method.__name__
    parameters = inspect.signature(method).parameters.values()
    arguments = tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
    SOURCES[name] = _source(name, arguments)

    @functools.wraps(method)
    async def call(
        self: S, keys: PartitionKeys, run: RunKey | None, *extra: P.args, **named: P.kwargs
    ) -> Reply:
        values = cast("list[Value]", [*map(named.__getitem__, arguments), *extra])
        if run is None:
            return await self.batches.call(name, keys, None, ["", *values])
        return await self.batches.call(name, keys, keys.record(run), [member(run), *values])

    return cast("_Method[S, P]", call)


def in_lua() -> Reply:
    """Stand for the body of a script's method, which `script` replaces."""
    raise AssertionError("a script's method was called without its decorator")
