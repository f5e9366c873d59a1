"""Identifies the code that a step is: a digest of the sources that it was imported from."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

_OWN: Final = __name__.partition(".")[0]


class OtherCode(Exception):
    """This process does not have the code that is wanted; the message names the difference."""

    def __init__(self, text: str, *, missing: bool) -> None:
        super().__init__(text)
        self.missing = missing
        """Whether it cannot be imported at all."""


def identities(modules: Iterable[str]) -> dict[str, str]:
    """Return the identity of each of these imported modules."""
    return {module: identity(module) for module in sorted(set(modules))}


@functools.cache
def identity(module: str) -> str:
    """Return the digest of an imported module's top package, or of its own file outside of one.

    It is computed once per process, so it is that of the code as it was imported. Raises ValueError
    when the module has no file.
    """
    root = _root(module)
    digest = sha256()
    files = [root]
    if root.is_dir():
        files = sorted(root.rglob("*.py"))
    for path in files:
        content = path.read_bytes()
        name = path.relative_to(root.parent).as_posix()
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def require(code: Mapping[str, str]) -> None:
    """Import these modules, and compare their identities with those that are given.

    Raises OtherCode when one cannot be imported or differs. It is then forgotten, so that the next
    call imports what is installed by then.
    """
    for module, wanted in code.items():
        try:
            importlib.import_module(module)
            found = identity(module)
        except Exception as error:
            _forget(module)
            text = f"cannot import {module}: {type(error).__name__}: {error}"
            raise OtherCode(text[:300], missing=True) from error
        if found != wanted:
            _forget(module)
            raise OtherCode(f"has other code of {module.partition('.')[0]}", missing=False)


def _root(module: str) -> Path:
    """The directory of the topmost regular package around it, or its file."""
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        package = sys.modules.get(".".join(parts[:end]))
        file = getattr(package, "__file__", None)
        if file is not None and (hasattr(package, "__path__") or end == len(parts)):
            path = Path(file)
            if not path.is_file():
                break
            return path.parent if hasattr(package, "__path__") else path
    raise ValueError(f"module {module} comes from no file, so its code cannot be compared")


def _forget(module: str) -> None:
    top = module.partition(".")[0]
    if top == _OWN:
        return  # this module runs from it
    for name in [name for name in sys.modules if name == top or name.startswith(f"{top}.")]:
        del sys.modules[name]
    importlib.invalidate_caches()
    identity.cache_clear()
