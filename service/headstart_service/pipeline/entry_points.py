"""What installed distributions offer by entry points: pipelines, and providers."""

from __future__ import annotations

import importlib.metadata
import re
from importlib.metadata import EntryPoint
from typing import Final

PIPELINES: Final = "headstart.pipelines"
PROVIDERS: Final = "headstart.providers"


def entry_points(group: str, distribution: str = "") -> list[EntryPoint]:
    """Return those of this group, of one distribution or of all, by name."""
    found = importlib.metadata.entry_points(group=group)
    wanted = _normal(distribution)
    chosen = [p for p in found if not wanted or (p.dist and _normal(p.dist.name) == wanted)]
    return sorted(chosen, key=lambda point: (point.name, point.value))


def described(point: EntryPoint) -> str:
    """Describe an entry point to operators: its distribution, and its name there."""
    whose = f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution"
    return f"distribution {whose}, entry point {point.name} of {point.group}"


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()
