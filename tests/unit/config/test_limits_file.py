"""The file of limits: what it may say, what is told of a mistake, and that a mistake changes nothing."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path

import pytest

from headstart_service.commands.cli import main
from headstart_service.config.limits_file import (
    LimitsFile,
    NamespaceLimits,
    ProviderLimits,
    read_limits,
)
from headstart_service.domain.errors import StartupError
from tests.support.virtual_time import run_virtually


def replace(path: Path, text: str) -> None:
    """Put another file in its place, as a careful operator does."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


GOOD = """
[namespaces.shop]
weight = 4
llm_tokens_a_day = 2_000_000
[namespaces."team:A"]
weight = 0.5
[namespaces."*"]
weight = 2
[providers."anthropic/claude-haiku-5-5"]
calls_a_minute = 600
tokens_a_minute = 400_000
concurrency = 40
[providers.anthropic]
concurrency = 100
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "limits.toml"
    path.write_text(GOOD)
    return path


def test_each_namespace_and_model_has_its_own_limits_else_those_of_all(path: Path) -> None:
    table = read_limits(path)
    assert table.of_namespace("shop") == NamespaceLimits(weight=4, llm_tokens_a_day=2_000_000)
    assert table.of_namespace("team:A").weight == 0.5
    assert table.of_namespace("other").weight == 2
    assert table.of_provider("anthropic", "claude-haiku-5-5").calls_a_minute == 600
    assert table.of_provider("anthropic", "claude-opus") == ProviderLimits(concurrency=100)
    assert table.of_provider("http", "api.example") == ProviderLimits()


def test_without_a_file_there_are_no_limits() -> None:
    assert LimitsFile(None).table.of_namespace("shop") == NamespaceLimits()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[namespaces.a]\nweight = -1", r"namespaces\.a\.weight = -1: .* from 0\.01 to 1000"),
        ("[namespaces.a]\nweight = 0", r"namespaces\.a\.weight = 0: .* from 0\.01 to 1000"),
        ("[namespaces.a]\nweight = nan", r"namespaces\.a\.weight = nan: .* from 0\.01 to 1000"),
        ("[namespaces.a]\nweight = inf", r"namespaces\.a\.weight = inf: .* from 0\.01 to 1000"),
        ("[namespaces.a]\nweight = '4'", r"namespaces\.a\.weight = '4': must be a number"),
        ("[namespaces.a]\nweight = true", r"namespaces\.a\.weight = True: must be a number"),
        (
            "[namespaces.a]\nllm_tokens_a_day = 0",
            r"namespaces\.a\.llm_tokens_a_day = 0: must be a whole number from 1 to",
        ),
        ("[namespaces.a]\nwieght = 1", r"namespaces\.a\.wieght: is no limit; there are weight, "),
        ("[namespaces.'a b']\nweight = 1", r"namespaces\.'a b': must be 1 to 64 characters"),
        ("[providers.a]\nconcurrency = 0", r"providers\.a\.concurrency = 0: .* from 1 to"),
        ("[providers.a]\ncalls_a_minute = 0.5", r"providers\.a\.calls_a_minute = 0\.5: .* whole"),
        ("[providers.'']\nconcurrency = 1", r"providers\.'': must be PROVIDER or PROVIDER/MODEL"),
        ("[tenants.a]\nweight = 1", r"tenants: is no limit; there are namespaces, providers"),
        ("namespaces = 3", r"namespaces: must be a table"),
        ("[namespaces]\na = 3", r"namespaces\.a: must be a table"),
        ("[namespaces.a\n", "is not TOML: "),
        ("[namespaces.a]\nweight = 0\n[providers.b]\nconcurrency = 0", r"a\.weight.*; .*b\.concur"),
    ],
)
def test_a_mistake_is_told_by_name_and_range(text: str, told: str, path: Path) -> None:
    path.write_text(text)
    with pytest.raises(StartupError, match=rf"HEADSTART_LIMITS: .*{told}"):
        read_limits(path)


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"HEADSTART_LIMITS: cannot read .*: No such file"):
        LimitsFile(tmp_path / "none")
    (tmp_path / "bytes").write_bytes(b"\xff")
    with pytest.raises(StartupError, match=r"HEADSTART_LIMITS: .* is not UTF-8"):
        LimitsFile(tmp_path / "bytes")


def test_a_changed_file_is_read_again_and_a_mistake_leaves_the_last_good_one(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def go() -> None:
        file = LimitsFile(path)
        watching = asyncio.create_task(file.watch())
        replace(path, "[namespaces.shop]\nweight = 9\n")
        await asyncio.sleep(2.5)
        assert file.table.of_namespace("shop").weight == 9
        replace(path, "[namespaces.shop]\nweight = -9\n")
        await asyncio.sleep(2.5)
        assert (file.table.of_namespace("shop").weight, file.refusals) == (9, 1)
        watching.cancel()

    run_virtually(go())
    assert f"limits read from {path}" in caplog.messages
    refused = "the limits that were read before stay in force: HEADSTART_LIMITS: .*weight = -9"
    assert any(re.match(refused, line) for line in caplog.messages)


def test_check_config_refuses_a_wrong_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADSTART_LIMITS", str(path))
    assert main(["check-config"]) == 0
    path.write_text("[namespaces.a]\nweight = -1\n")
    assert main(["check-config"]) != 0
    assert "namespaces.a.weight = -1: must be a number from 0.01 to 1000" in capsys.readouterr().err


def test_a_provider_that_nothing_calls_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "limits.toml"
    tables = ("anthropic", "anthropic/other", "anthropic/claude-haiku-5-5", "haiku")
    path.write_text("".join(f'[providers."{name}"]\nconcurrency = 3\n' for name in tables))
    monkeypatch.setenv("HEADSTART_LIMITS", str(path))
    assert main(["check-config"]) == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if "HEADSTART_LIMITS" in line]
    assert [line.split()[3] for line in warned] == ["providers.anthropic/other", "providers.haiku"]
    assert warned[0].endswith("there are anthropic, anthropic/claude-haiku-5-5")
