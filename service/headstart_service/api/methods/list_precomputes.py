"""ListPrecomputes: returns one page of the runs that are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from headstart.v1 import precompute_pb2 as pb

from ...domain import MAX_KEY_BYTES, RunKey, Status, has_control_characters
from ...domain.errors import Violation
from ...pipeline.pipeline import NAME
from ..dependencies import Call, Dependencies
from ..messages import STATUS, fill_summary
from ..page_token import from_page_token, page_token
from ..request_rules import listed_namespace_violations, page_size, refuse, repeated_violations

_FROM_STATUS: Final = {number: status for status, number in STATUS.items()}


@dataclass(frozen=True, slots=True)
class Page:
    """A valid question for up to `size` runs behind `after`; no namespace means all."""

    namespace: str
    statuses: Sequence[Status]
    after: RunKey | None
    size: int
    key_prefix: str
    """Only keys that begin so; empty for all."""
    pipeline: str
    """Only runs of this pipeline; empty for all."""


class ListPrecomputes:
    """Lists runs of the store."""

    def __init__(self, api: Dependencies) -> None:
        self._store, self._partitions = api.store, api.rules.partitions

    def parse(self, request: pb.ListPrecomputesRequest) -> Page:
        """Return the page that the request asks for. Raises InvalidRequest."""
        violations = listed_namespace_violations(request.namespace)
        size = page_size(request.page_size, violations)
        after = from_page_token(request.page_token, self._partitions, violations)
        wanted = statuses(request.statuses, violations)
        violations += key_prefix_violations(request.namespace, request.key_prefix)
        violations += pipeline_violations(request.pipeline)
        refuse(violations)
        return Page(request.namespace, wanted, after, size, request.key_prefix, request.pipeline)

    async def handle(
        self, request: pb.ListPrecomputesRequest, _: Call
    ) -> pb.ListPrecomputesResponse:
        """Return the page, with the token of the next one if there is one."""
        page = self.parse(request)
        found = await self._store.page(
            page.namespace,
            page.statuses,
            page.after,
            page.size,
            key_prefix=page.key_prefix,
            pipeline=page.pipeline,
        )
        response = pb.ListPrecomputesResponse()
        for summary in found.runs:
            fill_summary(response.precomputes.add(), summary)
        if found.after is not None:
            response.next_page_token = page_token(found.after, self._partitions)
        return response


def key_prefix_violations(namespace: str, prefix: str) -> list[Violation]:
    """Return the rules that a prefix of keys breaks; an empty one means all keys."""
    found = []
    if prefix and not namespace:
        found.append(Violation("key_prefix", "needs a namespace"))
    if (size := len(prefix.encode())) > MAX_KEY_BYTES:
        found.append(Violation("key_prefix", f"must be at most {MAX_KEY_BYTES} bytes, is {size}"))
    elif has_control_characters(prefix):
        found.append(Violation("key_prefix", "must not contain control characters"))
    return found


def pipeline_violations(name: str) -> list[Violation]:
    """Return the rule that a pipeline's name breaks; an empty one means all pipelines."""
    if not name or NAME.fullmatch(name):
        return []
    return [Violation("pipeline", "is no name that a pipeline can have")]


def statuses(numbers: Sequence[int], into: list[Violation]) -> list[Status]:
    """Return the statuses that a list is limited to; none given means all.

    Append what is wrong with them to `into`.
    """
    if too_many := repeated_violations("statuses", numbers):
        into += too_many
        return []
    found = []
    for i, number in enumerate(numbers):
        if number in _FROM_STATUS:
            found.append(_FROM_STATUS[pb.PrecomputeStatus.ValueType(number)])
        else:
            into.append(Violation(f"statuses[{i}]", f"is no status: {number}"))
    return list(dict.fromkeys(found)) or list(Status)
