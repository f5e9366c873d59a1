"""Loads a pipeline again after each change of its author's files."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import linecache
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final

from ...base.file_changes import Fingerprint, fingerprint
from ..declared_pipelines import declared
from .author_files import is_authors

if TYPE_CHECKING:
    from ...pipeline.mistakes import Mistake
    from ...pipeline.pipeline import Pipeline

_EVERY: Final = 0.2
"""Seconds between two looks at the files."""

Seen = Mapping[Path, Fingerprint]
"""How each file was."""


class ReloadedPipeline:
    """A `module:name`, with the modules of its author that it imports."""

    def __init__(self, reference: str, others: Sequence[Path] = ()) -> None:
        """Watch `others` beside the modules. Ends Python's caching of bytecode in this process."""
        self._reference = reference
        self._module = reference.partition(":")[0]
        self._others = tuple(others)
        self._before = frozenset(sys.modules)
        self._named: set[Path] = set()
        # Python compares a file with its bytecode by seconds and size: too coarse for an editor.
        sys.dont_write_bytecode = True

    def found(self) -> bool:
        """Return whether Python finds the module's file, or the package that has it."""
        with suppress(ImportError, ValueError):
            return importlib.util.find_spec(self._module.partition(".")[0]) is not None
        return False

    def load(self) -> tuple[Pipeline | None, list[Mistake]]:
        """Import the author's modules anew; return the pipeline, and what is wrong with it.

        Raises ImportError without what a server needs.
        """
        from ...worker.executors.code_identity import identity

        for name in self._modules():
            del sys.modules[name]
        importlib.invalidate_caches()
        linecache.checkcache()
        identity.cache_clear()
        pipelines, mistakes = declared({self._reference: self._reference})
        self._named = {Path(each.where.rpartition(":")[0]) for each in mistakes}
        return (pipelines[0] if pipelines else None), mistakes

    def files(self) -> tuple[Path, ...]:
        """Return the files that the pipeline comes from, and those beside them."""
        found = {Path(module.__file__ or "") for module in self._modules().values()}
        for folder, pattern in self._folders():
            found.update(folder.glob(pattern))
        found |= {path for path in self._named if path.suffix == ".py"}
        return tuple(sorted({path.absolute() for path in found}))

    def seen(self) -> Seen:
        """Return how the files are now."""
        return {path: fingerprint([path]) for path in (*self.files(), *self._others)}

    async def changed(self, before: Seen) -> list[Path]:
        """Return what has changed since `before`, once it stays as it is for a moment."""
        now = before
        while now == before:
            await asyncio.sleep(_EVERY)
            now = self.seen()
        while now != (now := await self._later()):
            pass
        return [path for path in {**before, **now} if before.get(path) != now.get(path)]

    async def _later(self) -> Seen:
        await asyncio.sleep(_EVERY)
        return self.seen()

    def _modules(self) -> dict[str, ModuleType]:
        """Return the author's modules that are imported now."""
        top = self._module.partition(".")[0]
        return {
            name: module
            for name, module in sys.modules.copy().items()
            if name not in self._before
            and getattr(module, "__file__", None)
            and (is_authors(module.__file__) or name.partition(".")[0] == top)
        }

    def _folders(self) -> list[tuple[Path, str]]:
        """Return where new files may appear: all of the package, or beside the module."""
        spec = None
        with suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(self._module.partition(".")[0])
        if spec is None:
            return []
        if spec.submodule_search_locations is not None:
            return [(Path(path), "**/*.py") for path in spec.submodule_search_locations]
        return [(Path(spec.origin).parent, "*.py")] if spec.origin else []
