"""The Lua scripts as typed Python methods. Each call is one atomic transition of one partition.

A method's signature is its script's: the keyword arguments become parameters of their names in the
script's function, behind `record` and `member`, which name the run that a call is about. So a
script and its callers cannot disagree about positions, and a name that a script does not use fails
when this is imported.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Coroutine, Sequence
from importlib.resources import files
from typing import Any, Concatenate, ParamSpec, Protocol, cast

from ..domain import RunKey
from .batches import MAX_REPLY, Reply, Value
from .keys import FIXED, PartitionKeys, member

P = ParamSpec("P")
_LUA = files(__package__) / "lua"
_LIBRARY = (_LUA / "_lib.lua").read_text()
_FUNCTION = """
local function transition({parameters})
{body}
end
"""
# A caller that was made for another layout is refused before anything happens: see `layout`.
# The keyword arguments, then the rest. An error is the reply to its own call alone. Calls behind
# large replies are left for the next batch, so that none waits for the megabytes of others.
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

_Method = Callable[
    Concatenate["Scripts", PartitionKeys, RunKey | None, P], Coroutine[Any, Any, Reply]
]


class Batches(Protocol):
    """Who runs scripts: `batches.ScriptBatches`."""

    async def call(
        self, name: str, keys: PartitionKeys, record: str | None, arguments: Sequence[Value]
    ) -> Reply:
        """The reply of the script of that name."""
        ...


def _source(name: str, arguments: tuple[str, ...]) -> str:
    """The script's text: the library, the transition as a function, a loop over a batch's calls."""
    body = (_LUA / f"{name}.lua").read_text()
    unused = [a for a in arguments if not re.search(rf"\b{a}\b", body)]
    if unused:
        raise TypeError(f"{name}.lua does not use {', '.join(unused)}")
    # With its memory full, Redis refuses a start, and a memo, before it has done anything; the
    # rest may go on. A ping finds out that it is full.
    full = name in {"start", "memorise", "ping"}
    header = "#!lua\n" if full else "#!lua flags=allow-oom\n"
    parameters = ", ".join(("record", "member", *arguments, "..."))
    return header + _LIBRARY + _FUNCTION.format(parameters=parameters, body=body) + _LOOP


SOURCES: dict[str, str] = {}
"""Every script's text by its name."""


def _lua(method: _Method[P]) -> _Method[P]:
    """Run the script of the method's name in place of its body, which only documents."""
    name = method.__name__
    parameters = inspect.signature(method).parameters.values()
    arguments = tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
    SOURCES[name] = _source(name, arguments)

    @functools.wraps(method)
    async def call(
        self: Scripts, keys: PartitionKeys, run: RunKey | None, *extra: P.args, **named: P.kwargs
    ) -> Reply:
        values = cast("list[Value]", [*(named[argument] for argument in arguments), *extra])
        record = None if run is None else keys.record(run)
        about = "" if run is None else member(run)
        return await self.batches.call(name, keys, record, [about, *values])

    return cast("_Method[P]", call)


def _in_lua() -> Reply:
    """The body of every script's method: the decorator runs the script instead."""
    raise AssertionError("a script's method was called without its decorator")


