"""Declares every setting: its name, default, range and reason."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import platformdirs
from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from . import model_settings, setting_checks
from .allowed_values import PREFIX, allowed
from .listening_settings import ListeningSettings
from .model_names import is_model_name
from .partitions import default_partitions
from .storage_settings import StorageSettings

_DIRS = platformdirs.PlatformDirs("headstart", appauthor=False)
KEYS = ("anthropic_api_key", "openai_api_key", "embeddings_key")
"""Secrets: no argument of a process may hold them."""
API_URLS = ("anthropic_base_url", "openai_base_url", "embeddings_url")
SECRET = (*KEYS, *API_URLS, "redis_url", "ray_address", "tokens", "storage")
"""The settings whose values no message may quote; some may take `tokens` for the token itself."""
LISTS = ("pipelines", "providers", "pools", "cors_origins")
"""The settings that take several values, separated by commas."""
_STRIPPED = ("redis_url", *KEYS, *API_URLS)
"""What is often read from a file with a line end."""


class Settings(StorageSettings, ListeningSettings):
    """The settings of `headstart serve` and `headstart worker`. Durations are in seconds."""

    data_dir: Path = Field(
        Path(_DIRS.user_data_dir),
        description="Directory of the embedded Valkey's data and socket.",
    )
    redis_url: SecretStr | None = Field(
        None,
        description="Redis 7+ or Valkey 8+. Without it `serve` runs an embedded Valkey.",
    )
    prefix: str = Field(
        "headstart",
        pattern="^[A-Za-z0-9._-]{1,64}$",
        description="Prefix of all keys and channels in Redis. Installations that share a Redis "
        "need different prefixes or databases.",
    )
    partitions: int = Field(
        cast("int", None),  # see `default_partitions`
        ge=1,
        le=1024,
        description="Slots that runs are spread over, equal in all processes of a store. "
        "`headstart repartition` changes it.",
    )
    result_ttl: float = Field(
        1800.0,
        ge=0.001,
        le=7 * 86400,
        description="Lifetime of results, unless a start sets `ttl`.",
    )
    failure_ttl: float = Field(
        60.0, ge=0.001, le=86400, description="Lifetime of failed and cancelled runs."
    )
    max_cached_results: int = Field(
        1000,
        ge=1,
        le=10_000_000,
        description="Most runs that are kept, over all replicas.",
    )
    namespace_max_results: int = Field(
        0,
        ge=0,
        le=10_000_000,
        description="Most runs that one namespace may keep; 0: no limit of its own.",
    )
    max_queued: int = Field(
        0,
        ge=0,
        le=10_000_000,
        description="Most runs that have not ended, over all replicas; 0: as many as are kept.",
    )
    max_memos: int = Field(
        1024,
        ge=0,
        le=10_000_000,
        description="Most results of memoised steps, beside the runs; 0: none.",
    )
    memo_ttl: float = Field(
        3600.0, ge=0.001, le=30 * 86400, description="Lifetime of memoised results."
    )
    queue_order: str = Field(
        "need",
        pattern="^(need|arrival)$",
        description="Order of the queue: by the time of need, or of arrival.",
    )
    max_waiters: int = Field(
        20_000,
        ge=1,
        le=1_000_000,
        description="Most GetResults calls that one API process holds.",
    )
    max_watches: int = Field(
        5000,
        ge=1,
        le=1_000_000,
        description="Most WatchResults streams that one API process holds.",
    )
    max_calls: int = Field(
        2000,
        ge=1,
        le=1_000_000,
        description="Most other calls that one API process holds.",
    )
    max_connection_age: float = Field(
        300.0,
        ge=0,
        le=86_400,
        description="How long a connection or a watch lives, give or take a tenth. Then clients "
        "connect again, maybe to a new replica; no call fails. 0: any time.",
    )
    near_cache_mb: int = Field(
        32,
        ge=0,
        le=4096,
        description="MiB of an API process for answers that it need not read again.",
    )
    worker: bool = Field(True, description="Whether `serve` runs a worker in a child process.")
    worker_concurrency: int = Field(
        64,
        ge=1,
        le=1024,
        description="Most runs that compute at once in one worker. A run that waits for a "
        "language model or another service does not count.",
    )
    worker_runs: int = Field(
        2000,
        ge=1,
        le=100_000,
        description="Most runs that one worker holds, those that wait included; at least as many "
        "as compute.",
    )
    word_cache: int = Field(
        10_000,
        ge=0,
        le=1_000_000,
        description="Most texts whose embeddings a worker keeps, beside its vocabulary.",
    )
    lease: float = Field(
        10.0,
        ge=0.5,
        le=600,
        description="How long a silent worker keeps its runs; it renews the lease every third.",
    )
    drain: float = Field(
        5.0, ge=0, le=600, description="How long runs and calls may go on after SIGTERM."
    )
    compute_threads: int = Field(
        1,
        ge=1,
        le=256,
        description="Threads of a worker's model. For more throughput run more workers with one "
        "thread each.",
    )
    step_threads: int = Field(
        4, ge=1, le=256, description='Threads of a worker for steps with `runs_on="thread"`.'
    )
    step_processes: int = Field(
        2,
        ge=1,
        le=256,
        description='Processes of a worker for steps with `runs_on="process"`.',
    )
    step_wait: float = Field(
        300.0,
        ge=0.001,
        le=86_400,
        description="How long a step may wait for a free thread or process, or for its turn at a "
        "provider, beside its own timeout.",
    )
    block_limit: float = Field(
        1.0,
        ge=0,
        le=600,
        description="How long a step may block a worker's event loop before it is stopped; 0: "
        "any time.",
    )
    hang_limit: float = Field(
        10.0,
        ge=0,
        le=3600,
        description="How long a worker's event loop may stand still before the worker ends "
        "itself; 0: any time. Twice as long where code in C holds the interpreter.",
    )
    ray_address: str | None = Field(
        None,
        description='Ray cluster of steps with `runs_on="ray"`. Without it Ray finds one, or the '
        "worker starts its own.",
    )
    model: str = Field(
        "all-MiniLM-L6-v2",
        min_length=1,
        description="Sentence-transformers model, a name or a path, that `headstart model prepare` "
        "has prepared.",
    )
    prepared_models: Path = Field(
        Path(_DIRS.user_cache_dir) / "models-1",
        description="Directory of prepared models.",
    )
    vocabulary: Path = Field(
        # The name has the format's number, so that two versions on a machine do not share it.
        Path(_DIRS.user_cache_dir) / "vocabulary-3",
        description="Directory of the embedded vocabulary. A worker builds it if it is missing "
        "or of another model.",
    )
    language_model: str | None = model_settings.LANGUAGE_MODEL
    haiku_model: str = model_settings.HAIKU_MODEL
    warm_models: bool = model_settings.WARM_MODELS
    anthropic_api_key: SecretStr | None = model_settings.api_key("anthropic")
    anthropic_api_key_file: Path | None = model_settings.api_key_file("anthropic")
    anthropic_base_url: str | None = model_settings.base_url("anthropic")
    openai_api_key: SecretStr | None = model_settings.api_key("openai")
    openai_api_key_file: Path | None = model_settings.api_key_file("openai")
    openai_base_url: str | None = model_settings.base_url("openai")
    embeddings_url: str | None = Field(
        None,
        description="OpenAI-compatible endpoint of `embedder` instead of the local model, up to "
        "`/v1`. Not with the word game.",
    )
    embeddings_model: str = Field(
        "text-embedding-3-small", min_length=1, description="Model at that endpoint."
    )
    embeddings_key: SecretStr | None = Field(None, description="Key of that endpoint.")
    embeddings_key_file: Path | None = Field(None, description=model_settings.KEY_FILE)
    embeddings_dimensions: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="Length of its vectors. Without it a worker asks once when it starts.",
    )
    embeddings_batch: int = Field(
        64, ge=1, le=2048, description="Most texts of one request to that endpoint."
    )
    bridging: bool = Field(
        True,
        description="Whether bridging games are offered. Without them a worker loads a model only "
        "if another pipeline takes it.",
    )
    pipelines: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="More pipelines, beside those that installed packages offer.",
    )
    providers: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Providers of your own, beside those of installed packages, for API and worker "
        "processes.",
    )
    http_per_host: int = Field(
        20,
        ge=1,
        le=1000,
        description="Requests of the provider `http` to one host that a worker has under way.",
    )
    http_retries: int = Field(
        2,
        ge=0,
        le=10,
        description="How often `http` repeats a request after what may pass.",
    )
    open_limit: float = Field(
        120.0,
        ge=0.1,
        le=3600,
        description="How long each provider of your own may take to open and warm up.",
    )
    close_limit: float = Field(
        5.0,
        ge=0,
        le=600,
        description="How long providers of your own may take to close, after the drain.",
    )
    pools: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Pools that a worker serves, separated by commas, such as `default,gpu`: it "
        "runs the pipelines that name them. Without it, it serves all.",
    )
    max_artifact_bytes: int = Field(
        8 * 1024 * 1024,
        ge=1024,
        le=60 * 1024 * 1024,
        description="Most bytes that one step may return; a larger result fails the step.",
    )
    max_run_bytes: int = Field(
        32 * 1024 * 1024,
        ge=1024,
        le=60 * 1024 * 1024,
        description="Most bytes that all steps of a run may return; the step beyond it fails. "
        "Clients receive 64 MiB.",
    )
    metrics: bool = Field(
        True, description="Whether the HTTP port serves Prometheus metrics at `/metrics`."
    )
    log_level: str = Field(
        "info",
        pattern="^(debug|info|warning|error)$",
        description="Least level of the lines that are logged.",
    )
    log_format: str = Field(
        "auto",
        pattern="^(auto|text|json)$",
        description="Format of log lines; `auto` is JSON in a pod, else text.",
    )
    log_inputs: bool = Field(
        False, description="Whether log lines show what runs are about, which may be personal."
    )
    tracing: bool = Field(
        False,
        description="Whether OpenTelemetry spans are exported, to OTEL_EXPORTER_OTLP_ENDPOINT.",
    )

    _split = field_validator(*LISTS, mode="before")(setting_checks.split)
    _host = field_validator("host", mode="before")(setting_checks.without_brackets)
    _pools = field_validator("pools")(setting_checks.are_pools)
    _origins = field_validator("cors_origins")(setting_checks.are_origins)
    _key = field_validator(*KEYS, mode="before")(setting_checks.is_key)
    _url = field_validator(*API_URLS, mode="before")(setting_checks.is_url)
    _model = field_validator("language_model")(is_model_name)
    _tokens = field_validator("tokens", mode="before")(setting_checks.is_no_token)

    # Of validators before a field's own, the last is called first.
    @field_validator("partitions", mode="before")
    @classmethod
    def _of_deployment(cls, value: Any, info: ValidationInfo) -> Any:
        return default_partitions(info.data) if value is None else value

    @field_validator("*")
    @classmethod
    def _from_home(cls, value: Any) -> Any:
        # No shell has expanded what comes from a file of settings or a manifest.
        if isinstance(value, Path):
            try:
                return value.expanduser()
            except RuntimeError as error:
                raise ValueError(
                    "must begin with a user's home that exists, or with none"
                ) from error
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _is_text(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str) and info.field_name in _STRIPPED:
            value = value.strip()
        if value == "" and (name := str(info.field_name)) not in LISTS:
            if cls.model_fields[name].default is None:
                return None
            raise ValueError(f"must be {allowed(name, cls.model_fields[name])}")
        # Python decodes bytes of the environment that are no UTF-8 to unprintable code points.
        if isinstance(value, str) and not value.isprintable():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ValueError("must be UTF-8") from None
        return value


def default_of(name: str, settings: Settings | None = None) -> Any:
    """Return a field's default, beside the other values of `settings`."""
    if name == "partitions":
        return default_partitions(dict(settings or ()))
    return Settings.model_fields[name].default


def variable(name: str) -> str:
    """The environment variable that sets the field of this name."""
    if name.startswith(("anthropic_", "openai_")):
        return name.upper()
    return f"{PREFIX}{name.upper()}"
