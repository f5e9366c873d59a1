"""Every argument of every public method: of a wrong type it is an error that names it, at once."""

from __future__ import annotations

import inspect
import math
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from headstart import BlockingClient, InvalidRequest, NotFound, PrecomputeClient, Start, Tls
from headstart.v1 import precompute_pb2 as pb
from tests.unit.client.messages import STARTED, run

ID = UUID(int=7)
SECONDS = "seconds (int or float) or a timedelta"
TEXTS = "a list or another iterable of str"
MAPPING = "a mapping of {}, not {}"


async def _compute() -> int:
    return 1


# By method, arguments that are right.
RIGHT: dict[str, dict[str, Any]] = {
    "start_bridging": {"key": "k", "anchor": "ocean", "target": "forest"},
    "start_bridging_or_skip": {"key": "k", "anchor": "ocean", "target": "forest"},
    "start": {"key": "k", "pipeline": "text", "inputs": {}},
    "start_or_skip": {"key": "k", "pipeline": "text", "inputs": {}},
    "start_many": {"starts": [Start("k", "text", {})]},
    "get_results": {"key": "k"},
    "get_many": {"keys": ["k"]},
    "watch_results": {"key": "k"},
    "stream": {"key": "k", "step": "a"},
    "watch_many": {"keys": ["k"]},
    "get_status": {"key": "k"},
    "cancel": {"key": "k"},
    "delete": {"key": "k"},
    "touch": {"key": "k"},
    "create_run_token": {"key": "k"},
    "list": {},
    "list_page": {},
    "list_pipelines": {},
    "get_stats": {},
    "get_or_compute": {"key": "k", "deadline": 5.0, "fallback": {"a": _compute}},
    "connect": {},
    "close": {},
}

# By parameter, wrong values and what the error says after the parameter's name.
WRONG: dict[str, list[tuple[Any, str]]] = {
    "key": [
        (ID, " must be a str, not UUID: pass str(key)"),
        (7, " must be a str, not int: pass str(key)"),
        (None, " must be a str, not None"),
        (b"k", " must be a str, not bytes"),
    ],
    "step": [(None, " must be a str, not None"), (["a"], " must be a str, not list")],
    "anchor": [(None, " must be a str, not None"), (["ocean"], " must be a str, not list")],
    "target": [(b"x", " must be a str, not bytes")],
    "recipient_type": [
        (
            7,
            " must be 'human', 'haiku', or an enumeration's member with such a value, not int",
        )
    ],
    "clue_count": [("5", " must be an int or None, not str"), (True, " must be an int or None")],
    "null_sample_count": [(2.0, " must be an int or None, not float")],
    "ttl": [("60", f" must be {SECONDS}, or None, not str")],
    "expected_need_in": [(True, f" must be {SECONDS}, or None, not bool")],
    "restart": [(None, " must be a bool, not None"), ("no", " must be a bool, not str")],
    "request_id": [(7, " must be a str or None, not int")],
    "revision": [(None, " must be an int, not None"), (1.0, " must be an int, not float")],
    "namespace": [(7, " must be a str or None, not int")],
    "timeout": [("5", f" must be {SECONDS}, or None, not str"), (False, f" must be {SECONDS}")],
    "pipeline": [(None, " must be a str, not None")],
    "inputs": [
        (None, f" must be {MAPPING.format('names to JSON values', 'None')}"),
        ("{}", f" must be {MAPPING.format('names to JSON values', 'str')}"),
        ([1], f" must be {MAPPING.format('names to JSON values', 'list')}"),
    ],
    "wait": [(None, f" must be {SECONDS}, not None"), ("2", f" must be {SECONDS}, not str")],
    "required_steps": [
        ("card", f" must be {TEXTS}, not str: pass ['card']"),
        (None, f" must be {TEXTS}, not None"),
        ({"card": 1}, f" must be {TEXTS}, not dict"),
        (b"card", f" must be {TEXTS}, not bytes"),
        (["card", 7], "[1] must be a str, not int"),
    ],
    "result_steps": [(7, f" must be {TEXTS}, not int"), ([None], "[0] must be a str, not None")],
    "keys": [("k", f" must be {TEXTS}, not str: pass ['k']"), ([7], "[0] must be a str, not int")],
    "min_ready": [("1", " must be an int, not str")],
    "starts": [
        (None, " must be a list or another iterable of headstart.Start, not None"),
        ([{"key": "k"}], "[0] must be headstart.Start, not dict"),
    ],
    "min_revision": [(None, " must be an int, not None"), (1.0, " must be an int, not float")],
    "statuses": [
        ("completed", f" must be {TEXTS}, not str: pass ['completed']"),
        (None, f" must be {TEXTS}, not None"),
        ([1], "[0] must be a str, not int"),
    ],
    "page_size": [("10", " must be an int, not str"), (None, " must be an int, not None")],
    "key_prefix": [(None, " must be a str, not None"), (b"k", " must be a str, not bytes")],
    "page_token": [(None, " must be a str, not None")],
    "deadline": [(None, f" must be {SECONDS}, not None"), ("5", f" must be {SECONDS}, not str")],
    "budget": [(None, f" must be {SECONDS}, not None"), (True, f" must be {SECONDS}, not bool")],
    "fallback": [
        (None, f" must be {MAPPING.format('steps to functions', 'None')}"),
        ([_compute], f" must be {MAPPING.format('steps to functions', 'list')}"),
        ({"a": 7}, "['a'] must be a function, not int"),
    ],
    "report": [("yes", " must be a bool, not str")],
    "partial_results": [(1, " must be a bool, not int")],
    "grace": [("1", f" must be {SECONDS}, or None, not str")],
}
SETTINGS: dict[str, list[tuple[Any, str]]] = {
    "address": [(50051, " must be a str or None, not int")],
    "namespace": [(None, " must be a str, not None")],
    "timeout": [(None, f" must be {SECONDS}, not None"), ("5", f" must be {SECONDS}, not str")],
    "max_attempts": [("4", " must be an int, not str")],
    "tls": [(True, " must be a Tls or None, not bool"), ("ca.pem", " must be a Tls or None")],
    "channel_credentials": [("x", " must be a ChannelCredentials or None, not str")],
    "call_credentials": [("x", " must be a CallCredentials or None, not str")],
    "token": [(b"t", " must be a str, a function that returns one, or None, not bytes")],
    "interceptors": [
        (None, " must be a list or another iterable of grpc.aio.ClientInterceptor, not None"),
        ([7], "[0] must be grpc.aio.ClientInterceptor, not int"),
    ],
    "options": [
        ({"a": 1}, " must be a list or another iterable of (name, value) pairs, not dict"),
        (["ab"], "[0] must be (name, value) pairs, not str"),
    ],
}


