"""Check, without a network, what is installed and what the images will install: `make audit`.

Everything installed is pinned in constraints.txt at its version; the images' requirement files
have those versions, a hash for each and nothing missing; every licence is allowed.
"""

from __future__ import annotations

import sys
from importlib.metadata import distributions

from packaging.utils import canonicalize_name

from .licences import licences
from .pins import (
    BACKEND_LOCK,
    CONSTRAINTS,
    LOCKS,
    needed,
    needed_to_build,
    pins,
    public,
    unhashed,
)

_TOOLS = frozenset({"headstart", "pip", "wheel"})
"""Ourselves, and what a virtual environment has from the start."""
_CUDA = ": torch has its build with CUDA; `make clean setup` installs the one for CPUs"


def main() -> int:
    """Print what is wrong; the exit code tells whether anything is."""
    complaints = [*installed(), *locked(), *licensed()]
    for complaint in complaints:
        print(f"audit: {complaint}", file=sys.stderr)
    if not complaints:
        print(f"audit: {len(pins(CONSTRAINTS))} pins, {len(licences())} licences, all in order")
    return 1 if complaints else 0


def installed() -> list[str]:
    """What is installed here and not as constraints.txt pins it."""
    pinned = pins(CONSTRAINTS)
    found = {
        canonicalize_name(each.metadata["Name"]): public(each.version) for each in distributions()
    }
    return [
        f"{name} {version} is installed, and constraints.txt "
        + (f"pins {pinned[name]}" if name in pinned else "does not pin it")
        + (_CUDA if name.startswith(("nvidia-", "cuda-")) else "")
        for name, version in sorted(found.items())
        if name not in _TOOLS and pinned.get(name) != version
    ]


def locked() -> list[str]:
    """Where the images' requirement files differ from constraints.txt, or would need more."""
    pinned = pins(CONSTRAINTS)
    complaints = []
    wanted_in = {path: needed(extras) for extras, path in LOCKS.items()}
    for path, wanted in (*wanted_in.items(), (BACKEND_LOCK, needed_to_build())):
        lock = pins(path)
        complaints += [f"{path.name}: no hash for {line}" for line in unhashed(path)]
        complaints += [
            f"{path.name}: {name} {version}, and constraints.txt pins {pinned.get(name, 'nothing')}"
            for name, version in lock.items()
            if public(version) != pinned.get(name)
        ]
        complaints += [f"{path.name}: {name} is missing" for name in sorted(wanted - set(lock))]
        complaints += [f"{path.name}: nobody needs {name}" for name in sorted(set(lock) - wanted)]
    return complaints


def licensed() -> list[str]:
    """Return a complaint for each licence that is unknown or not allowed."""
    return [
        f"{each.name}: licence {each.expression or 'unknown'!r} is not allowed"
        for each in licences()
        if not each.allowed
    ]


if __name__ == "__main__":
    sys.exit(main())
