"""ListPrecomputes: returns one page of the runs that are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from headstart.v1 import precompute_pb2 as pb

from ...domain import RunKey, Status
from ...domain.errors import Violation
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
        refuse(violations)
        return Page(request.namespace, wanted, after, size)

    async def handle(
        self, request: pb.ListPrecomputesRequest, _: Call
    ) -> pb.ListPrecomputesResponse:
        """Return the page, with the token of the next one if there is one."""
        page = self.parse(request)
        # One run more than fits the page proves that there is a next page.
        runs = await self._store.list(page.namespace, page.statuses, page.after, page.size + 1)
        response = pb.ListPrecomputesResponse()
        for summary in runs[: page.size]:
            fill_summary(response.precomputes.add(), summary)
        if len(runs) > page.size:
            response.next_page_token = page_token(runs[page.size - 1].key, self._partitions)
        return response


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