class Scripts:
    """Every script, ready to run."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    @_lua
    async def start(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *trace: str,
        run_id: str,
        pipeline: str,
        definition: str,
        digest: str,
        steps: str,
        inputs: bytes,
        ttl_us: int,
        patience_us: int,
        failure_ttl_us: int,
        need_us: int,
        expected: str,
        restart: int,
        request_id: str,
        max_records: int,
        max_live: int,
        namespace_max: int,
    ) -> Reply:
        """Decide STARTED, JOINED, REUSED or REPLACED, make room, write, index and queue."""
        return _in_lua()

    @_lua
    async def claim(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *,
        entry: str,
        worker: str,
        token: str,
        offering: str,
        alone: int,
        max_tries: int,
        lost: str,
        patience_us: int,
        failure_ttl_us: int,
        expected: str,
    ) -> Reply:
        """Take a delivered job's run, raising its attempt; or drop the job; or fail the run."""
        return _in_lua()

    @_lua
    async def offer(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *,
        worker: str,
        offering: str,
        ttl_us: int,
    ) -> Reply:
        """Note which pipelines a worker offers; count the runs that were left for its like."""
        return _in_lua()

    @_lua
    async def take_unserved(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *,
        worker: str,
        offering: str,
        limit: int,
    ) -> Reply:
        """Deliver jobs for runs that were left for workers which offer their class."""
        return _in_lua()

    @_lua
    async def orphans(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *,
        process: str,
        classes: str,
        ttl_us: int,
        limit: int,
    ) -> Reply:
        """Note which classes of runs an API process starts; find those that are nobody's."""
        return _in_lua()

    @_lua
    async def adopt(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *,
        run_id: str,
        definition: str,
        digest: str,
        steps: str,
        inputs: bytes,
    ) -> Reply:
        """Queue a pending run that nobody serves by another plan of its inputs."""
        return _in_lua()

    @_lua
    async def drop(self, keys: PartitionKeys, run: RunKey | None, *, entry: str | bytes) -> Reply:
        """Take a delivered job off the queue."""
        return _in_lua()

    @_lua
    async def commit(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *fields: str | bytes,
        run_id: str,
        attempt: int,
        entry: str,
        ended_steps: str,
        work: str,
        end_status: str,
        error_text: str,
        failure_ttl_us: int,
    ) -> Reply:
        """Keep ended steps, show running ones and, with an end status, end the run. Fenced.

        Nothing of it where a caller has reported one of these steps.
        """
        return _in_lua()

    @_lua
    async def renew(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *,
        run_id: str,
        attempt: int,
        entry: str,
        worker: str,
        patience_us: int,
    ) -> Reply:
        """Reset the job's idle time and the record's expiry. Fenced."""
        return _in_lua()

    @_lua
    async def release(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *,
        run_id: str,
        attempt: int,
        entry: str,
    ) -> Reply:
        """Put an unfinished run back into the queue, uncounted. Fenced."""
        return _in_lua()

    @_lua
    async def prepare(self, keys: PartitionKeys, run: RunKey | None, *, idle_ms: int) -> Reply:
        """Create the consumer group, and remove consumers that went without leaving."""
        return _in_lua()

    @_lua
    async def leave(self, keys: PartitionKeys, run: RunKey | None, *, worker: str) -> Reply:
        """Put a worker's jobs back into the queue and take it off the group."""
        return _in_lua()

    @_lua
    async def cancel(
        self, keys: PartitionKeys, run: RunKey | None, *, revision: int, failure_ttl_us: int
    ) -> Reply:
        """End a live run as cancelled, if it has this revision; 0 is any."""
        return _in_lua()

    @_lua
    async def report(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *needs: str,
        run_id: str,
        revision: int,
        runs_class: str,
        step: str,
        value: bytes,
    ) -> Reply:
        """Keep a step's result that a caller has computed, if the run still wants it."""
        return _in_lua()

    @_lua
    async def read(
        self, keys: PartitionKeys, run: RunKey | None, *, waits: int, large: int
    ) -> Reply:
        """Read a run at one moment, note that its result was read, and that a caller waits.

        Of a record of `large` bytes or more only its size and its line are read.
        """
        return _in_lua()

    @_lua
    async def peek(self, keys: PartitionKeys, run: RunKey | None, *, largest: int) -> Reply:
        """Read a run at one moment; nothing changes. At most `largest` bytes, 0 for no limit."""
        return _in_lua()

    @_lua
    async def status(self, keys: PartitionKeys, run: RunKey | None) -> Reply:
        """A run without its results."""
        return _in_lua()

    @_lua
    async def list(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *statuses: str,
        low: str | bytes,
        high: str | bytes,
        limit: int,
    ) -> Reply:
        """One page of runs in a range of member names."""
        return _in_lua()

    @_lua
    async def stats(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *,
        low: str | bytes,
        high: str | bytes,
        book: str,
    ) -> Reply:
        """Counts by status in a range of member names, undelivered jobs, and the ledger's sums."""
        return _in_lua()

    @_lua
    async def beat(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *,
        roster: str,
        worker: str,
        about: str,
        ttl_us: int,
    ) -> Reply:
        """Note what a worker says of itself, and forget those that are overdue."""
        return _in_lua()

    @_lua
    async def crew(
        self, keys: PartitionKeys, run: RunKey | None, *, roster: str, limit: int
    ) -> Reply:
        """What the workers that are not overdue say of themselves."""
        return _in_lua()

    @_lua
    async def recall(
        self, keys: PartitionKeys, run: RunKey | None, *, entry: str, index: str, name: str
    ) -> Reply:
        """Read a memo, and note that it was used."""
        return _in_lua()

    @_lua
    async def memorise(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *,
        entry: str,
        index: str,
        name: str,
        prefix: str,
        value: bytes,
        ttl_ms: int,
        limit: int,
    ) -> Reply:
        """Keep a memo, and drop those that were used longest ago if there are too many."""
        return _in_lua()

    @_lua
    async def move_out(self, keys: PartitionKeys, run: RunKey | None) -> Reply:
        """Read all that a partition holds of a run, for a move to another."""
        return _in_lua()

    @_lua
    async def move_in(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *fields: bytes,
        score: bytes,
        unread_since: bytes,
        read_since: bytes,
        line: bytes,
    ) -> Reply:
        """Write a run that `move_out` has read, as this partition's own."""
        return _in_lua()

    @_lua
    async def move_off(self, keys: PartitionKeys, run: RunKey | None) -> Reply:
        """Remove a run that another partition has now."""
        return _in_lua()

    @_lua
    async def move_sums(self, keys: PartitionKeys, run: RunKey | None) -> Reply:
        """Read the ledger of a partition that is given up."""
        return _in_lua()

    @_lua
    async def move_sums_in(
        self, keys: PartitionKeys, run: RunKey | None, *sums: bytes, mark: str
    ) -> Reply:
        """Add sums of another partition's ledger, once for each `mark`."""
        return _in_lua()

    @_lua
    async def move_end(
        self, keys: PartitionKeys, run: RunKey | None, *, kept: int, final: str
    ) -> Reply:
        """Leave a partition in its new layout, or give it up."""
        return _in_lua()

    @_lua
    async def ping(self, keys: PartitionKeys, run: RunKey | None) -> Reply:
        """Whether a script that may write, and use more memory, is accepted."""
        return _in_lua()

    @_lua
    async def reindex(
        self, keys: PartitionKeys, run: RunKey | None, *, index: str, cursor: str | bytes
    ) -> Reply:
        """Mend a part of the indexes beside the records."""
        return _in_lua()

    @_lua
    async def sweep(self, keys: PartitionKeys, run: RunKey | None) -> Reply:
        """Forget what has expired; compare the indexes; bring tickets that are missing."""
        return _in_lua()
