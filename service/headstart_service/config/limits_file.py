"""The file of limits: what each namespace and each provider may have, read again when it changes.

    [namespaces.shop]
    weight = 4                     # its share of busy workers, beside other namespaces
    llm_tokens_a_day = 2_000_000   # of language models, until midnight UTC

    [namespaces."*"]               # every namespace without a table of its own
    weight = 1

    [providers."anthropic/claude-haiku-5-5"]
    calls_a_minute = 600
    tokens_a_minute = 400_000
    concurrency = 40

    [providers.anthropic]          # each of its models without a table of its own
    concurrency = 100

    [providers."openai/NAME"]      # of any server with OpenAI's API
    concurrency = 8

A mistake in a new file leaves the limits in force that were read before.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..domain import namespace_violations
from ..domain.errors import StartupError
from .allowed_values import allowed
from .model_names import ModelName
from .reloaded_file import ReloadedFile, text_of

EMBEDDINGS: Final = "embeddings"
"""The provider of `embedder`, where that is an endpoint."""
EVERY: Final = "*"
_SETTING: Final = "HEADSTART_LIMITS"
_STRICT: Final = ConfigDict(frozen=True, extra="forbid", strict=True)


class NamespaceLimits(BaseModel):
    """What one namespace may have."""

    model_config = _STRICT

    weight: float = Field(default=1.0, ge=0.01, le=1000)
    """Its share of busy workers, beside those of other namespaces."""
    llm_tokens_a_day: int | None = Field(default=None, ge=1, le=10**15)
    """Tokens of language models that its steps may use between two midnights UTC."""


class ProviderLimits(BaseModel):
    """What all workers together may ask of one provider, or of one of its models."""

    model_config = _STRICT

    calls_a_minute: int | None = Field(default=None, ge=1, le=10**9)
    tokens_a_minute: int | None = Field(default=None, ge=1, le=10**12)
    concurrency: int | None = Field(default=None, ge=1, le=10**6)
    """Calls under way at once."""


_KINDS: Final[Mapping[str, type[BaseModel]]] = {
    "namespaces": NamespaceLimits,
    "providers": ProviderLimits,
}


class LimitsTable(BaseModel):
    """All limits of a file."""

    model_config = _STRICT

    namespaces: Mapping[str, NamespaceLimits] = Field(default_factory=dict)
    providers: Mapping[str, ProviderLimits] = Field(default_factory=dict)

    @cached_property
    def weights(self) -> Mapping[str, float]:
        """The weight of each namespace in the file, with EVERY for all others."""
        return {name: limits.weight for name, limits in self.namespaces.items()}

    def of_namespace(self, namespace: str) -> NamespaceLimits:
        """Return the namespace's own limits, else those of every namespace, else the defaults."""
        found = self.namespaces.get(namespace) or self.namespaces.get(EVERY)
        return found or NamespaceLimits()

    def of_provider(self, provider: str, model: str) -> ProviderLimits:
        """Return the model's own limits, else its provider's, else none."""
        found = self.providers.get(f"{provider}/{model}") or self.providers.get(provider)
        return found or ProviderLimits()


class LimitsFile:
    """The file, and what it held when it was last right. Without a file there are no limits."""

    def __init__(self, path: Path | None) -> None:
        """Read it. Raises StartupError that names every mistake."""
        self._file = ReloadedFile(path, read_limits, "limits") if path else None

    @property
    def table(self) -> LimitsTable:
        """The limits in force now."""
        return self._file.content if self._file else LimitsTable()

    @property
    def refusals(self) -> int:
        """How often what was new could not be read."""
        return self._file.refusals if self._file else 0

    async def watch(self) -> None:
        """Read it again whenever it changes, for ever; a mistake leaves the last good limits."""
        if self._file:
            await self._file.watch()


def read_limits(path: Path) -> LimitsTable:
    """Return a file's limits. Raises StartupError that names every mistake and its range."""
    text = text_of(path, _SETTING)
    try:
        table = LimitsTable.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise StartupError(f"{_SETTING}: {path} is not TOML: {error}") from None
    except ValidationError as error:
        found = [_complaint(detail) for detail in error.errors(include_url=False)]
    else:
        found = list(_wrong_names(table))
        if not found:
            return table
    raise StartupError(f"{_SETTING}: {path}: " + "; ".join(found))


def uncalled_providers(table: LimitsTable, models: Iterable[ModelName]) -> Iterator[str]:
    """Yield a line about each provider in the file that a worker with these models never calls."""
    known = sorted({name for model in models for name in (model.dialect, model.provider)})
    there = f"there are {', '.join(known)}" if known else "no step takes a language model"
    for name in table.providers:
        if name not in known:
            yield f"{_SETTING}: providers.{name} limits no calls; {there}"


def _complaint(detail: Any) -> str:
    loc = [str(part) for part in detail["loc"]]
    where = ".".join(loc)
    kind = _KINDS.get(loc[0])
    of_table = len(loc) == 3  # noqa: PLR2004  # kind, name, limit
    if detail["type"] == "extra_forbidden":
        known: type[BaseModel] = kind if of_table and kind else LimitsTable
        return f"{where}: is no limit; there are {', '.join(known.model_fields)}"
    if kind and of_table and loc[2] in kind.model_fields:
        rule = allowed(loc[2], kind.model_fields[loc[2]])
        return f"{where} = {detail['input']!r}: must be {rule}"
    return f"{where}: must be a table"


def _wrong_names(table: LimitsTable) -> Iterator[str]:
    for name in table.namespaces:
        if name != EVERY:
            for violation in namespace_violations(name):
                yield f"namespaces.{name!r}: {violation.description}; {EVERY} is every other one"
    for name in table.providers:
        if not name.isprintable() or not name.strip("/") or len(name) > 256:  # noqa: PLR2004
            yield f"providers.{name!r}: must be PROVIDER or PROVIDER/MODEL, at most 256 characters"
