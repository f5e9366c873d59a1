"""Any value of any variable gives settings, or one message that names the variable."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headstart_service.commands.cli import main
from headstart_service.config.loading import load_settings
from headstart_service.config.settings import Settings, variable
from headstart_service.domain.errors import StartupError
from headstart_service.http.readiness import Readiness
from headstart_service.http.server import http_server
from headstart_service.processes.lifecycle import registry, store_rules
from headstart_service.store.connect import API, open_client
from tests.fuzz import budget

_VALUES = (
    *("", " ", "0", "-0", "1", "-1", "1.0", "1e400", "nan", "inf", "-inf", "9" * 25, "9" * 5000),
    *("0x10", "1_000", "\u0661", "true", "FALSE", "yes", "null", "None", "[]", "{}", '{"a": 1}'),
    *("[" * 5000, "\udcff", "a" * 10_000, "../../..", "/dev/null", "/proc/self/mem"),
    *("::1", "localhost", "256.256.256.256", "a..b", "x" * 64 + ".y", "\u00df", "%eth0", "\n"),
    *("redis://", "redis://h:p", "redis://[::1", "redis://h/x", "rediss://h?ssl_cert_reqs=what"),
    *("unix://", "unix://?db=x", "redis+sentinel://h", "redis+sentinel://h:x/s", "http://h"),
    *("redis+cluster://", "redis+cluster://h:1,,:2", "redis://h?socket_timeout=x", "redis://h?x=y"),
    *("redis+sentinel://h:1/s/db", "redis+cluster://h?tls=maybe", "redis://\udcff", "redis://h:-1"),
    *("a:b", ":", "os:path", "os", "a.b.c:D", "..:x", "os:path,os:sep", "\x7f:\x7f", "json:dumps"),
    *("http://", "http://[", "http://h:99999", "ftp://x", "x" * 300, "debug", "INFO", "info\n"),
    *("tests.support.pipelines:NOOP", "tests.support.pipelines:NOOP," * 2, "sys:modules.os"),
)


def _value(dice: random.Random) -> str:
    value = dice.choice(_VALUES)
    if dice.random() < 0.4:
        at = dice.randint(0, len(value))
        some = "".join(chr(dice.choice((*range(1, 128), 0xDC80, 0x2028))) for _ in range(3))
        value = value[:at] + some + value[at + dice.randint(0, 3) :]
    return value


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("HEADSTART_", "ANTHROPIC_")):
            monkeypatch.delenv(name)


@contextmanager
def _or_one_message(beginning: str) -> Iterator[None]:
    """Let what is inside succeed, or refuse with a message that begins so; nothing else."""
    said = beginning
    try:
        yield
    except StartupError as error:
        said = str(error)
    assert said.startswith(beginning)
    assert len(said) < 25_000


def test_any_value_gives_settings_or_one_message(capsys: pytest.CaptureFixture[str]):
    dice = budget.dice("settings")
    names = list(Settings.model_fields)
    for number in range(budget.cases(400, 12_000)):
        name = names[number % len(names)]
        value = _value(dice)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(variable(name), value)
            with _or_one_message(f"wrong settings:\n  {variable(name)}"):
                settings = load_settings({})
                for make in (store_rules, registry):
                    with _or_one_message("HEADSTART_"):
                        make(settings)
        budget.count("settings")
    assert capsys.readouterr().out == ""


def test_a_command_shows_any_settings_or_reports_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """To a standard output as strict as the one of a terminal."""
    dice = budget.dice("commands")
    for name in ("vocabulary", "host", "model", "pipelines", "redis_url", "lease"):
        for value in dice.sample(_VALUES, budget.cases(10, len(_VALUES))):
            with (tmp_path / "out").open("w", encoding="utf-8") as out, monkeypatch.context() as on:
                on.setenv(variable(name), value)
                on.setattr("sys.stdout", out)
                assert main(["check-config"]) in (0, 2)
            budget.count("settings")


def test_any_redis_url_gives_a_client_or_one_message():
    dice = budget.dice("urls")
    for _ in range(budget.cases(500, 5_000)):
        url = _value(dice)
        if dice.random() < 0.7:
            scheme = dice.choice(("redis", "rediss", "unix", "redis+sentinel", "redis+cluster"))
            url = f"{scheme}://{_value(dice)[:200]}:{_value(dice)[:20]}/{_value(dice)[:50]}"
        with _or_one_message("HEADSTART_REDIS_URL: "):
            open_client(url, API)
        budget.count("settings")


async def test_any_host_is_listened_on_or_named():
    dice = budget.dice("hosts")
    for value in [*_VALUES, *(_value(dice) for _ in range(budget.cases(100, 500)))]:
        if value in ("", " ", "0"):
            continue  # every interface: not on a machine that others reach
        with _or_one_message("HEADSTART_H"):
            async with http_server(value, 0, lambda: Readiness(ready=True)):
                pass
        budget.count("settings")
