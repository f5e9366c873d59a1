"""Loads the settings from flags and environment, and gives them to child processes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import SecretStr, ValidationError

from ..base.output import shortened
from ..domain.errors import StartupError
from .allowed_values import allowed
from .settings import SECRET, Settings, default_of, variable


def load_settings(flags: Mapping[str, str]) -> Settings:
    """Return the settings from flags, else the environment, else the defaults.

    Raises StartupError that names every wrong setting, where its value came from and its range.
    """
    settings, wrong = try_settings(flags)
    if wrong:
        raise StartupError(joined(list(wrong.values())))
    return settings


def try_settings(flags: Mapping[str, str]) -> tuple[Settings, Mapping[str, str]]:
    """Return the settings, wrong ones by their defaults, and a complaint about each of these."""
    values: dict[str, Any] = dict(flags)
    try:
        return Settings(**values), {}
    except ValidationError as error:
        wrong = {
            _field_of(detail): _complaint(detail, flags)
            for detail in error.errors(include_url=False)
        }
    # A flag takes precedence over the environment.
    defaults = {name: default_of(name) for name in wrong}
    return Settings(**(values | defaults)), wrong


def joined(complaints: Sequence[str]) -> str:
    """Join several complaints to one message."""
    return "wrong settings:\n" + "\n".join(f"  {each}" for each in complaints)


def child_environment(settings: Settings, **changes: str) -> dict[str, str]:
    """Return the environment that gives a child process these settings, some changed by name.

    Settings travel in the environment because a secret must never stand in a process's arguments.
    """
    environment = dict(os.environ)
    for name in settings.model_fields_set:
        environment[variable(name)] = _text(getattr(settings, name))
    for name, value in changes.items():
        environment[variable(name)] = value
    return environment


def describe() -> Sequence[tuple[str, str, str]]:
    """Return every field's name, default as text, and description."""
    return [
        (name, _text(default_of(name)), field.description or "")
        for name, field in Settings.model_fields.items()
    ]


def _text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple):
        return ",".join(value)
    return "" if value is None else str(shortened(value))


def _field_of(detail: Any) -> str:
    return str(detail["loc"][0]).lower()


def _complaint(detail: Any, flags: Mapping[str, str]) -> str:
    name = _field_of(detail)
    source = f"--{name.replace('_', '-')}" if name in flags else variable(name)
    value = str(detail["input"])
    given = "" if name in SECRET else f" = {value[:60]!r}"
    own = (detail.get("ctx") or {}).get("error")
    rule = str(own) if own else f"must be {allowed(name, Settings.model_fields[name])}"
    if value.startswith("tcp://") and name not in flags:
        rule += (
            "; Kubernetes sets this for a Service of that name, unless the pod has "
            "enableServiceLinks: false"
        )
    return f"{source}{given}: {rule}"
