from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from deploy.settings_page import PAGE
from headstart_service.commands.check_config import rows
from headstart_service.config.allowed_values import allowed
from headstart_service.config.loading import (
    child_environment,
    describe,
    load_settings,
)
from headstart_service.config.partitions import CLUSTER_PARTITIONS
from headstart_service.config.rules import rules_of
from headstart_service.config.settings import (
    API_URLS,
    KEYS,
    Settings,
    default_of,
    variable,
)
from headstart_service.domain.errors import StartupError
from headstart_service.http.readiness import Readiness
from headstart_service.http.server import http_server
from headstart_service.processes.preflight import load_checked

SECRET = "hunter2"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("HEADSTART_", "ANTHROPIC_")):
            monkeypatch.delenv(name)


def complaints(**flags: str) -> str:
    with pytest.raises(StartupError) as caught:
        load_settings(flags)
    return str(caught.value)


def test_the_defaults_are_those_that_the_design_names() -> None:
    settings = load_settings({})
    assert (settings.grpc_port, settings.http_port) == (50051, 8080)
    assert (settings.result_ttl, settings.max_cached_results) == (1800.0, 1000)
    assert (settings.partitions, settings.lease, settings.failure_ttl) == (1, 10.0, 60.0)
    assert settings.redis_url is None
    assert settings.model == "all-MiniLM-L6-v2"


