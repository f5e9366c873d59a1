"""The Lua scripts as typed Python methods. Each is one atomic transition of one partition.

A method's signature is its script's: the keyword arguments become local variables of their names
in the script, as do `record` and `member` where a run's key is given. So a script and its callers
cannot disagree about positions, and a name that a script does not use fails when this is imported.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Coroutine
from importlib.resources import files
from typing import Any, Concatenate, ParamSpec, Protocol, cast

from ..domain import RunKey
from .keys import GROUP, PartitionKeys, member

P = ParamSpec("P")
_LUA = files(__package__) / "lua"
_LIBRARY = (_LUA / "_lib.lua").read_text()
_COMMON = ("channel", "record_prefix", "group")

Reply = list[Any]


_Method = Callable[
    Concatenate["Scripts", PartitionKeys, RunKey | None, P], Coroutine[Any, Any, Reply]
]


class _Script(Protocol):
    async def __call__(self, keys: list[str], args: list[Any]) -> Any: ...


class _ScriptClient(Protocol):
    def register_script(self, script: str) -> _Script: ...


def _source(name: str, arguments: tuple[str, ...]) -> str:
    """The script's text behind the locals that name its keys and arguments."""
    body = (_LUA / f"{name}.lua").read_text()
    unused = [a for a in arguments if not re.search(rf"\b{a}\b", body)]
    if unused:
        raise TypeError(f"{name}.lua does not use {', '.join(unused)}")
    names = (*_COMMON, "member", *arguments)
    values = ", ".join(f"ARGV[{i}]" for i in range(1, len(names) + 1))
    locals_ = f"local {', '.join(names)} = {values}\n"
    # With its memory full, Redis refuses a start before it has done anything; the rest may go on.
    header = "#!lua\n" if name == "start" else "#!lua flags=allow-oom\n"
    extra = f"local first_extra, record = {len(names) + 1}, KEYS[10]\n"
    return f"{header}{locals_}{extra}{_LIBRARY}\n{body}"


_SOURCES: dict[str, str] = {}


def _lua(method: _Method[P]) -> _Method[P]:
    """Run the script of the method's name in place of its body, which only documents."""
    parameters = inspect.signature(method).parameters.values()
    arguments = tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
    _SOURCES[method.__name__] = _source(method.__name__, arguments)

    @functools.wraps(method)
    async def call(
        self: Scripts, keys: PartitionKeys, run: RunKey | None, *extra: P.args, **named: P.kwargs
    ) -> Reply:
        all_keys = list(keys.fixed)
        if run is not None:
            all_keys.append(keys.record(run))
        values = [named[name] for name in arguments]
        common = [keys.events, keys.record_prefix, GROUP, member(run) if run else ""]
        script = self.registered[method.__name__]
        reply: Reply = await script(all_keys, [*common, *values, *extra])
        return reply

    return cast("_Method[P]", call)


def _in_lua() -> Reply:
    """The body of every script's method: the decorator runs the script instead."""
    raise AssertionError("a script's method was called without its decorator")


class Scripts:
    """Every script, ready to run on one client."""

    def __init__(self, client: _ScriptClient) -> None:
        self.registered = {n: client.register_script(text) for n, text in _SOURCES.items()}

    @_lua
    async def start(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *,
        pipeline: str,
        digest: str,
        steps: str,
        inputs: bytes,
        ttl_us: int,
        patience_us: int,
        restart: int,
        max_records: int,
    ) -> Reply:
        """Decide STARTED, JOINED, REUSED or REPLACED, make room, write, index and queue."""
        return _in_lua()

    @_lua
    async def claim(
        self,
        keys: PartitionKeys,
        run: RunKey | None,
        *,
        run_id: str,
        entry: str,
        worker: str,
        max_tries: int,
        patience_us: int,
        failure_ttl_us: int,
    ) -> Reply:
        """Take a delivered job's run, raising its attempt; or drop the job; or fail the run."""
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
        end_status: str,
        error: str,
        failure_ttl_us: int,
    ) -> Reply:
        """Keep ended steps, show running ones and, with an end status, end the run. Fenced."""
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
        self, keys: PartitionKeys, run: RunKey | None, *, failure_ttl_us: int
    ) -> Reply:
        """End a live run as cancelled."""
        return _in_lua()

    @_lua
    async def read(self, keys: PartitionKeys, run: RunKey | None, *, mark: str) -> Reply:
        """Read a run at one moment; with mark "read" note that its result was read."""
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
        self, keys: PartitionKeys, run: RunKey | None, *, low: str | bytes, high: str | bytes
    ) -> Reply:
        """Counts by status in a range of member names, and the jobs not yet delivered."""
        return _in_lua()

    @_lua
    async def sweep(self, keys: PartitionKeys, run: RunKey | None) -> Reply:
        """Forget what has expired."""
        return _in_lua()
