"""What log lines say for machines beside their message: `log.info("…", extra=fields(…))`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from . import Claim, RunKey

FIELDS: Final = "headstart_fields"
"""The attribute of a log record that holds them."""


def fields(event: str = "", key: RunKey | None = None, **more: Any) -> Mapping[str, Any]:
    """What `extra` takes: the event's name, the run it is about, and further fields by name."""
    attributes: dict[str, Any] = {"event": event} if event else {}
    if key is not None:
        attributes |= {"namespace": key.namespace, "key": key.key}
    return {FIELDS: attributes | more}


def of_claim(claim: Claim, worker: str) -> Mapping[str, Any]:
    """The fields of every line about a claimed run."""
    lease = claim.lease
    return {
        "namespace": lease.job.key.namespace,
        "key": lease.job.key.key,
        "run": lease.job.run,
        "revision": claim.revision,
        "attempt": lease.attempt,
        "worker": worker,
        "pipeline": claim.pipeline,
    }