@pytest.mark.parametrize(
    ("url", "partitions"),
    [
        ("redis+cluster://a:7000,b:7001", 12),
        (" REDIS+CLUSTER://a:7000\n", 12),
        ("rediss://a:6379", 1),
        ("redis+sentinel://a:26379/mymaster", 1),
    ],
)
def test_a_store_in_a_cluster_has_partitions_for_its_masters_unless_a_number_is_set(
    url: str, partitions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_REDIS_URL", url)
    settings = load_settings({})
    assert settings.partitions == partitions
    [row] = [row for row in rows(settings, {}) if row.variable == "HEADSTART_PARTITIONS"]
    assert (row.value, row.default, row.source) == (partitions, partitions, "default")
    assert "HEADSTART_PARTITIONS" not in child_environment(settings)
    monkeypatch.setenv("HEADSTART_PARTITIONS", "1")
    assert load_settings({}).partitions == 1
    assert load_settings({"partitions": "3"}).partitions == 3


def test_twelve_partitions_use_every_master_of_a_small_cluster_and_three_do_not() -> None:
    def used(partitions: int, masters: int) -> list[int]:
        slots = [key_slot(str(partition).encode()) for partition in range(partitions)]
        found = Counter(slot * masters // REDIS_CLUSTER_HASH_SLOTS for slot in slots)
        return [found[master] for master in range(masters)]

    assert used(3, 3) == [0, 2, 1]
    assert used(CLUSTER_PARTITIONS, 3) == [4, 5, 3]
    assert used(CLUSTER_PARTITIONS, 4) == [3, 3, 3, 3]


def test_a_setting_comes_from_its_flag_else_its_variable_else_its_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HEADSTART_GRPC_PORT", "1111")
    monkeypatch.setenv("HEADSTART_HTTP_PORT", "2222")
    settings = load_settings({"grpc_port": "3333"})
    assert (settings.grpc_port, settings.http_port, settings.lease) == (3333, 2222, 10.0)


@pytest.mark.parametrize(
    ("name", "flag", "environment"),
    [
        ("anthropic_base_url", "http://flag", "http://environment"),
        ("redis_url", "redis://flag", "redis://environment"),
        ("pipelines", "flag:F", "environment:E"),
        ("worker", "False", "true"),
        ("data_dir", "/flag", "/environment"),
    ],
)
def test_flags_win_whatever_the_settings_kind(
    name: str, flag: str, environment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable(name), environment)
    assert getattr(load_settings({name: flag}), name) == getattr(Settings(**{name: flag}), name)
    assert getattr(load_settings({name: flag}), name) != getattr(load_settings({}), name)


def test_every_wrong_setting_is_reported_with_its_source_value_and_range(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HEADSTART_LEASE", "soon")
    monkeypatch.setenv("HEADSTART_PARTITIONS", "0")
    monkeypatch.setenv("HEADSTART_HTTP_PORT", "x")
    lines = complaints(http_port="65536", log_level="loud").splitlines()
    assert lines[0] == "wrong settings:"
    told = {line.split(" = ")[0].strip(): line for line in lines[1:]}
    assert set(told) == {
        "HEADSTART_LEASE",
        "HEADSTART_PARTITIONS",
        "--http-port",
        "--log-level",
    }
    assert "'soon'" in told["HEADSTART_LEASE"]
    assert "number" in told["HEADSTART_LEASE"]
    assert told["HEADSTART_PARTITIONS"].endswith("'0': must be a whole number from 1 to 1024")
    assert told["--http-port"].endswith("'65536': must be a whole number from 0 to 65535")
    assert told["HEADSTART_LEASE"].endswith("must be a number from 0.5 to 600")
    assert told["--log-level"].endswith("must be debug, info, warning or error")


@pytest.mark.parametrize("prefix", ["", "a:b", "{0}", "two words", "é", "x" * 65, "line\n"])
def test_a_prefix_that_would_not_keep_keys_apart_is_refused_with_its_range(prefix: str) -> None:
    told = complaints(prefix=prefix)
    assert told.startswith("wrong settings:\n  --prefix = ")
    assert told.endswith("must be 1 to 64 characters of A-Z, a-z, 0-9, '.', '_' and '-'")


def test_settings_that_do_not_fit_each_other_are_told_together_with_those_that_are_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HEADSTART_PARTITIONS", "20")
    monkeypatch.setenv("HEADSTART_REDIS_URL", f"http://:{SECRET}@db")
    monkeypatch.setenv("HEADSTART_LEASE", "0")
    monkeypatch.setenv("HEADSTART_TLS_KEY", "/no/such/key")
    with pytest.raises(StartupError) as caught:
        load_checked({"max_cached_results": "10", "grpc_port": "8080", "pipelines": "no_such:P"})
    lines = [line.strip() for line in str(caught.value).splitlines()]
    assert [line.partition(":")[0] for line in lines] == [
        "wrong settings",
        "HEADSTART_LEASE = '0'",
        "--max-cached-results (HEADSTART_MAX_CACHED_RESULTS)",
        "HEADSTART_REDIS_URL",
        "--pipelines (HEADSTART_PIPELINES)",
        "--grpc-port (HEADSTART_GRPC_PORT)",
        "HEADSTART_TLS_CERT",
    ]
    assert SECRET not in str(caught.value)
    with pytest.raises(StartupError) as caught:
        load_checked({"max_cached_results": "10", "grpc_port": "8080"}, listens=False)
    assert "HEADSTART_TLS" not in str(caught.value), "a worker has no gRPC port"
    assert "--grpc-port" not in str(caught.value)


def test_a_rule_over_several_settings_is_silent_while_one_of_them_is_wrong_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HEADSTART_TLS_CERT", "\udcff")
    monkeypatch.setenv("HEADSTART_TLS_KEY", "/no/such/key")
    with pytest.raises(StartupError) as caught:
        load_checked({})
    assert str(caught.value).count("HEADSTART_TLS_CERT") == 1
    assert str(caught.value).endswith("must be UTF-8")


def test_what_kubernetes_sets_for_a_service_of_that_name_is_explained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HEADSTART_GRPC_PORT", "tcp://10.0.0.1:50051")
    assert "enableServiceLinks: false" in complaints()
    monkeypatch.setenv("HEADSTART_GRPC_PORT", "port")
    assert "enableServiceLinks" not in complaints()


def test_every_setting_names_what_it_may_be_and_its_own_default_is() -> None:
    for name, field in Settings.model_fields.items():
        said = allowed(name, field)
        assert said != "text" or name in {*KEYS, "model", "haiku_model", "storage"}, name
        if "from" in said:
            low, high = (float(each) for each in said.split("from ")[1].split(" to "))
            default = default_of(name)
            assert default is None or low <= default <= high


def test_the_page_of_settings_is_what_the_code_says() -> None:
    text = PAGE.read_text()
    assert all(f"| `{variable(name)}` |" in text for name in Settings.model_fields)
    assert str(Path.home()) not in text


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("grpc_port", "-1", "65536"),
        ("partitions", "0", "1025"),
        ("result_ttl", "0", "604801"),
        ("failure_ttl", "0", "86401"),
        ("max_cached_results", "0", "10000001"),
        ("namespace_max_results", "-1", "10000001"),
        ("max_queued", "-1", "10000001"),
        ("max_memos", "-1", "10000001"),
        ("memo_ttl", "0", "2592001"),
        ("max_waiters", "0", "1000001"),
        ("max_watches", "0", "1000001"),
        ("max_calls", "0", "1000001"),
        ("near_cache_mb", "-1", "4097"),
        ("worker_concurrency", "0", "1025"),
        ("lease", "0.4", "601"),
        ("drain", "-1", "601"),
        ("compute_threads", "0", "257"),
        ("lease", "nan", "inf"),
    ],
)
def test_a_setting_out_of_its_range_is_refused(name: str, low: str, high: str) -> None:
    for value in (low, high):
        assert f"--{name.replace('_', '-')} = '{value}'" in complaints(**{name: value})


def test_a_wrong_variable_without_a_prefix_is_reported_by_its_own_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://x")
    assert load_settings({}).anthropic_base_url == "http://x"
    assert variable("anthropic_api_key") == "ANTHROPIC_API_KEY"
    assert variable("redis_url") == "HEADSTART_REDIS_URL"


def test_an_empty_variable_means_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("redis_url", *KEYS, *API_URLS):
        monkeypatch.setenv(variable(name), "")
    settings = load_settings({})
    assert settings.redis_url is None
    assert settings.anthropic_api_key is None
    assert settings.anthropic_base_url is None


def test_a_path_may_begin_with_the_users_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("HEADSTART_PREPARED_MODELS", "~/models")
    settings = load_settings({"data_dir": "~/data", "vocabulary": "./words"})
    assert settings.prepared_models == Path("/home/someone/models")
    assert settings.data_dir == Path("/home/someone/data")
    assert settings.vocabulary == Path("words")
    assert "--data-dir = '~no-such-user/data': must begin with" in complaints(
        data_dir="~no-such-user/data"
    )


def test_pipelines_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_PIPELINES", " a:B , c.d:E,,")
    assert load_settings({}).pipelines == ("a:B", "c.d:E")


def test_secrets_are_printed_by_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", SECRET)
    monkeypatch.setenv("HEADSTART_REDIS_URL", f"redis://:{SECRET}@db")
    settings = load_settings({})
    assert settings.anthropic_api_key is not None
    assert settings.anthropic_api_key.get_secret_value() == SECRET
    for text in (repr(settings), str(settings), settings.model_dump_json(), complaints(lease="x")):
        assert SECRET not in text
    assert SECRET not in str(describe())


def test_a_child_has_the_same_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", SECRET)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://environment")
    monkeypatch.setenv("HEADSTART_LEASE", "2.5")
    monkeypatch.setenv("HEADSTART_WORKER_CONCURRENCY", "7")
    settings = load_settings(
        {
            "anthropic_base_url": "http://flag",
            "worker_concurrency": "8",
            "pipelines": "a:B,c:D",
            "vocabulary": str(tmp_path / "with space"),
            "worker": "False",
            "redis_url": "redis://:p%40ss@db",
            "haiku_model": "claude-x",
        }
    )
    environment = child_environment(settings)
    with pytest.MonkeyPatch.context() as child:
        for name in list(os.environ):
            child.delenv(name)
        for name, value in environment.items():
            child.setenv(name, value)
        assert load_settings({}) == settings


