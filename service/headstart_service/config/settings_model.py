"""Fills a pydantic model from environment variables, for code that brings settings of its own.

Each field is read from its variable, a prefix and the field's name in upper case. Else it is read
from the file that `<variable>_FILE` names, as clients read HEADSTART_TOKEN_FILE. A
pydantic-settings model keeps its own prefix and sources. No message quotes a secret.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import AliasChoices, BaseModel, SecretBytes, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from ..domain.errors import StartupError
from .allowed_values import allowed

_FILE: Final = "_FILE"
_SHORTEST: Final = 4
"""Characters of a secret that is looked for in messages; shorter ones are in too many words."""
_HIDDEN: Final = "…"


@dataclass(frozen=True, slots=True)
class ReadSettings:
    """Settings that are valid, with what must not be shown of them."""

    values: BaseModel
    secrets: frozenset[str]
    variables: Mapping[str, str]
    """The variable of each field."""
    prefix: str

    def hidden(self, text: str) -> str:
        """Return `text` without the secrets that it quotes."""
        return _hidden(text, self.secrets)

    def unknown(self, environment: Mapping[str, str]) -> Iterator[tuple[str, str | None]]:
        """Yield variables with the prefix that no field reads, each with the nearest known one."""
        known = {*self.variables.values(), *(f"{name}{_FILE}" for name in self.variables.values())}
        for variable in sorted(environment):
            name = variable.upper()
            if self.prefix and name.startswith(self.prefix) and name not in known:
                near = difflib.get_close_matches(name, known, 1)
                yield variable, near[0] if near else None


def read_settings(model: type[BaseModel], prefix: str, whose: str) -> ReadSettings:
    """Read a model's fields from the environment.

    Raises StartupError that begins with `whose` and names every wrong variable and its range.
    """
    reader = _Reader(model, prefix, whose)
    return reader.read()


class _Reader:
    def __init__(self, model: type[BaseModel], prefix: str, whose: str) -> None:
        self._model = model
        self._whose = whose
        own: Any = model.model_config
        self._prefix = (issubclass(model, BaseSettings) and own.get("env_prefix")) or prefix
        self._sensitive = issubclass(model, BaseSettings) and bool(own.get("case_sensitive"))
        self._variables = {name: self._variable(name) for name in model.model_fields}
        self._secrets: set[str] = set()

    def read(self) -> ReadSettings:
        wrong: list[str] = []
        files = self._from_files(wrong)
        for name, field in self._model.model_fields.items():
            if _is_secret(field.annotation) and (raw := self._raw(name)):
                self._secrets |= {raw, raw.strip()}
        if wrong:
            raise self._failure(wrong)
        try:
            values = self._filled(files)()
        except ValidationError as error:
            details = error.errors(include_url=False)
            raise self._failure([self._complaint(detail) for detail in details]) from None
        except SettingsError as error:
            named = next((name for name in self._variables if f'"{name}"' in str(error)), "")
            variable = self._variables.get(named, f"{self._prefix}*")
            raise self._failure([f"{variable}: must be JSON"]) from None
        self._secrets |= set(_secrets_in(values))
        return ReadSettings(values, frozenset(self._secrets), self._variables, self._prefix.upper())

    def _filled(self, files: Mapping[str, str]) -> type[BaseSettings]:
        """Return the model with sources: variables, then files, then its own."""
        own = issubclass(self._model, BaseSettings)
        bases: tuple[Any, ...] = (self._model,) if own else (self._model, BaseSettings)
        prefix, fold = self._prefix, self._fold

        def customise(
            cls: type[BaseSettings],
            /,
            settings_cls: type[BaseSettings],
            **sources: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            source = EnvSettingsSource(settings_cls)
            given = {name: value for name, value in source.env_vars.items() if value != ""}
            source.env_vars = {fold(name): text for name, text in files.items()} | given
            base: Any = self._model if own else BaseSettings
            return (source, *base.settings_customise_sources.__func__(cls, settings_cls, **sources))

        return type(
            self._model.__name__,
            bases,
            {
                "__module__": self._model.__module__,
                "model_config": SettingsConfigDict(env_prefix=prefix, env_ignore_empty=True),
                "settings_customise_sources": classmethod(customise),
            },
        )

    def _from_files(self, wrong: list[str]) -> dict[str, str]:
        """Read the files that variables name, and note those that cannot be read."""
        found = {}
        for name, variable in self._variables.items():
            if f"{name}_file" in self._model.model_fields or self._raw(name):
                continue
            path = _of_environment(f"{variable}{_FILE}", sensitive=self._sensitive)
            if not path:
                continue
            try:
                text = Path(path).expanduser().read_text(encoding="utf-8").strip("\r\n")
            except (OSError, ValueError, RuntimeError) as error:
                reason = getattr(error, "strerror", None) or "is no UTF-8 text"
                wrong.append(f"{variable}{_FILE} = {path!r}: {reason}: must be a readable file")
                continue
            found[variable] = text
            self._secrets.add(text)
        return found

    def _raw(self, name: str) -> str:
        return _of_environment(self._variables[name], sensitive=self._sensitive)

    def _fold(self, variable: str) -> str:
        return variable if self._sensitive else variable.lower()

    def _variable(self, name: str) -> str:
        alias = self._model.model_fields[name].validation_alias
        if isinstance(alias, AliasChoices):
            alias = next((each for each in alias.choices if isinstance(each, str)), None)
        own = alias if isinstance(alias, str) else f"{self._prefix}{name}"
        return own if self._sensitive else own.upper()

    def _complaint(self, detail: Any) -> str:
        place = [str(part) for part in detail["loc"]]
        field = self._model.model_fields.get(place[0]) if place else None
        if field is None:  # a rule over several fields, or an alias
            variable = place[0].upper() if place else f"{self._prefix}*"
            return f"{variable}: {_rule(detail)}"
        variable = self._variables[place[0]]
        inner = f", {'.'.join(place[1:])}" if place[1:] else ""
        number = {int, float, bool} & (set(get_args(field.annotation)) or {field.annotation})
        rule = f"must be {allowed('', field)}" if number and not inner else _rule(detail)
        if detail["type"] == "missing" and not inner:
            text = f": must be {allowed('', field)}" if number else ""
            return f"{variable} is not set{text}; it or {variable}{_FILE} is needed"
        given = f" = {str(detail['input'])[:60]!r}" if number and not inner else ""
        return f"{variable}{given}{inner}: {rule}"

    def _failure(self, wrong: Iterable[str]) -> StartupError:
        lines = [_hidden(line, self._secrets) for line in wrong]
        text = lines[0] if len(lines) == 1 else "\n" + "\n".join(f"  {line}" for line in lines)
        return StartupError(f"{self._whose}: wrong settings: {text}")


def _of_environment(variable: str, *, sensitive: bool) -> str:
    if sensitive:
        return os.environ.get(variable, "")
    wanted = variable.upper()
    return next((value for name, value in os.environ.items() if name.upper() == wanted), "")


def _rule(detail: Any) -> str:
    own = (detail.get("ctx") or {}).get("error")
    return str(own) if own else str(detail["msg"]).replace("Input should", "must", 1)


def _is_secret(annotation: Any) -> bool:
    return annotation in (SecretStr, SecretBytes) or any(map(_is_secret, get_args(annotation)))


def _secrets_in(value: Any) -> Iterator[str]:
    """Yield the text of each secret in a model, however deep."""
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, SecretBytes):
        yield value.get_secret_value().decode(errors="replace")
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _secrets_in(getattr(value, name))
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _secrets_in(each)
    elif isinstance(value, list | tuple | set | frozenset):
        for each in value:
            yield from _secrets_in(each)


def _hidden(text: str, secrets: Iterable[str]) -> str:
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, _HIDDEN)
    return text
