"""How an extra is installed, and whether a command's packages are there."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Final

SERVER: Final = ("pydantic", "pydantic_settings", "redis", "starlette", "uvicorn")
"""What the server's commands import, which the light client does not bring."""


def install(extra: str) -> str:
    """Return the command that installs an extra. No package index has Headstart."""
    return f"pip install '.[{extra}]' in Headstart's clone"


def listed(text: str, packages: tuple[str, ...]) -> dict[str, Any]:
    """Return what makes a parser list a command with this help; nothing if a package is missing."""
    return {"help": text} if all(find_spec(name) for name in packages) else {}
