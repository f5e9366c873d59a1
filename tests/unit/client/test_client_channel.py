"""What a channel to the service is opened with."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest

from headstart import Tls
from headstart._transport.endpoint import endpoint, service_config
from headstart.v1.precompute_pb2 import DESCRIPTOR

METHODS = [
    method.name
    for method in DESCRIPTOR.services_by_name["PrecomputeService"].methods
    if not method.server_streaming
]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, dict[str, Any]]]:
    """Each channel that is opened: with which function, where, and its options."""
    channels: list[tuple[str, str, dict[str, Any]]] = []

    def opens(name: str) -> Any:
        def function(address: str, *credentials: Any, options: Any, **more: Any) -> str:
            assert bool(credentials) is ("secure_channel" in name and "insecure" not in name)
            assert len(options) == len(dict(options)), "each name once"
            channels.append((name, address, dict(options) | more))
            return name

        return function

    for module, prefix in ((grpc, ""), (grpc.aio, "aio.")):
        for name in ("insecure_channel", "secure_channel"):
            monkeypatch.setattr(module, name, opens(prefix + name))
    return channels


COMMON = {
    "grpc.max_receive_message_length": 64 * 1024 * 1024,
    "grpc.keepalive_time_ms": 60_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.http2.max_pings_without_data": 0,
    "grpc.use_local_subchannel_pool": 1,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.min_reconnect_backoff_ms": 1_000,
    "grpc.max_reconnect_backoff_ms": 1_000,
}


@pytest.mark.parametrize("secure", [True, False])
def test_both_kinds_of_channels_have_the_same_options(opened: Any, *, secure: bool) -> None:
    made = endpoint(
        "host:1", channel_credentials=grpc.ssl_channel_credentials() if secure else None
    )
    made.open(["interceptor"])  # type: ignore[list-item]
    made.open_blocking()
    config = {"grpc.service_config": service_config(1)}
    name = "secure_channel" if secure else "insecure_channel"
    assert opened == [
        (f"aio.{name}", "host:1", COMMON | config | {"interceptors": ["interceptor"]}),
        (name, "host:1", COMMON | config),
    ]


def test_a_server_name_and_a_callers_options_are_options(opened: Any) -> None:
    tls = Tls(server_name="shop.example")
    made = endpoint(None, tls=tls, max_attempts=3, options=[("grpc.keepalive_time_ms", 5)])
    made.open_blocking()
    [(name, address, options)] = opened
    assert (name, address) == ("secure_channel", "localhost:50051")
    assert options == COMMON | {
        "grpc.keepalive_time_ms": 5,
        "grpc.enable_http_proxy": 0,
        "grpc.ssl_target_name_override": "shop.example",
        "grpc.service_config": service_config(3),
    }


def test_calls_are_spread_and_tried_again_as_often_as_asked() -> None:
    spread = {"loadBalancingConfig": [{"round_robin": {}}]}
    assert json.loads(service_config(1)) == spread
    config = json.loads(service_config(2))
    [retried] = config["methodConfig"]
    assert retried == {
        "name": [{"service": "headstart.v1.PrecomputeService", "method": name} for name in METHODS],
        "retryPolicy": {
            "maxAttempts": 2,
            "initialBackoff": "0.05s",
            "maxBackoff": "0.5s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
        },
    }
    assert config["retryThrottling"] == {"maxTokens": 1000, "tokenRatio": 0.1}
    assert config["loadBalancingConfig"] == spread["loadBalancingConfig"]


@pytest.mark.parametrize("attempts", [0, 6, -1])
def test_grpc_makes_one_to_five_attempts(attempts: int) -> None:
    with pytest.raises(ValueError, match=rf"^max_attempts must be 1 to 5, not {attempts}$"):
        endpoint(None, max_attempts=attempts)
    assert [endpoint(None, max_attempts=each).max_attempts for each in (1, 5)] == [1, 5]