def test_a_childs_settings_can_be_changed_and_the_rest_of_its_environment_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/some/where")
    settings = load_settings({"redis_url": "", "lease": "3"})
    environment = child_environment(settings, redis_url="unix:///private.sock")
    assert environment["PYTHONPATH"] == "/some/where"
    assert environment["HEADSTART_REDIS_URL"] == "unix:///private.sock"
    assert environment["HEADSTART_LEASE"] == "3"
    assert "HEADSTART_DRAIN" not in environment, "what nobody set keeps its default"


def test_every_setting_is_described() -> None:
    described = {name: text for name, _, text in describe()}
    assert set(described) == set(Settings.model_fields)
    assert all(text.endswith(".") for text in described.values())


def test_bytes_that_are_no_utf_8_are_refused_because_nothing_could_print_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HEADSTART_VOCABULARY", "/cache/\udcff")
    monkeypatch.setenv("HEADSTART_HOST", "\udcff")
    monkeypatch.setenv("HEADSTART_PIPELINES", "\udcff:A")
    lines = complaints().splitlines()[1:]
    assert [line.split(" = ")[0].strip() for line in lines] == [
        "HEADSTART_HOST",
        "HEADSTART_VOCABULARY",
        "HEADSTART_PIPELINES",
    ]
    assert all(line.isprintable() and line.endswith("must be UTF-8") for line in lines)


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".y", "\0"])
async def test_what_is_no_host_is_reported_by_its_variable(host: str) -> None:
    with pytest.raises(StartupError, match=r"^HEADSTART_H"):
        async with http_server(host, 0, lambda: Readiness(ready=True)):
            pass


def test_rules_take_each_field_from_the_setting_of_its_name() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Rules:
        drain: float
        lease: float = 1.0
        name: str

    settings = Settings(drain=3.0, lease=7.0)
    assert rules_of(Rules, settings, name="w") == Rules(drain=3.0, lease=7.0, name="w")
    assert rules_of(Rules, settings, name="w", drain=1.0).drain == 1.0

    @dataclass(frozen=True, kw_only=True)
    class Misspelt:
        drian: float = 1.0

    with pytest.raises(TypeError, match=r"Misspelt\.drian must be a setting's name, or be given"):
        rules_of(Misspelt, settings)
