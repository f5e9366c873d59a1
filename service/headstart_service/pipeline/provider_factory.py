"""The factory of an author's provider: what makes its context, and what settings it takes."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from ..domain.errors import StartupError
from .declared_providers import DeclaredProvider
from .mistakes import line_of

_RULE: Final = (
    "a provider is an async context manager: a function with @contextlib.asynccontextmanager, or a "
    "class with __aenter__ and __aexit__"
)


@dataclass(frozen=True, slots=True)
class ProviderFactory:
    """Makes an author's provider."""

    declared: DeclaredProvider
    function: Callable[..., Any]
    settings: type[BaseModel] | None
    """The model of its settings; None for a factory without a parameter."""

    def make(self, settings: BaseModel | None) -> AbstractAsyncContextManager[Any]:
        """Return its context. Raises what the factory raises, and TypeError for what is none."""
        made = self.function() if settings is None else self.function(settings)
        if not (hasattr(type(made), "__aenter__") and hasattr(type(made), "__aexit__")):
            raise TypeError(f"returned a {type(made).__name__}: {_RULE}")
        return made  # type: ignore[no-any-return]  # it has been looked at


def load_factory(declared: DeclaredProvider) -> ProviderFactory:
    """Import a provider's module, and return its factory.

    Raises StartupError, which names the provider and, where it can, the line to mend.
    """
    module, _, attribute = declared.reference.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # the module may raise anything while it is imported
        raise StartupError(
            f"{declared}: cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if wrong := _wrong(found):
        where = line_of(found) if callable(found) else declared.module
        raise StartupError(f"{where}: {declared}: {wrong}")
    return ProviderFactory(declared, found, _settings_of(declared, found))


def _wrong(found: Any) -> str:
    """Why this is no factory; empty if it is one, as far as can be seen without a call."""
    if not callable(found):
        return f"is a {type(found).__name__}; {_RULE}"
    if inspect.isclass(found):
        missing = [name for name in ("__aenter__", "__aexit__") if not hasattr(found, name)]
        return f"has no {' and no '.join(missing)}; {_RULE}" if missing else ""
    plain = inspect.iscoroutinefunction(found) or inspect.isasyncgenfunction(found)
    if plain or inspect.isgeneratorfunction(inspect.unwrap(found)):
        return f"is a function without @contextlib.asynccontextmanager; {_RULE}"
    return ""


def _settings_of(declared: DeclaredProvider, factory: Callable[..., Any]) -> type[BaseModel] | None:
    try:
        parameters = inspect.signature(factory, eval_str=True).parameters.values()
    except Exception as error:  # an annotation may name anything
        raise StartupError(
            f"{line_of(factory)}: {declared}: its parameters cannot be read: {error}"
        ) from error
    empty = inspect.Parameter.empty
    models = [
        p
        for p in parameters
        if isinstance(p.annotation, type) and issubclass(p.annotation, BaseModel)
    ]
    others = [p for p in parameters if p not in models and p.default is empty and not _collects(p)]
    if others or len(models) > 1:
        names = ", ".join(p.name for p in (*models, *others))
        raise StartupError(
            f"{line_of(factory)}: {declared}: has the parameters {names}: a factory takes nothing, "
            "or one parameter whose annotation is a pydantic model of its settings"
        )
    return models[0].annotation if models else None


def _collects(parameter: inspect.Parameter) -> bool:
    return parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
