"""`headstart check-config`: every setting, its value and where that came from."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import SecretStr
from redis.exceptions import NoPermissionError

from ..base import exit_codes
from ..base.escaping import escaped
from ..base.output import shortened, show, table
from ..base.urls import redacted
from ..config.allowed_values import allowed
from ..config.loading import joined
from ..config.settings import KEYS, Settings, default_of, variable
from ..domain.errors import StartupError, StoreUnavailable
from ..processes.exposure import exposure
from ..processes.lifecycle import layout_problem, redis_client, served
from ..processes.preflight import flag, load_checked, strangers, unread_limits
from ..store.connect import API
from ..worker.own_providers import CheckedSettings, checked_settings

_PATIENCE = 1.0
"""Seconds for the store's layout; a store that cannot be reached here is not checked."""


@dataclass(frozen=True, slots=True)
class Row:
    """One setting as it is in force. Of a secret, `value` only tells that there is one."""

    variable: str
    flag: str | None
    """None for what must not stand among arguments."""
    value: Any
    source: str
    """The flag's name, `environment` or `default`."""
    default: Any
    allowed: str
    meaning: str


def check_config(flags: Mapping[str, str], *, as_json: bool) -> int:
    """Print every setting.

    Raises StartupError for wrong ones, those of authors' providers too, and for a store of another
    layout.
    """
    settings = load_checked(flags)
    found = rows(settings, flags)
    own = _own_providers(settings)
    if wrong := [each.problem for each in own if each.problem]:
        raise StartupError(joined(wrong) if wrong[1:] else wrong[0])
    if problem := asyncio.run(_of_the_store(settings)):
        raise StartupError(problem)
    warnings = [*_warnings(settings), *strangers(os.environ), *unread_limits(settings)]
    warnings += [line for each in own for line in each.strangers]
    as_text = table(
        [
            ("SETTING", "VALUE", "SOURCE"),
            *((row.variable, value_text(row.value), row.source) for row in found),
        ]
    )
    as_data = {"settings": [asdict(row) for row in found], "warnings": warnings}
    show(as_data, as_text, as_json=as_json)
    for warning in warnings:
        print(f"headstart: warning: {escaped(warning)}", file=sys.stderr)
    return exit_codes.DONE


def _own_providers(settings: Settings) -> list[CheckedSettings]:
    """Check the settings of authors' providers that a worker here opens; open none."""
    if not settings.worker:
        return []
    return [checked_settings(each) for each in served(settings).own_providers().values()]


async def _of_the_store(settings: Settings) -> str:
    """Return how the store contradicts these settings; empty when it does not answer."""
    if settings.redis_url is None:
        return ""
    url = settings.redis_url.get_secret_value()
    try:
        async with asyncio.timeout(_PATIENCE), redis_client(url, API) as client:
            if problem := await layout_problem(client, settings):
                return f"HEADSTART_PARTITIONS: {problem}"
    except StoreUnavailable as error:
        if isinstance(error.__cause__, NoPermissionError):
            return f"HEADSTART_REDIS_URL: {error}"
    except (TimeoutError, ValueError, TypeError):
        pass  # redis-py raises the last two for addresses and options that it refuses.
    return ""


def rows(settings: Settings, flags: Mapping[str, str]) -> list[Row]:
    """Every setting, in the order in which they are declared."""
    return [
        Row(
            variable=variable(name),
            flag=None if name in KEYS else flag(name),
            value=_plain(getattr(settings, name)),
            source=_source(name, settings, flags),
            default=_plain(default_of(name, settings)),
            allowed=allowed(name, field),
            meaning=field.description or "",
        )
        for name, field in Settings.model_fields.items()
    ]


def _source(name: str, settings: Settings, flags: Mapping[str, str]) -> str:
    if name in flags:
        return flag(name)
    return "environment" if name in settings.model_fields_set else "default"


def _warnings(settings: Settings) -> Iterator[str]:
    risk = exposure(settings)
    if risk is not None:
        yield f"HEADSTART_INSECURE: {risk}"


def _plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return "***"
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, str) and "://" in value:
        return redacted(value)
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def value_text(value: Any) -> str:
    """Return a setting's value as the table shows it."""
    if isinstance(value, list):
        return ",".join(value)
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(shortened(value))
