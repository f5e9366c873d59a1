"""ListPipelines: describes what can be started here."""

from __future__ import annotations

from headstart.v1 import precompute_pb2 as pb

from ..dependencies import Call, Dependencies
from ..messages import pipeline_description


class ListPipelines:
    """Describes the pipelines of this process."""

    def __init__(self, api: Dependencies) -> None:
        self._registry = api.registry

    def parse(self, _: pb.ListPipelinesRequest) -> None:
        """Accept every request: it has no fields."""

    async def handle(self, _: pb.ListPipelinesRequest, __: Call) -> pb.ListPipelinesResponse:
        """Return every pipeline, in the registry's order."""
        described = [pipeline_description(pipeline) for pipeline in self._registry]
        return pb.ListPipelinesResponse(pipelines=described)
