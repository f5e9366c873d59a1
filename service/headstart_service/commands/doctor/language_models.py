"""Whether this machine's settings reach each language model that its pipelines take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.util import find_spec

from ...base.extras import install
from ...base.urls import redacted
from ...config.model_keys import access, all_named
from ...config.model_names import EXTRAS, OPENAI
from ...config.settings import Settings, variable
from ...domain.errors import StartupError
from .report import Check, fail, ok, warn

_TITLES = {"anthropic": "Anthropic", "openai": "OpenAI"}


def language_models(settings: Settings, names: Iterable[str]) -> Iterator[Check]:
    """Yield a check of each API whose models pipelines name; none is called."""
    models = all_named(settings, names)
    for dialect in sorted({model.dialect for model in models}):
        named = [model for model in models if model.dialect == dialect]
        title, shown = _TITLES[dialect], ", ".join(model.model for model in named)
        if find_spec(dialect) is None:
            yield warn(
                title, f"{shown}: the package {dialect} is not installed", install(EXTRAS[dialect])
            )
            continue
        try:
            found = access(settings, named[0])
        except StartupError as error:
            yield fail(title, str(error), "put the key alone into the file")
            continue
        where = f" for {redacted(found.base_url)}" if found.base_url else ""
        key = variable(f"{dialect}_api_key")
        if found.api_key is not None:
            yield ok(title, f"a key is set{where}; it was not tried, and is not shown: {shown}")
        elif dialect == OPENAI and found.base_url:
            yield ok(title, f"no key{where}, which may need none; it was not tried: {shown}")
        else:
            yield warn(
                title,
                f"no key: steps that take language_model fail: {shown}",
                f"set {key} where the workers run",
            )
