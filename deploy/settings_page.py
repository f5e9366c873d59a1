"""Writes the table in docs/settings.md, the reference of every setting, from the settings."""

from __future__ import annotations

import re
from typing import Final

from headstart_service.commands.check_config import Row, rows
from headstart_service.config.settings import Settings

from .pins import ROOT

PAGE = ROOT / "docs" / "settings.md"
_DEFAULTS: Final = {
    "HEADSTART_DATA_DIR": "`headstart` in the user's data directory",
    "HEADSTART_PREPARED_MODELS": "`headstart/models-1` in the user's cache directory",
    "HEADSTART_VOCABULARY": "`headstart/vocabulary-2` in the user's cache directory",
}
"""Defaults that depend on who asks."""
_TABLE: Final = re.compile(r"(?<=<!-- written by make docs -->\n).*?(?=\n\n)", re.DOTALL)
_HEADING: Final = "| variable | default | allowed | meaning |\n|---|---|---|---|"


def page(text: str) -> str:
    """The page with its table as the code has it."""
    # Built without the environment: the page shows defaults.
    found = rows(Settings.model_construct(), {})
    table = "\n".join([_HEADING, *(_line(row) for row in found)])
    return _TABLE.sub(lambda _: table, text)


def _line(row: Row) -> str:
    default = _DEFAULTS.get(row.variable) or _shown(row.default)
    meaning = row.meaning.replace("|", "\\|")
    return f"| `{row.variable}` | {default} | {_allowed(row)} | {meaning} |"


def _allowed(row: Row) -> str:
    """Return the allowed values, as short as the page's introduction lets them be."""
    if numbers := re.fullmatch(r"a (?:whole )?number from (\S+) to (\S+)", row.allowed):
        unit = " s" if isinstance(row.default, float) else ""
        return f"{numbers[1]}…{numbers[2]}{unit}"
    return {"true or false": "switch", "text that is not empty": "text"}.get(
        row.allowed, row.allowed
    )


def _shown(value: object) -> str:
    if value is None or value == []:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
