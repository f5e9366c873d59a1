"""The providers that exist: the built-in ones, and those that authors register.

An author registers a provider by an entry point of the group `headstart.providers`, or by
HEADSTART_PROVIDERS. Its name and its `module:name` are read here, and nothing is imported. So API
processes, workers, `pipelines check` and `run_pipeline` know the same names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from keyword import iskeyword
from types import MappingProxyType
from typing import Final

from ..domain.errors import StartupError
from .entry_points import PROVIDERS, described, entry_points
from .providers import BUILT_IN
from .runs_on import ACTOR_PARAMETER
from .step import DIGEST_PARAMETER

SETTING: Final = "HEADSTART_PROVIDERS"
_REFERENCE: Final = re.compile(r"(?:([^=:]*)=)?([\w.]+):([\w.]+)")
_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,63}")
_RESERVED: Final = (DIGEST_PARAMETER, ACTOR_PARAMETER)


@dataclass(frozen=True, slots=True)
class DeclaredProvider:
    """A provider of an author's, by its name and the place of its factory."""

    name: str
    """The name of the parameter that gets it."""
    reference: str
    """Its factory, as module:name."""
    source: str
    """The setting or the distribution that registers it."""

    @property
    def module(self) -> str:
        """The module of its factory."""
        return self.reference.partition(":")[0]

    @property
    def prefix(self) -> str:
        """What the variables of its settings begin with."""
        return f"HEADSTART_PROVIDER_{self.name.upper()}_"

    def __str__(self) -> str:
        return f"provider {self.name} ({self.source}: {self.reference})"


DeclaredProviders = Mapping[str, DeclaredProvider]
NO_PROVIDERS: Final[DeclaredProviders] = MappingProxyType({})


def declared_providers(references: Sequence[str]) -> DeclaredProviders:
    """Return all providers of authors by name: of installed distributions, and these references.

    A reference is a `module:name`, or `parameter=module:name`. Raises StartupError that names the
    source of a wrong reference or name, and of two providers of one name.
    """
    found: dict[str, DeclaredProvider] = {}
    for each in (*_installed(), *map(_referred, references)):
        _check_name(each)
        first = found.setdefault(each.name, each)
        if first.reference != each.reference:  # a setting may name an installed provider again
            raise StartupError(
                f"{each.source}: two providers are named {each.name}: {first.reference} "
                f"({first.source}) and {each.reference}"
            )
    return found


def split_references(text: str) -> tuple[str, ...]:
    """Return the references of a text as HEADSTART_PROVIDERS has it."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _installed() -> Iterator[DeclaredProvider]:
    for point in entry_points(PROVIDERS):
        yield DeclaredProvider(point.name, point.value, described(point))


def _referred(reference: str) -> DeclaredProvider:
    match = _REFERENCE.fullmatch(reference.strip())
    if match is None:
        raise StartupError(
            f"{SETTING}: {reference!r} must be module:name, or parameter=module:name, several "
            "separated by commas"
        )
    given, module, attribute = match.groups()
    name = attribute.rpartition(".")[2] if given is None else given.strip()
    return DeclaredProvider(name, f"{module}:{attribute}", SETTING)


def _check_name(provider: DeclaredProvider) -> None:
    name = provider.name
    if not _NAME.fullmatch(name) or iskeyword(name):
        raise StartupError(
            f"{provider.source}: no step can take a provider named {name!r}: a name is an "
            "identifier of at most 64 of a-z, 0-9 and '_'. Rename the entry point, or write "
            f"parameter={provider.reference} in {SETTING}"
        )
    if name in BUILT_IN:
        raise StartupError(
            f"{provider.source}: {provider.reference} cannot be named {name}, which is a built-in "
            f"provider, as are {', '.join(sorted(BUILT_IN - {name}))}: choose another name"
        )
    if name in _RESERVED:
        raise StartupError(
            f"{provider.source}: {provider.reference} cannot be named {name}: steps get another "
            "value by that parameter; choose another name"
        )
