"""What the environment tells a client about TLS and tokens."""

from pathlib import Path
from typing import Any

import pytest

from headstart import PrecomputeClient, ServiceUnavailable, Tls
from headstart._transport.endpoint import endpoint
from headstart._transport.file_changes import PAUSE
from headstart._transport.security import TokenFile
from headstart.v1 import precompute_pb2 as pb
from tests.support.virtual_time import Clock


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
        file.write_text("first\n")
        await client.get_stats()

    assert [call.metadata["authorization"] for call in service.calls] == ["Bearer first"]


def test_a_tokens_file_is_read_once_a_second(tmp_path: Path) -> None:
    file, clock = tmp_path / "token", Clock()
    file.write_text("first\n")
    token = TokenFile(file, clock=clock)
    assert token() == "first"
    file.write_text("second one\n")
    clock.now += PAUSE * 0.99
    assert token() == "first"
    clock.now += PAUSE * 0.01
    assert token() == "second one"
    file.unlink()
    assert token() == "second one"
    clock.now += PAUSE
    with pytest.raises(ServiceUnavailable, match=f"cannot read {file}"):
        token()
    file.write_text("third\n")
    assert token() == "third", "a file that was missing is tried with each call"


def test_tls_comes_from_the_environment_unless_it_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HEADSTART_SERVER_NAME", "headstart.example")
    assert endpoint(None).tls is None, "a name alone is no TLS"
    monkeypatch.setenv("HEADSTART_CA", "ca.pem")
    monkeypatch.setenv("HEADSTART_CLIENT_CERT", "me.pem")
    monkeypatch.setenv("HEADSTART_CLIENT_KEY", "me.key")

    found = endpoint(None).tls
    given = endpoint(None, tls=Tls(ca="mine.pem")).tls

    assert found == Tls(ca="ca.pem", cert="me.pem", key="me.key", server_name="headstart.example")
    assert given == Tls(ca="mine.pem")
    monkeypatch.setenv("HEADSTART_CA", "system")
    system = endpoint(None).tls
    assert system is not None
    assert system.ca is None


async def test_a_certificate_that_is_missing_is_a_service_that_cannot_be_reached(
    service: Any,
) -> None:
    async with PrecomputeClient(service.address, tls=Tls(ca="/no/such/ca.pem")) as client:
        with pytest.raises(ServiceUnavailable, match=r"cannot read /no/such/ca\.pem"):
            await client.get_stats()


@pytest.mark.parametrize("value", [" padded\n", "padded"])
async def test_a_token_of_the_environment_is_sent_without_the_spaces_around_it(
    service: Any, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    service.on("GetStats", pb.GetStatsResponse())
    monkeypatch.setenv("HEADSTART_TOKEN", value)
    for given in (None, value, lambda: value):
        async with PrecomputeClient(service.address, token=given) as client:
            await client.get_stats()
    assert {call.metadata["authorization"] for call in service.calls} == {"Bearer padded"}


@pytest.mark.parametrize("returned", [None, b"t", 7])
async def test_a_token_function_that_returns_no_text_is_named(service: Any, returned: Any) -> None:
    kind = "None" if returned is None else type(returned).__name__
    async with PrecomputeClient(service.address, token=lambda: returned) as client:
        with pytest.raises(
            TypeError, match=f"the function `token` returns must be a str, not {kind}"
        ):
            await client.get_stats()


def test_an_empty_token_variable_is_unset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADSTART_TOKEN", " \n")
    assert endpoint(None).token is None
    (tmp_path / "token").write_text("from-file\n")
    monkeypatch.setenv("HEADSTART_TOKEN_FILE", str(tmp_path / "token"))
    found = endpoint(None).metadata()
    assert found == (("authorization", "Bearer from-file"),)


def test_a_token_that_no_header_carries_is_refused_by_name_and_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValueError, match="the argument `token` must be one line") as refused:
        PrecomputeClient(token="s3cret\nX-Evil: 1")
    assert "s3cret" not in str(refused.value)
    monkeypatch.setenv("HEADSTART_TOKEN", "s3crét")
    with pytest.raises(ValueError, match="token of HEADSTART_TOKEN must be one line of printable"):
        PrecomputeClient()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\xff\xfes\x00", "the token file {file} is no UTF-8 text: invalid start byte"),
        (b"\n \n", "the token file {file} is empty"),
        (b"one\ntwo\n", "the token of the file {file} must be one line of printable ASCII"),
    ],
)
async def test_a_token_file_without_a_token_is_reported_by_its_name(
    service: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes, told: str
) -> None:
    service.on("GetStats", pb.GetStatsResponse())
    file = tmp_path / "token"
    file.write_bytes(content)
    monkeypatch.setenv("HEADSTART_TOKEN_FILE", str(file))
    async with PrecomputeClient(service.address) as client:
        with pytest.raises(ServiceUnavailable, match=told.format(file=file)):
            await client.get_stats()
        file.write_text("mended")
        await client.get_stats()
    assert service.calls[0].metadata["authorization"] == "Bearer mended"


async def test_empty_tls_files_are_named_and_grpc_does_not_end_the_process(
    refused: str, tmp_path: Path
) -> None:
    for name in ("cert", "key", "ca"):
        (tmp_path / name).touch()
    tls = Tls(cert=tmp_path / "cert", key=tmp_path / "key")
    for used in (tls, Tls(ca=tmp_path / "ca")):
        async with PrecomputeClient(refused, tls=used) as client:
            with pytest.raises(ServiceUnavailable, match=f"{tmp_path}/.* is empty"):
                await client.get_stats()
