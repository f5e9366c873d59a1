"""No command prints a part of a password, key or token, however it is written."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from headstart_service.base.urls import redacted
from headstart_service.config.loading import load_settings
from headstart_service.domain.errors import StartupError
from headstart_service.store.connect import API, open_client
from headstart_service.store.redis_url import holds_secret, parsed_redis_url
from tests.support.commands import run_here
from tests.support.processes import SHORT_DRAIN, headstart

PARTS = ("Zq9xWb3k", "Kv7wTn5p", "Jm4tHr8c")
BETWEEN = (
    *("#", "/", "?", "@", ":", "&", "=", ";", ",", "[", "]", "[::", "%", "%zz", "\\", " ", "\t"),
    *("\n", "\x01", "é", "℀", "\N{FULLWIDTH NUMBER SIGN}", "//", "://", "?db=", "/0?", "#@", "@/"),
)
SECRETS = [between.join(PARTS) for between in BETWEEN]
URLS = (
    "redis://:{}@127.0.0.1:1/0",
    "redis://{}@127.0.0.1:1",
    "rediss://user:{}@127.0.0.1:1",
    "redis+sentinel://:{}@127.0.0.1:1/service",
    "redis+sentinel://127.0.0.1:1/service?sentinel_password={}",
    "redis+cluster://127.0.0.1:1/?tls=true&ssl_password={}",
    "unix://:{}@/no/such/socket",
    "redis://127.0.0.1:{}",
    "redis://127.0.0.1:1?{}=1",
    "redis://127.0.0.1:1/{}",
    "{}",
    "{}://127.0.0.1",
)
QUICK = (["check-config"], ["check-config", "--json"], ["doctor", "--local-only", "--timeout", "1"])
SERVERS = (
    *(["serve", "--no-worker", "--http-port", "0", "--grpc-port", "0"], ["worker"]),
    *(["repartition", "--to", "2"], *QUICK),
)
CALLS = (
    *(["stats"], ["get", "k"], ["watch", "k"]),
    *(["doctor", "--timeout", "1"], ["healthcheck", "--timeout", "1", "--grpc-port", "1"]),
)


def told(secret: str, *texts: str) -> Iterator[str]:
    """What of the secret's own letters stands in these texts: each part of four characters."""
    for part in PARTS:
        for start in range(len(part) - 3):
            piece = part[start : start + 4]
            if piece in secret and any(piece.lower() in text.lower() for text in texts):
                yield piece


def refusal(url: str) -> StartupError | None:
    try:
        open_client(url, API)
    except StartupError as error:
        return error
    return None


@pytest.mark.promise("No message contains part of a password", "`urls` quotes nothing")
@pytest.mark.parametrize("form", URLS)
def test_no_command_prints_a_part_of_a_redis_password(form: str, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    for number, secret in enumerate(SECRETS):
        url = form.format(secret)
        refused = refusal(url)
        # With a URL that parses a server would start, and wait for its Redis.
        commands = QUICK[:2] if refused is None else SERVERS
        if refused is not None:
            assert not [*told(secret, str(refused), repr(refused.__cause__))], refused
            assert refused.__suppress_context__, "a traceback would show it"
            assert "percent-encode" in str(refused)
        if (number + URLS.index(form)) % 6 == 0:  # all of them would take a minute
            command = commands[number // 6 % len(commands)]
            _, said = run_here(*command, HEADSTART_REDIS_URL=url)
            assert not [*told(secret, said)], (command, url, said)
    assert not [*told("".join(PARTS), caplog.text)]


def test_every_command_refuses_a_url_that_does_not_parse_with_the_cure():
    secret = "#".join(PARTS)
    for command in SERVERS:
        _, said = run_here(*command, HEADSTART_REDIS_URL=f"redis://:{secret}@127.0.0.1:6379/0")
        assert "HEADSTART_REDIS_URL: a # must be percent-encoded, as %23" in said, command
        assert "Traceback" not in said
        assert not [*told(secret, said)]


def test_a_password_that_is_percent_encoded_arrives_as_it_is():
    found = parsed_redis_url("redis://a%40b:p%23%2F%3F%25@[::1]:7000/3?socket_timeout=2.5")
    assert found.nodes == [("::1", 7000)]
    assert found.options == {
        "username": "a@b",
        "password": "p#/?%",
        "db": 3,
        "socket_timeout": 2.5,
    }


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://h/0?sockettimeout=1", "did you mean socket_timeout?"),
        ("redis://h/0?ssl_ca_certs=x", "option 1 behind its ? is none that redis:// has"),
        ("redis://h:0", "the port must be a number from 1 to 65535"),
        ("redis://h:65536", "the port must be a number from 1 to 65535"),
        ("redis://::1:6379", "must stand in brackets"),
        ("redis://[::1", "cannot be split"),
        ("redis://:a/b@h", "a / or ? before an @"),
        ("unix://no/such", "the path of a socket"),
        ("rediss://h?ssl_min_version=x", "its option ssl_min_version is of a wrong type"),
    ],
)
def test_what_is_wrong_with_a_url_is_named(url: str, told: str):
    with pytest.raises(StartupError) as caught:
        open_client(url, API)
    assert told in str(caught.value)


