"""What the environment tells a client about TLS and tokens."""

from pathlib import Path
from typing import Any

import pytest

from headstart import PrecomputeClient, ServiceUnavailable, Tls
from headstart.v1 import precompute_pb2 as pb


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CA", "CLIENT_CERT", "CLIENT_KEY", "SERVER_NAME", "TOKEN", "TOKEN_FILE"):
        monkeypatch.delenv(f"HEADSTART_{name}", raising=False)


async def test_a_token_comes_from_the_environment_unless_one_is_given(
    service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.on("GetStats", pb.GetStatsResponse())
    monkeypatch.setenv("HEADSTART_TOKEN", "environment")

    for given in (None, "given"):
        async with PrecomputeClient(service.address, token=given) as client:
            await client.get_stats()

    sent = [call.metadata["authorization"] for call in service.calls]
    assert sent == ["Bearer environment", "Bearer given"]


async def test_a_tokens_file_is_read_again_when_it_changes(
    service: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    service.on("GetStats", pb.GetStatsResponse())
    file = tmp_path / "token"
    monkeypatch.setenv("HEADSTART_TOKEN_FILE", str(file))

    async with PrecomputeClient(service.address) as client:
        with pytest.raises(ServiceUnavailable, match=f"cannot read {file}: No such file"):
            await client.get_stats()
        for token in ("first", "second one", "third"):
            file.write_text(f"{token}\n")
            await client.get_stats()

    sent = [call.metadata["authorization"] for call in service.calls]
    assert sent == ["Bearer first", "Bearer second one", "Bearer third"]


def test_tls_comes_from_the_environment_unless_it_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HEADSTART_SERVER_NAME", "headstart.example")
    assert PrecomputeClient()._connection.endpoint.tls is None, "a name alone is no TLS"
    monkeypatch.setenv("HEADSTART_CA", "ca.pem")
    monkeypatch.setenv("HEADSTART_CLIENT_CERT", "me.pem")
    monkeypatch.setenv("HEADSTART_CLIENT_KEY", "me.key")

    found = PrecomputeClient()._connection.endpoint.tls
    given = PrecomputeClient(tls=Tls(ca="mine.pem"))._connection.endpoint.tls

    assert found == Tls(ca="ca.pem", cert="me.pem", key="me.key", server_name="headstart.example")
    assert given == Tls(ca="mine.pem")
    monkeypatch.setenv("HEADSTART_CA", "system")
    system = PrecomputeClient()._connection.endpoint.tls
    assert system is not None
    assert system.ca is None


async def test_a_certificate_that_is_missing_is_a_service_that_cannot_be_reached(
    service: Any,
) -> None:
    async with PrecomputeClient(service.address, tls=Tls(ca="/no/such/ca.pem")) as client:
        with pytest.raises(ServiceUnavailable, match=r"cannot read /no/such/ca\.pem"):
            await client.get_stats()
