"""The compose files ask of containers what the manifests ask of pods, and name settings that exist."""

from __future__ import annotations

from functools import reduce
from typing import Any

import pytest

from deploy.manifests import COMPOSE, compose
from headstart_service.config.loading import load_settings
from headstart_service.config.settings import Settings, variable

VARIABLES = {variable(name) for name in Settings.model_fields}
PLAIN, SECURE = (compose(path) for path in COMPOSE)


@pytest.mark.parametrize("service", ["api", "worker", "valkey"])
def test_every_container_is_restricted_and_bounded(service: str):
    one: dict[str, Any] = PLAIN["services"][service]
    assert one["read_only"] is True
    assert one["cap_drop"] == ["ALL"]
    assert one["security_opt"] == ["no-new-privileges:true"]
    assert one["mem_limit"]
    tag = one["image"].rpartition(":")[2]
    assert tag[0].isdigit()
    assert not one.get("privileged")


@pytest.mark.parametrize("service", ["api", "worker"])
@pytest.mark.parametrize("parts", [(PLAIN,), (PLAIN, SECURE)], ids=["plain", "secure"])
def test_every_variable_is_a_setting_with_a_right_value(
    service: str, parts: tuple[dict[str, Any], ...], monkeypatch: pytest.MonkeyPatch
):
    given: dict[str, str] = {}
    for part in parts:
        given |= part["services"][service]["environment"]
    assert set(given) <= VARIABLES
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = load_settings({})
    assert settings.redis_url is not None
    if service == "api":
        assert settings.insecure is (settings.tls_cert is None)


@pytest.mark.parametrize("service", ["api", "worker"])
def test_a_container_has_time_to_drain(service: str):
    grace = float(PLAIN["services"][service]["stop_grace_period"].removesuffix("s"))
    assert grace >= Settings.model_fields["drain"].default + 5


def merged(first: Any, second: Any) -> Any:
    """Two values of one name as Compose merges them: mappings by name, lists one behind another."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first | {
            name: merged(first[name], value) if name in first else value
            for name, value in second.items()
        }
    if isinstance(first, list) and isinstance(second, list):
        return [*first, *(each for each in second if each not in first)]
    return second


@pytest.mark.parametrize("parts", [(PLAIN,), (PLAIN, SECURE)], ids=["plain", "secure"])
def test_every_port_is_published_once(parts: tuple[dict[str, Any], ...]):
    services = reduce(merged, parts)["services"]
    assert services["api"]["environment"]["HEADSTART_REDIS_URL"]
    published = [
        port.rpartition(":")[0].rpartition(":")[2]
        for service in services.values()
        for port in service.get("ports", ())
    ]
    assert sorted(published) == ["50051", "8080"]
    # The live page, in the clear, is for this machine alone, whatever gRPC is bound to.
    assert "127.0.0.1:8080:8080" in services["api"]["ports"]
    text = COMPOSE[0].read_text()
    assert '"127.0.0.1:${HEADSTART_HTTP_PORT:-8080}:8080"' in text
    assert '"${HEADSTART_BIND:-127.0.0.1}:${HEADSTART_GRPC_PORT:-50051}:50051"' in text


def test_without_tls_only_this_machine_is_listened_to():
    assert all(port.startswith("127.0.0.1:") for port in PLAIN["services"]["api"]["ports"])
    assert "ports" not in PLAIN["services"]["valkey"]