@pytest.mark.parametrize("form", [*URLS[:1], *URLS[2:7]])
def test_a_url_with_a_password_is_refused_as_a_flag_whatever_it_holds(form: str):
    for secret in SECRETS:
        assert holds_secret(form.format(secret))
    assert not holds_secret("redis://user@h:1/0")
    given = {"--redis-url": "HEADSTART_REDIS_URL", "--anthropic-base-url": "ANTHROPIC_BASE_URL"}
    for flag, name in given.items():
        code, said = run_here("check-config", flag, URLS[0].format(SECRETS[0]))
        assert (code, f"set {name} instead" in said) == (2, True)
        assert not [*told(SECRETS[0], said)]


def test_a_line_end_behind_a_secret_is_none_of_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HEADSTART_REDIS_URL", "redis://:p@h/0\n")
    monkeypatch.setenv("ANTHROPIC_API_KEY", " key\n")
    settings = load_settings({})
    assert settings.redis_url == SecretStr("redis://:p@h/0")
    assert settings.anthropic_api_key == SecretStr("key")


@pytest.mark.parametrize(
    "variable", ["ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "HEADSTART_TOKENS"]
)
def test_no_command_prints_a_part_of_a_key_or_of_a_url_with_one(variable: str):
    form = {
        "ANTHROPIC_BASE_URL": "https://me:{}@127.0.0.1:1/v1?key={}",
        "HEADSTART_TOKENS": '"hst_{}',
    }
    for number, secret in enumerate(SECRETS):
        value = form.get(variable, "{}").replace("{}", secret)
        command = QUICK[number % 2]
        _, said = run_here(*command, **{variable: value})
        assert not [*told(secret, said)], (command, said)
        assert "Traceback" not in said


@pytest.mark.parametrize("between", ["é", "\n", "\udcff"])
def test_no_call_prints_a_part_of_its_token(between: str, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    secret = between.join(PARTS)
    for command in CALLS:
        where = {"HEADSTART_ADDRESS": "127.0.0.1:1", "HEADSTART_TOKEN": secret}
        _, said = run_here(*command, **where)
        assert not [*told(secret, said)], (command, said)
    assert not [*told(secret, caplog.text)]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=b,c=%C3%A9{}"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:{}@127.0.0.1:1"),
    ],
)
async def test_a_traced_server_prints_no_part_of_its_collectors_token(variable: str, value: str):
    settings = {"HEADSTART_TRACING": "true", "HEADSTART_BRIDGING": "false", **SHORT_DRAIN}
    given = {variable: value.format(PARTS[0])}
    async with headstart("serve", "--no-worker", **settings, **given) as process:
        assert await process.ended() == 2
        assert process.output.startswith(f"headstart: {variable}: must ")
        assert not [*told(PARTS[0], process.output)]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://api.example/v1", "https://api.example/v1"),
        ("https://me:secret@api.example", "https://***@api.example"),
        ("https://me:se/cr@et@api.example", "***"),
        ("https://api.example/?key=secret", "https://api.example/?***"),
        ("https://me:se#cret", "***"),
        ("ray://head:10001", "ray://head:10001"),
    ],
)
def test_a_url_is_shown_without_what_may_be_secret(url: str, shown: str):
    assert redacted(url) == shown
