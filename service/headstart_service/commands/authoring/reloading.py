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
from ...base.own_threads import in_own_thread
from ..declared_pipelines import declared
from .author_files import is_authors
from .read_files import ReadFiles

if TYPE_CHECKING:
    from ...pipeline.mistakes import Mistake
    from ...pipeline.pipeline import Pipeline

_EVERY: Final = 0.2
"""Seconds between two looks at the files."""

_OWN: Final = ("headstart", "headstart_service")

Seen = Mapping[Path, Fingerprint]
"""How each file was."""


class ReloadedPipeline:
    """A `module:name`, with the modules of its author that it imports."""

    def __init__(self, reference: str, others: Sequence[Path] = ()) -> None:
        """Watch `others` beside the modules. Ends Python's caching of bytecode in this process."""
        self._reference = reference
        self._module = reference.partition(":")[0]
        self._others = tuple(path.absolute() for path in others)
        self._before = frozenset(sys.modules)
        self._imported: set[Path] = set()
        """The files of modules that were imported once: a step may import some while it runs."""
        self._named: set[Path] = set()
        """The files that the last mistakes name."""
        self._folders: tuple[Path, ...] = ()
        self._near: Path | None = None
        """The folder that has the module or the top package."""
        self._data = ReadFiles(self._is_data)
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

        for name, module in self._modules().items():
            self._imported.add(Path(module.__file__ or ""))
            del sys.modules[name]
        importlib.invalidate_caches()
        linecache.checkcache()
        identity.cache_clear()
        self._locate()
        pipelines, mistakes = declared({self._reference: self._reference})
        self._named = {Path(each.where.rpartition(":")[0]) for each in mistakes}
        return (pipelines[0] if pipelines else None), mistakes

    def files(self) -> tuple[Path, ...]:
        """Return the files that the pipeline comes from: those of its package and its imports."""
        found = {Path(module.__file__ or "") for module in self._modules().values()}
        found |= self._imported | self._package()
        found |= {path for path in self._named if path.suffix == ".py"}
        return tuple(sorted({path.absolute() for path in found}))

    def data(self) -> frozenset[Path]:
        """Return the data files beside them that this process has read, and does not write."""
        return frozenset(self._data.seen.keys() - set(self._others))

    def seen(self) -> Seen:
        """Return how the files are now."""
        watched = (*self.files(), *self.data(), *self._others)
        return {path: fingerprint([path]) for path in watched}

    def since(self, before: Seen, now: Seen) -> Seen:
        """Return how the files of `now` were; one that is not in `before`, when it was read."""
        read = self._data.seen
        return {path: before.get(path) or read.get(path) or now[path] for path in now}

    async def changed(self, before: Seen) -> list[Path]:
        """Return what has changed since `before`, once it stays as it is for a moment."""
        found: list[Path] = []
        while not found:
            now = await self._later()
            if self._differences(before, now):
                while now != (now := await self._later()):
                    pass
                found = self._differences(before, now)
        return found

    async def _later(self) -> Seen:
        await asyncio.sleep(_EVERY)
        return await in_own_thread(self.seen)

    def _differences(self, before: Seen, now: Seen) -> list[Path]:
        read = self._data.seen
        return [
            path
            for path in {**before, **now}
            if (before.get(path) or read.get(path)) != now.get(path)
            and (path in now or not self._data.writes(path))
        ]

    def _is_data(self, path: Path) -> bool:
        """Return whether the author edits a file that is read: in the package, or beside it."""
        if any(path.is_relative_to(folder) for folder in self._folders):
            return True
        return self._near is not None and path.is_relative_to(self._near) and is_authors(str(path))

    def _locate(self) -> None:
        """Note where the package is."""
        with suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(self._module.partition(".")[0])
            if spec is not None:
                places = spec.submodule_search_locations
                self._folders = tuple(Path(each).absolute() for each in places or ())
                self._near = Path([*(places or ()), spec.origin or ""][0]).absolute().parent

    def _modules(self) -> dict[str, ModuleType]:
        """Return the author's modules that are imported now."""
        top = self._module.partition(".")[0]
        return {
            name: module
            for name, module in sys.modules.copy().items()
            if name not in self._before
            and name.partition(".")[0] not in _OWN  # this very code runs from them
            and getattr(module, "__file__", None)
            and (is_authors(module.__file__) or name.partition(".")[0] == top)
        }

    def _package(self) -> set[Path]:
        """Return all files of the pipeline's package; of a module alone its own.

        Beside a module that cannot be imported, a new file may be what it lacks.
        """
        spec = None
        with suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(self._module.partition(".")[0])
        if spec is None:
            return set()
        if spec.submodule_search_locations is not None:
            folders = map(Path, spec.submodule_search_locations)
            return {path for folder in folders for path in folder.rglob("*.py")}
        file = Path(spec.origin or "")
        return {file, *(file.parent.glob("*.py") if self._named else ())}
