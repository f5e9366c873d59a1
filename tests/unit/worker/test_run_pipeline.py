"""`headstart.testing.run_pipeline`: what it runs as a worker would, and what it tells a test."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import traceback
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel, Field

from headstart import InvalidRequest, PrecomputeStatus, StepState
from headstart.testing import run_pipeline, run_pipeline_sync
from headstart_service.domain.errors import StepFailed
from headstart_service.pipeline.step import step
from tests.support.ledger import pipeline_of


class Text(BaseModel):
    text: str = Field(min_length=1)
    limit: int = 3


@step(required=True)
async def words(text: str, limit: int) -> Any:
    return tuple(text.split()[:limit])


@step()
async def lengths(words: Any) -> np.ndarray:
    return np.array([len(word) for word in words], dtype=np.float32)


@step()
async def kind(words: Any) -> str:
    return type(words).__name__


TEXT = pipeline_of(words, lengths, kind, name="text", inputs=Text)


async def test_values_are_given_on_as_a_store_gives_them_back():
    run = await run_pipeline(TEXT, {"text": "a bc def g"})
    assert (run.status, run.error) == (PrecomputeStatus.COMPLETED, None)
    assert run.values["words"] == ["a", "bc", "def"]
    assert run.values["lengths"].tolist() == [1, 2, 3]
    assert run.values["kind"] == "list"


async def test_inputs_can_be_an_instance_of_their_model():
    run = await run_pipeline(TEXT, Text(text="a b"))
    assert run.values["words"] == ["a", "b"]


async def test_steps_report_what_callers_of_the_service_receive():
    tries = []

    @step(max_attempts=3, backoff=0)
    async def flaky() -> str:
        tries.append(len(tries))
        if len(tries) < 3:
            raise StepFailed("not yet")
        return "ok"

    run = await run_pipeline(pipeline_of(flaky), {})
    report = run.steps["flaky"]
    assert (report.state, report.error, report.attempts) == (StepState.COMPLETED, None, 3)
    assert report.elapsed is not None
    assert timedelta(0) < report.elapsed < timedelta(seconds=60)
    assert run.exceptions == {}
    assert run.results.custom == {"flaky": "ok"}
    assert run.results.steps == run.steps


async def test_a_failed_step_has_its_exception_and_a_missing_value_why_it_is_missing():
    @step(required=True)
    async def broken() -> int:
        raise LookupError("the secret reason")

    @step()
    async def after(broken: int) -> int:
        return broken

    run = await run_pipeline(pipeline_of(broken, after), {})
    assert run.status is PrecomputeStatus.FAILED
    assert run.error is not None
    assert run.error.startswith("broken: internal error")
    assert isinstance(run.exceptions["broken"], LookupError)
    assert run.steps["after"].state is StepState.SKIPPED
    with pytest.raises(KeyError, match="step after has no value: skipped"):
        run.values["after"]
    with pytest.raises(KeyError, match="no step afterr; it has broken, after"):
        run.values["afterr"]


async def test_a_value_that_cannot_be_a_result_fails_its_step():
    @step()
    async def thing() -> object:
        return object()

    run = await run_pipeline(pipeline_of(thing), {})
    assert run.steps["thing"].state is StepState.FAILED
    assert run.steps["thing"].error == "returned object that holds object, which is not JSON"
    assert str(run.exceptions["thing"]) == run.steps["thing"].error


async def test_a_steps_own_timeout_is_kept():
    @step(timeout=0.02)
    async def slow() -> None:
        await asyncio.Event().wait()

    run = await run_pipeline(pipeline_of(slow), {})
    assert run.steps["slow"].error == "took longer than 0.02 s"


async def test_a_run_that_does_not_end_names_its_steps():
    @step(timeout=60)
    async def stuck() -> None:
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError, match=r"after 0\.05 s these steps had not ended: stuck"):
        await run_pipeline(pipeline_of(stuck), {}, timeout=0.05)


async def test_inputs_that_break_rules_are_named_as_the_service_names_them():
    with pytest.raises(InvalidRequest) as caught:
        await run_pipeline(TEXT, {"text": "", "limit": "many"})
    fields = [violation.field for violation in caught.value.violations]
    assert fields == ["custom.inputs.text", "custom.inputs.limit"]
    assert "".join(traceback.format_exception(caught.value)).count("Traceback") == 1
    with pytest.raises(InvalidRequest, match="there is 'txet': did you mean 'text'"):
        await run_pipeline(TEXT, {"txet": "a"})


async def test_inputs_that_are_not_json_are_refused():
    with pytest.raises(InvalidRequest, match=r"custom\.inputs\.text: must be what JSON can"):
        await run_pipeline(TEXT, {"text": object()})


class Doubler:
    def of(self, value: int) -> int:
        return value * 2


class Number(BaseModel):
    number: int = 1


@step()
async def doubled(number: int, doubler: Doubler) -> int:
    return doubler.of(number)


DOUBLED = pipeline_of(doubled, inputs=Number)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_PROVIDERS", f"doubler={__name__}:Doubler")


@pytest.mark.usefixtures("registered")
async def test_providers_are_what_the_test_gives():
    run = await run_pipeline(DOUBLED, {"number": 4}, providers={"doubler": Doubler()})
    assert run.values["doubled"] == 8


@pytest.mark.usefixtures("registered")
async def test_a_provider_that_is_missing_is_named_with_who_takes_it():
    with pytest.raises(ValueError, match="doubled takes the provider doubler; pass providers="):
        await run_pipeline(DOUBLED, {})


async def test_a_provider_that_no_worker_has_is_refused(monkeypatch: pytest.MonkeyPatch):
    given = {"doubler": Doubler()}
    with pytest.raises(ValueError, match="no worker has the provider doubler: register it by"):
        await run_pipeline(DOUBLED, {}, providers=given)
    with pytest.raises(ValueError, match="parameter doubler is no input, step or provider"):
        await run_pipeline(DOUBLED, {})
    monkeypatch.setenv("HEADSTART_PROVIDERS", f"number={__name__}:Doubler")
    with pytest.raises(ValueError, match="number is both an input and a provider"):
        await run_pipeline(DOUBLED, {})


@pytest.mark.usefixtures("registered")
async def test_a_provider_that_no_step_takes_is_a_mistake():
    with pytest.raises(ValueError, match="no step takes the provider dubbler; its steps take doub"):
        await run_pipeline(DOUBLED, {}, providers={"doubler": Doubler(), "dubbler": Doubler()})


async def test_what_is_no_pipeline_is_reported():
    with pytest.raises(TypeError, match="runs a Pipeline, not Step"):
        await run_pipeline(words, {})


def test_a_test_that_is_not_async_runs_one_too():
    assert run_pipeline_sync(TEXT, {"text": "a"}).values["words"] == ["a"]


def test_without_the_service_the_error_names_what_to_install():
    code = (
        "import sys; sys.modules['pydantic'] = None; import headstart.testing as t;"
        "t.run_pipeline_sync(None, {})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: running pipelines needs the service: pip install '.[server]'" in (
        done.stderr
    )
