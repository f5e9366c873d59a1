"""Writes the list of a step's options in docs/pipelines.md from the decorator's docstring."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Final

from headstart_service.pipeline.step import step

from .markers import replaced
from .pins import ROOT

PAGE = ROOT / "docs" / "pipelines.md"
_ARGUMENT: Final = re.compile(r"^    (\w+): (.*(?:\n        .*)*)", re.MULTILINE)


def page(text: str) -> str:
    """Return the page with its list as the code has it."""
    return replaced(text, _options())


def _options() -> Iterator[str]:
    arguments = (inspect.getdoc(step) or "").partition("\nArgs:\n")[2]
    meanings = {name: " ".join(meaning.split()) for name, meaning in _ARGUMENT.findall(arguments)}
    for name, parameter in inspect.signature(step).parameters.items():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        default = repr(parameter.default).replace("'", '"')
        yield f"- `{name}` (`{default}`): {meanings[name]}"
