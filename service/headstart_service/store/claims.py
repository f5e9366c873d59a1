"""Decodes what claim.lua returns of a run that a worker has taken."""

from __future__ import annotations

from ..domain import Claim, Job, Lease
from .batches import Reply
from .records import decode_items, decode_since, decode_step, is_items


def decode_claim(job: Job, attempt: int, reply: Reply) -> Claim:
    """Return the claim of a reply of claim.lua.

    Raises ValueError or LookupError for a damaged record.
    """
    revision, pipeline, inputs, at_us, *fields = reply
    if inputs is None:
        raise ValueError("no inputs")
    ended = {}
    trace, fresh, needed_us = "", False, 0
    items = {}
    since: dict[str, int] = {}
    awaited: frozenset[str] = frozenset()
    for field, value in zip(fields[::2], fields[1::2], strict=True):
        if field == b"fresh":
            fresh = True
            continue
        if field == b"trace":
            trace = value.decode(errors="replace")
            continue
        if field == b"need":
            needed_us = int(value)
            continue
        if is_items(field):
            items[field] = value
            continue
        if field == b"since":
            since = decode_since(value)
            continue
        if field == b"awaited":
            awaited = frozenset(value.decode().split(","))
            continue
        step = decode_step(field, value)
        if not step.state.ended:
            raise ValueError(f"{step.name} has not ended")
        ended[step.name] = step
    lease = Lease(job, attempt)
    return Claim(
        lease=lease,
        revision=revision,
        pipeline=pipeline.decode(),
        inputs=inputs,
        ended=ended,
        at_us=at_us,
        trace=trace,
        fresh=fresh,
        since=since,
        awaited=awaited,
        needed_us=needed_us,
        items=decode_items(items),
    )