def cases(of: type[Any]) -> Iterator[tuple[str, str, Any, str]]:
    """Each method, parameter and wrong value, with the message."""
    for name, method in inspect.getmembers(of, inspect.isfunction):
        if name.startswith("_"):
            continue
        for parameter in inspect.signature(method).parameters.keys() - {"self"}:
            for wrong, message in WRONG[parameter]:
                yield name, parameter, wrong, f"{parameter}{message}"


def test_both_clients_have_the_same_methods_with_the_same_parameters() -> None:
    methods = {
        of: dict(inspect.getmembers(of, inspect.isfunction))
        for of in (PrecomputeClient, BlockingClient)
    }
    public = [{n for n in methods[of] if not n.startswith("_")} for of in methods]
    assert public[0] == public[1]
    for name in public[0] - {"close"}:
        asynchronous, blocking = (
            {
                p.name: (p.kind, p.default)
                for p in inspect.signature(found[name]).parameters.values()
            }
            for found in methods.values()
        )
        assert blocking == asynchronous, name


def told(error: BaseException) -> str:
    text = "".join(traceback.format_exception(error))
    assert text.count("Traceback") == 1, text
    return f"{type(error).__name__}: {error}"


@pytest.fixture(autouse=True)
def _answers(service: Any) -> None:
    service.on("StartPrecompute", STARTED)
    service.on("GetResults", run())


async def test_the_asyncio_client_refuses_wrong_types(service: Any) -> None:
    seen = set()
    async with PrecomputeClient(service.address) as client:
        for name, parameter, wrong, message in cases(PrecomputeClient):
            seen.add(name)
            with pytest.raises(TypeError) as caught:
                made = getattr(client, name)(**(RIGHT[name] | {parameter: wrong}))
                if isinstance(made, AsyncIterator):
                    await anext(made)
                else:
                    await made
            assert told(caught.value).startswith(f"TypeError: {message}"), (name, parameter)
    assert seen == set(RIGHT)
    assert service.calls == []


def test_the_blocking_client_refuses_wrong_types(service: Any) -> None:
    with BlockingClient(service.address) as client:
        for name, parameter, wrong, message in cases(BlockingClient):
            right = RIGHT[name] | ({"fallback": {"a": int}} if name == "get_or_compute" else {})
            with pytest.raises(TypeError) as caught:
                made = getattr(client, name)(**(right | {parameter: wrong}))
                if isinstance(made, Iterator):
                    next(made)
            assert told(caught.value).startswith(f"TypeError: {message}"), (name, parameter)
    assert service.calls == []


