"""ListPipelines: describes what can be started here, page by page."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.v1 import precompute_pb2 as pb

from ...domain.errors import Violation
from ..dependencies import Call, Dependencies
from ..messages import pipeline_description
from ..page_token import from_name_token, name_token
from ..request_rules import page_size, refuse


@dataclass(frozen=True, slots=True)
class PipelinesPage:
    """A valid question for up to `size` pipelines whose names are behind `after`."""

    after: str
    size: int


class ListPipelines:
    """Describes the pipelines of this process."""

    def __init__(self, api: Dependencies) -> None:
        self._registry = api.registry

    def parse(self, request: pb.ListPipelinesRequest) -> PipelinesPage:
        """Return the page that the request asks for. Raises InvalidRequest."""
        violations: list[Violation] = []
        size = page_size(request.page_size, violations)
        after = from_name_token(request.page_token, violations)
        refuse(violations)
        return PipelinesPage(after, size)

    async def handle(self, request: pb.ListPipelinesRequest, _: Call) -> pb.ListPipelinesResponse:
        """Return the page, with the token of the next one if there is one."""
        page = self.parse(request)
        found = sorted((p for p in self._registry if p.name > page.after), key=lambda p: p.name)
        response = pb.ListPipelinesResponse(
            pipelines=[pipeline_description(pipeline) for pipeline in found[: page.size]]
        )
        if len(found) > page.size:
            response.next_page_token = name_token(found[page.size - 1].name)
        return response
