"""What log lines say for machines beside their message: `log.info("…", extra=fields(…))`.

Lines that are written inside of a run or a step have its fields, too: `with inside(…)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from . import Claim, RunKey

FIELDS: Final = "headstart_fields"
"""The attribute of a log record that holds them."""


def fields(event: str = "", key: RunKey | None = None, **more: Any) -> Mapping[str, Any]:
    """What `extra` takes: the event's name, the run it is about, and further fields by name."""
    attributes: dict[str, Any] = {"event": event} if event else {}
    if key is not None:
        attributes |= _of_key(key)
    return {FIELDS: attributes | more}


_INSIDE: ContextVar[Mapping[str, Any]] = ContextVar("headstart_log_fields", default={})  # noqa: B039  # never changed


@contextmanager
def inside(fields: Mapping[str, Any]) -> Iterator[None]:
    """Give every line that is written in this context, by this task, these fields too."""
    token = _INSIDE.set({**_INSIDE.get(), **fields})
    try:
        yield
    finally:
        _INSIDE.reset(token)


def around() -> Mapping[str, Any]:
    """Return the fields of the context that this is called in."""
    return _INSIDE.get()


def of_claim(claim: Claim, worker: str) -> Mapping[str, Any]:
    """The fields of every line about a claimed run."""
    lease = claim.lease
    return {
        **_of_key(lease.job.key),
        "run": lease.job.run,
        "revision": claim.revision,
        "attempt": lease.attempt,
        "worker": worker,
        "pipeline": claim.pipeline,
    }


def _of_key(key: RunKey) -> dict[str, Any]:
    """Return a run's names; of a step run, those of its run and the step."""
    found = {"namespace": key.namespace, "key": key.owner.key}
    return found | {"step": key.step} if key.step else found
