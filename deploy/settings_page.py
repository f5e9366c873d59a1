"""Writes the table in docs/settings.md, the reference of every setting, from the settings."""

from __future__ import annotations

import re
from typing import Final

from headstart_service.commands.check_config import Row, rows
from headstart_service.config.partitions import CLUSTER_PARTITIONS
from headstart_service.config.settings import Settings

from .markers import replaced, row
from .pins import ROOT

PAGE = ROOT / "docs" / "settings.md"
_DEFAULTS: Final = {
    "HEADSTART_PARTITIONS": f"`1`, in a cluster `{CLUSTER_PARTITIONS}`",
    "HEADSTART_DATA_DIR": "`headstart` in the user's data directory",
    "HEADSTART_PREPARED_MODELS": "`headstart/models-1` in the user's cache directory",
    "HEADSTART_VOCABULARY": "`headstart/vocabulary-3` in the user's cache directory",
}
"""Defaults that depend on the user's account, or on other settings."""
_HEADING: Final = "| variable | default | allowed | meaning |", "|---|---|---|---|"


def page(text: str) -> str:
    """Return the page with its table as the code has it."""
    # Built without the environment: the page shows defaults.
    found = rows(Settings.model_construct(), {})
    return replaced(text, [*_HEADING, *map(_line, found)])


def _line(found: Row) -> str:
    default = _DEFAULTS.get(found.variable) or _shown(found.default)
    return row(f"`{found.variable}`", default, _allowed(found), found.meaning)


def _allowed(found: Row) -> str:
    """Return the allowed values, as short as the page's introduction lets them be."""
    if numbers := re.fullmatch(r"a (?:whole )?number from (\S+) to (\S+)", found.allowed):
        unit = " s" if isinstance(found.default, float) else ""
        return f"{numbers[1]}…{numbers[2]}{unit}"
    return {"true or false": "switch", "text that is not empty": "text"}.get(
        found.allowed, found.allowed
    )


def _shown(value: object) -> str:
    if value is None or value == []:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"
