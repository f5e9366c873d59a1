"""A real worker with two language models: that of its settings, and one that a pipeline names."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart.v1 import precompute_pb2 as pb
from tests.support import processes
from tests.support.commands import run_here
from tests.support.completions_api import CompletionsApi, chunks
from tests.support.messages_api import MessagesApi, Reply
from tests.support.processes import Service, stub
from tests.support.provider_pipelines import TWO_MODELS
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

ONLY = {"HEADSTART_BRIDGING": "false", "HEADSTART_PIPELINES": TWO_MODELS}


@pytest.fixture
def messages() -> Iterator[MessagesApi]:
    with MessagesApi() as api:
        yield api


@pytest.fixture
def completions() -> Iterator[CompletionsApi]:
    with CompletionsApi() as api:
        yield api


async def started(service: Service, key: str, pipeline: str) -> None:
    spec = pb.CustomSpec(pipeline=pipeline)
    await service.StartPrecompute(pb.StartPrecomputeRequest(key=key, custom=spec))


async def played(service: Service, key: str, pipeline: str) -> pb.StepReport:
    await started(service, key, pipeline)
    request = pb.GetResultsRequest(key=key)
    request.wait.FromSeconds(30)
    return (await service.GetResults(request)).steps[pipeline]


async def test_each_pipeline_has_its_model_with_permits_and_accounts_of_its_own(
    valkey: Valkey, messages: MessagesApi, completions: CompletionsApi, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("a-key-of-a-file\n")
    own = {
        "ANTHROPIC_API_KEY_FILE": str(key),
        "ANTHROPIC_BASE_URL": messages.url,
        "OPENAI_BASE_URL": completions.url,
    }
    async with (
        processes.api(valkey.url, **ONLY) as (_, address),
        stub(address) as service,
        processes.worker(valkey.url, **ONLY, **own) as worker,
    ):
        await wait_until(lambda: messages.lookups and completions.lookups)
        usage = {"input_tokens": 5, "output_tokens": 1, "cache_read_input_tokens": 90}
        messages.script(Reply.text('{"clues": ["mist"]}', usage=usage))
        assert (await played(service, "a", "patient")).state == pb.STEP_STATE_COMPLETED
        assert (await played(service, "b", "speaking")).state == pb.STEP_STATE_COMPLETED
        assert messages.requests[0].key == "a-key-of-a-file"
        assert completions.requests[0].body["model"] == "org/small"

        async def accounted() -> bool:
            stats = await service.GetStats(pb.GetStatsRequest())
            names = [each.name for each in stats.providers]
            assert set(names) <= {"anthropic/claude-haiku-5-5", "openai/org/small"}
            return len(names) == 2 and stats.ledger.llm_cached_tokens == 90

        await wait_until(accounted)
        own_books = await service.GetStats(pb.GetStatsRequest(namespace="default"))
        assert own_books.ledger.llm_cached_tokens == 90

        completions.script(chunks(["a", "b"], pause=60))
        await started(service, "c", "speaking")
        await wait_until(lambda: len(completions.requests) == 2)
        await service.CancelPrecompute(pb.CancelPrecomputeRequest(key="c"))
        await wait_until(lambda: completions.left_at)
        worker.send(signal.SIGTERM)
        assert await worker.ended() == 0


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"HEADSTART_LANGUAGE_MODEL": "gpt-5"}, "must be anthropic:MODEL or openai:MODEL"),
        (
            {"OPENAI_API_KEY": "k", "OPENAI_API_KEY_FILE": "/no/file"},
            "OPENAI_API_KEY_FILE: OPENAI_API_KEY is set too: set one of them",
        ),
        ({"OPENAI_API_KEY_FILE": "/no/file"}, "OPENAI_API_KEY_FILE: cannot read /no/file: No such"),
        ({"OPENAI_BASE_URL": "nowhere"}, "OPENAI_BASE_URL: must be a URL"),
    ],
)
def test_a_wrong_setting_of_a_model_is_refused(environment: dict[str, str], said: str) -> None:
    code, printed = run_here("check-config", **environment)
    assert code != 0
    assert said in printed
