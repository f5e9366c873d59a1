"""Repeated calls of a provider, on a virtual clock."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from headstart_service.domain import CallOutcome
from headstart_service.domain.errors import StepFailed
from headstart_service.providers import governor as governor_module
from headstart_service.providers import model_request, permit, retries
from headstart_service.providers.governor import Governor, GovernorRules
from headstart_service.providers.local_permits import LocalPermits
from headstart_service.providers.model_request import ModelRequest, status_failure
from headstart_service.providers.permit import Permit
from headstart_service.providers.retries import backoff, with_retries
from tests.support.virtual_time import loop_time, run_virtually


@pytest.fixture(autouse=True)
def one_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(monotonic=loop_time, perf_counter=loop_time, time=loop_time)
    for each in (governor_module, permit, retries, model_request):
        monkeypatch.setattr(each, "time", module)


def tried(*answers: int, patience: float = 60.0, retry_after: str = "") -> tuple[str, int, float]:
    """Call an API that answers so, the last for ever. Returns the end, the tries and the seconds."""

    async def main() -> tuple[str, int, float]:
        left = list(answers)
        request = ModelRequest("the Anthropic API", 0.0, patience, whole=patience)
        permits = LocalPermits(loop_time)
        governor = Governor("p", "the API", permits, GovernorRules(lease=60))

        async def attempt(permit: Permit) -> str:
            await asyncio.sleep(0.1)
            status = left.pop(0) if len(left) > 1 else left[0]
            if status == 200:
                permit.settle(CallOutcome.ANSWERED, "answered")
                return "answered"
            request.note_status(status, {"retry-after": retry_after})
            raise status_failure(request)

        try:
            end = await with_retries(governor, request, attempt, lambda: status_failure(request))
        except StepFailed as failed:
            end = str(failed)
        await governor.aclose()
        return end, request.tries, loop_time()

    return run_virtually(main())


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503, 529])
def test_what_may_pass_is_tried_again(status: int) -> None:
    assert tried(status, status, 200)[:2] == ("answered", 3)


@pytest.mark.parametrize("status", [400, 401, 404, 413])
def test_what_stays_wrong_is_tried_once(status: int) -> None:
    end, tries, _ = tried(status, 200)
    assert end.startswith(f"the Anthropic API answered {status}")
    assert tries == 1


def test_an_api_that_always_refuses_gets_few_calls_until_the_time_is_over() -> None:
    end, tries, took = tried(429)
    assert end == "the Anthropic API answered 429 (rate limited)"
    assert 5 <= tries <= 12
    assert 20 <= took <= 90


def test_a_wait_that_the_provider_asks_for_is_made_and_a_longer_one_ends_the_call() -> None:
    assert tried(429, 200, retry_after="7")[2] == pytest.approx(7.2, abs=2)
    end, tries, took = tried(429, 200, retry_after="70")
    assert tries == 1
    assert "retry after 70 s" in end
    assert took < 1


def test_pauses_double_up_to_a_bound_and_are_spread() -> None:
    for tries, most in ((1, 0.5), (2, 1.0), (4, 4.0), (9, 10.0), (90, 10.0)):
        found = [backoff(tries) for _ in range(200)]
        assert all(0 <= pause <= most for pause in found)
        assert max(found) - min(found) > most / 2
