"""The pages of lists, as `headstart.testing.fake_server` answers them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from headstart._fake import checks
from headstart._fake.runs import FakeRun, status_number
from headstart._fake.script import Script
from headstart.v1 import precompute_pb2 as pb


def runs_page(
    request: pb.ListPrecomputesRequest, kept: Iterable[FakeRun]
) -> pb.ListPrecomputesResponse:
    """Return one page of the runs that are kept, in their order. Raises InvalidRequest."""
    size, after = checks.page_of(request)
    now, answer = time.monotonic(), pb.ListPrecomputesResponse()
    for run in kept:
        status = status_number(run.status(now))
        behind = after is None or (run.namespace, run.key) > after
        if not behind or (request.statuses and status not in request.statuses):
            continue
        if not run.key.startswith(request.key_prefix):
            continue
        if request.pipeline not in {"", run.pipeline}:
            continue
        if len(answer.precomputes) == size:
            last = answer.precomputes[-1]
            answer.next_page_token = checks.page_token(last.namespace, last.key)
            break
        run.fill(answer.precomputes.add(), now)
    return answer


def pipelines_page(
    request: pb.ListPipelinesRequest, scripts: Mapping[tuple[str | None, str | None], Script]
) -> pb.ListPipelinesResponse:
    """Return one page of the pipelines that were scripted by name. Raises InvalidRequest."""
    size, after = checks.pipelines_page_of(request)
    answer = pb.ListPipelinesResponse()
    named = {name: script for (_key, name), script in scripts.items() if name is not None}
    for name, script in sorted(named.items()):
        if name > after:
            if len(answer.pipelines) == size:
                answer.next_page_token = checks.name_token(answer.pipelines[-1].name)
                break
            # A function returns its steps only for given inputs.
            description = answer.pipelines.add(name=name, version="fake")
            if callable(script.results):
                continue
            for step in script.steps(script.results, {}):
                description.steps.add(
                    name=step,
                    needs=script.needs.get(step, ()),
                    max_attempts=1,
                    runs_on=pb.EXECUTOR_KIND_LOOP,
                    pool="default",
                )
    return answer
