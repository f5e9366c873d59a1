"""Fallbacks that cannot work, and requests that the service refuses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from headstart import PrecomputeClient
from tests.support.scripted_service import Fault, ScriptedService

LONG = 30.0
PATIENT = 20.0
"""A budget that a busy machine keeps."""


@pytest.fixture
async def client(service: ScriptedService) -> AsyncIterator[PrecomputeClient]:
    async with PrecomputeClient(service.address) as client:
        yield client


async def one() -> int:
    return 1


async def needs_b(b: int) -> int:
    return b


async def needs_a(a: int) -> int:
    return a


async def takes_wrods(wrods: int) -> int:
    return wrods


async def takes_any(*more: int) -> int:
    return len(more)


@pytest.mark.parametrize(
    ("fallback", "told"),
    [
        ({}, "at least one step"),
        ({"a": needs_b}, "'a'.*parameter 'b' must be one of its steps: a"),
        ({"a": needs_b, "b": needs_a}, "in a circle: (a -> b -> a|b -> a -> b)"),
        ({"a": takes_any}, "parameter 'more'"),
        ({"words": one, "first": takes_wrods}, "'wrods'.* words, first; did you mean 'words'"),
    ],
)
async def test_fallbacks_that_cannot_work_are_refused(
    fallback: Any, told: str, service: ScriptedService, client: PrecomputeClient
) -> None:
    with pytest.raises(ValueError, match=told):
        await client.get_or_compute("k", LONG, fallback)
    assert service.calls == []


async def test_what_is_no_async_function_is_refused(client: PrecomputeClient) -> None:
    with pytest.raises(TypeError, match=r"fallback\['a'\] must be a function"):
        await client.get_or_compute("k", LONG, {"a": 3})
    with pytest.raises(TypeError, match=r"fallback\['a'\] must be an async function"):
        await client.get_or_compute("k", LONG, {"a": lambda: 3}, budget=PATIENT)


@pytest.mark.parametrize("wrong", [{"deadline": 0}, {"deadline": float("nan")}, {"budget": -1}])
async def test_times_out_of_range_are_refused(wrong: Any, client: PrecomputeClient) -> None:
    [name] = wrong
    with pytest.raises(ValueError, match=f"{name} must be more than 0"):
        await client.get_or_compute("k", **{"deadline": 1.0, "fallback": {"a": one}} | wrong)


async def test_a_refusal_is_no_reason_to_fail(
    service: ScriptedService, client: PrecomputeClient
) -> None:
    service.on("GetResults", Fault(grpc.StatusCode.INVALID_ARGUMENT, violations=[("key", "no")]))
    for _ in range(5):
        got = await client.get_or_compute("k", LONG, {"a": one}, budget=PATIENT)
        assert got.reasons["a"].startswith("the service refused the request")
    assert len(service.seen("GetResults")) == 5
