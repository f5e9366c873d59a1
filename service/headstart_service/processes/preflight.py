"""Checks all settings together before anything starts: one message names what is wrong.

Beyond each setting's own range, which `settings` checks, there are rules over several. There are
also files and URLs that a process would only find unusable when it comes to them.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Final

from ..config.allowed_values import unknown_variables
from ..config.limits_file import EMBEDDINGS, LimitsFile, uncalled_providers
from ..config.loading import joined, try_settings
from ..config.model_keys import all_named, key_mistakes
from ..config.model_names import ModelName
from ..config.settings import Settings, variable
from ..domain.errors import StartupError
from ..pipeline.declared_providers import SETTING, declared_providers, split_references
from ..store.connect import API, open_client
from .exposure import certificate, check_exposure, check_http_tls, check_origins, token_file
from .lifecycle import registry, served, store_rules

log = logging.getLogger(__name__)

_Check = Callable[[Settings], object]


def load_checked(flags: Mapping[str, str], *, listens: bool = True) -> Settings:
    """The settings of a process, from flags, else the environment, else the defaults.

    `listens` is whether it is to have a gRPC port, whose security is looked at too. Raises
    StartupError that names every wrong setting, where its value came from and what is allowed.
    """
    settings, wrong = try_settings(flags)
    names = [name for field in wrong for name in (variable(field), flag(field))]
    # A rule over several settings is not checked while one of them is wrong by itself.
    more = [
        _with_flag(problem, flags)
        for problem in problems(settings, listens=listens)
        if not any(name in problem for name in names)
    ]
    if not wrong and len(more) == 1:
        raise StartupError(more[0])
    if wrong or more:
        raise StartupError(joined([*wrong.values(), *more]))
    return settings


def _with_flag(problem: str, flags: Mapping[str, str]) -> str:
    """The problem, named by the flag too where one was given."""
    name, colon, rest = problem.partition(":")
    given = [flag(field) for field in flags if variable(field) == name]
    return f"{given[0]} ({name}){colon}{rest}" if given else problem


def problems(settings: Settings, *, listens: bool = True) -> Iterator[str]:
    """What is wrong with them, one text each, beginning with the variable to mend."""
    checks: list[_Check] = [_Rules.store, _Rules.url, _Rules.hangs, _Rules.limits, served]
    checks.append(_Rules.keys)
    if listens:
        checks += [
            _Rules.ports,
            check_exposure,
            check_origins,
            check_http_tls,
            certificate,
            token_file,
        ]
    else:
        checks.append(_Rules.shared_store)
    seen = set()
    for check in checks:
        try:
            check(settings)
        except StartupError as error:
            if str(error) not in seen:  # two checks find half a TLS pair
                seen.add(str(error))
                yield str(error)


def warn_of_unknown(settings: Settings) -> None:
    """Log a warning for each variable, and each provider with limits, that nothing reads."""
    for line in (*strangers(os.environ), *unread_limits(settings)):
        log.warning("%s", line)


def unread_limits(settings: Settings) -> Iterator[str]:
    """Yield a line about each table of the file of limits that nothing reads."""
    models = all_named(settings, {"", *registry(settings).language_models})
    if settings.embeddings_url:
        models.append(ModelName(EMBEDDINGS, settings.embeddings_model))
    yield from uncalled_providers(LimitsFile(settings.limits).table, models)


def strangers(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield a line about each variable that resembles a setting and is none.

    Settings of authors' providers are known to the workers that open them.
    """
    own: tuple[str, ...] = ()
    with suppress(StartupError):  # another check reports it
        references = split_references(environment.get(SETTING, ""))
        own = tuple(each.prefix for each in declared_providers(references).values())
    for name, near in unknown_variables(environment, map(variable, Settings.model_fields)):
        if name.upper().startswith(own):
            continue
        advice = f": did you mean {near}?" if near else ""
        yield f"{name} is no setting of Headstart{advice}"


def flag(name: str) -> str:
    """The flag of the field of this name."""
    return f"--{name.replace('_', '-')}"


NO_REDIS: Final = (
    "HEADSTART_REDIS_URL: a worker needs the Redis of its API processes, such as "
    "redis://localhost:6379; beside `serve` with an embedded Valkey unix:///path/valkey.sock, "
    "which its log names"
)


class _Rules:
    """Checks that have no other home."""

    @staticmethod
    def shared_store(settings: Settings) -> None:
        if settings.redis_url is None:
            raise StartupError(NO_REDIS)

    @staticmethod
    def store(settings: Settings) -> None:
        store_rules(settings)

    @staticmethod
    def limits(settings: Settings) -> None:
        LimitsFile(settings.limits)

    @staticmethod
    def keys(settings: Settings) -> None:
        for mistake in key_mistakes(settings):
            raise StartupError(mistake)

    @staticmethod
    def hangs(settings: Settings) -> None:
        if settings.hang_limit and settings.hang_limit <= settings.block_limit:
            raise StartupError(
                f"HEADSTART_HANG_LIMIT: {settings.hang_limit:g} s are not more than "
                f"HEADSTART_BLOCK_LIMIT, {settings.block_limit:g} s: stop a step before "
                "its worker; set more, or 0 for no limit"
            )

    @staticmethod
    def ports(settings: Settings) -> None:
        names = ("grpc_port", "http_port", "connect_port")
        for one, other in itertools.combinations(names, 2):
            port = getattr(settings, one)
            if port and port == getattr(settings, other):
                raise StartupError(
                    f"{variable(one)}: {port} is {variable(other)} too: they must differ"
                )

    @staticmethod
    def url(settings: Settings) -> None:
        if settings.redis_url is not None:
            # Nothing is connected before its first use.
            open_client(settings.redis_url.get_secret_value(), API)