@pytest.mark.parametrize("client_class", [PrecomputeClient, BlockingClient])
def test_settings_of_wrong_types_are_refused(client_class: Callable[..., Any]) -> None:
    assert set(SETTINGS) == set(inspect.signature(PrecomputeClient).parameters)
    for name, wrongs in SETTINGS.items():
        for wrong, message in wrongs:
            with pytest.raises(TypeError) as caught:
                client_class(**{name: wrong})
            assert told(caught.value).startswith(f"TypeError: {name}{message}")


def test_tls_of_wrong_types_is_refused() -> None:
    for name in ("ca", "cert", "key"):
        with pytest.raises(TypeError, match=f"^{name} must be a str, a path or None, not bytes$"):
            Tls(**{name: b"pem"})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^server_name must be a str or None, not int$"):
        Tls(server_name=7)  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [0, -1.0, math.nan, timedelta(0)])
async def test_a_timeout_that_is_none_is_refused_by_every_method(service: Any, limit: Any) -> None:
    async with PrecomputeClient(service.address) as client:
        for name, right in RIGHT.items():
            if "timeout" in inspect.signature(getattr(client, name)).parameters:
                made = getattr(client, name)(**right, timeout=limit)
                with pytest.raises(ValueError, match="timeout must be more than 0 seconds"):
                    await (anext(made) if isinstance(made, AsyncIterator) else made)
    assert service.calls == []


@pytest.mark.parametrize(
    ("method", "arguments", "complaint"),
    [
        ("get_status", {"key": "\ud800"}, "key: must be Unicode text, has a lone surrogate"),
        ("get_stats", {"namespace": "\ud800"}, "namespace: must be Unicode text"),
        ("get_results", {"required_steps": ["a", "\ud800"]}, "required_steps[1]: must be Unicode"),
        ("get_results", {"min_revision": 2**63}, "min_revision: must fit into 64 bits, is 9223"),
        ("list_page", {"page_size": -(2**31) - 1}, "page_size: must fit into 32 bits, is -2147"),
        ("start_bridging", {"clue_count": 2**31}, "bridging.clue_count: must fit into 32 bits"),
        ("start_bridging", {"clue_count": 10**6000}, "must fit into 32 bits, is about 2^19932"),
        ("start_bridging", {"anchor": "\ud800"}, "bridging.anchor: must be Unicode text"),
        ("start_bridging", {"recipient_type": "hiaku"}, "'hiaku'; did you mean 'haiku'?"),
        ("start", {"pipeline": "\ud800"}, "custom.pipeline: must be Unicode text"),
        ("start", {"ttl": 10**400}, "ttl: must be a number of seconds, not inf"),
        ("start", {"inputs": {"a": ID}}, "custom.inputs.a: must be what JSON can express"),
    ],
)
async def test_what_the_wire_cannot_carry_is_an_invalid_request(
    service: Any, method: str, arguments: dict[str, Any], complaint: str
) -> None:
    async with PrecomputeClient(service.address) as client:
        with pytest.raises(InvalidRequest) as caught:
            await getattr(client, method)(**(RIGHT[method] | arguments))
    assert complaint in told(caught.value)
    assert service.calls == []


async def test_numbers_of_other_libraries_and_timedeltas_are_taken(service: Any) -> None:
    second = timedelta(seconds=1)
    service.on("ListPrecomputes", pb.ListPrecomputesResponse())
    settings = {"timeout": 5 * second, "max_attempts": np.int64(2)}
    async with PrecomputeClient(service.address, **settings) as client:
        await client.start_bridging("k", "a", "b", clue_count=np.int64(3), ttl=np.float32(1.5))
        await client.get_results("k", wait=np.int64(1), required_steps=iter(["a"]), timeout=second)
        await client.list_page(page_size=np.int8(7), statuses={"failed"}, timeout=second)
        got = await client.get_or_compute("k", second, {"a": _compute}, budget=second)
        assert got.values == {"a": 1}
    start, read, page, _, _ = (call.request for call in service.calls)
    assert (start.bridging.clue_count, start.ttl.ToTimedelta()) == (3, 1.5 * second)
    assert (read.wait.ToTimedelta(), list(read.required_steps)) == (second, ["a"])
    assert page.page_size == 7
    with pytest.raises(TypeError, match="not Decimal"):
        PrecomputeClient(timeout=Decimal(1))  # type: ignore[arg-type]


async def test_an_error_of_the_service_is_one_traceback_where_it_is_the_callers(
    service: Any,
) -> None:
    async with PrecomputeClient(service.address) as client:
        with pytest.raises(NotFound) as caught:
            await client.get_status("nobody")
        assert told(caught.value).startswith("NotFound: ")
    with BlockingClient(service.address) as blocking, pytest.raises(InvalidRequest) as caught:
        blocking.start("k", "text", {"a": ID})
    assert told(caught.value).startswith("InvalidRequest: ")
