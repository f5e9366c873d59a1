"""`headstart dev`: run a pipeline on this machine again after each change of its files."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...base.extras import SERVER, install, listed
from ...base.output import coloured, is_terminal, plain
from ...base.own_threads import in_own_thread
from ..declared_pipelines import complain, report
from ..inputs_argument import file_of, inputs_of
from .reloading import ReloadedPipeline, Seen
from .running import take_pipeline
from .step_sources import StepSources

if TYPE_CHECKING:
    from ...domain import RunPlan, StepRecord
    from ...pipeline.mistakes import Mistake
    from ...pipeline.pipeline import Pipeline
    from .local_runs import LocalRuns


def add(commands: Any) -> None:
    """Add the command to the parser's subcommands."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "dev",
        **listed("run a pipeline on this machine after each change of its files", SERVER),
        description="Run a pipeline in this process, without a server and without Redis. Run it "
        "again after each change of its files, of data files beside them that this process reads, "
        "or of the file of its inputs. A run takes over the results of steps whose code and inputs "
        "are the same. Changed data compute all anew. So does Enter on a terminal. Ctrl-C ends it.",
    )
    take_pipeline(parser)
    parser.add_argument(
        "--restart", action="store_true", help="compute every step anew after each change"
    )
    parser.set_defaults(run=_run, json=False)


def _run(options: argparse.Namespace) -> int:
    try:
        from ...config.loading import load_settings
        from ...domain.errors import StartupError
    except ImportError as error:
        return complain(f"dev needs {error.name}: {install('server')}")
    if ":" not in options.what:
        return complain(f"{options.what} is no MODULE:NAME")
    path = file_of(options.inputs)
    pipeline = ReloadedPipeline(options.what, [path] if path else [])
    if not pipeline.found():
        module = options.what.partition(":")[0]
        return complain(f"there is no module {module}: is its directory on PYTHONPATH?")
    try:
        # Standard input can be read once alone.
        text = json.dumps(inputs_of("-")) if options.inputs == "-" else options.inputs
        settings = load_settings({})
    except (ValueError, StartupError) as error:
        return complain(str(error))
    developing = _Developing(pipeline, text, options)
    return asyncio.run(developing.until_interrupted(settings))


class _Developing:
    """Runs the pipeline after each change, until this process is interrupted."""

    def __init__(self, source: ReloadedPipeline, inputs: str, options: argparse.Namespace) -> None:
        self._source = source
        self._inputs = inputs
        self._options = options
        self._kept = _Kept(restart=options.restart)
        self._sources = StepSources()
        self._enter = asyncio.Event()

    async def until_interrupted(self, settings: Any) -> int:
        """Load, run and wait for a change, for ever."""
        from .local_runs import local_runs

        async with local_runs(settings) as runs, _lines_of_input(self._again):
            while True:
                before = self._source.seen()
                pipeline = await self._load(runs)
                # Which files there are is known once they are imported. Others are watched no more.
                now = self._source.seen()
                before = self._source.since(before, now)
                changed = await self._until_change(before, self._turn(pipeline, runs))
                self._enter.clear()
                if not self._source.data().isdisjoint(changed):
                    self._kept.forget()  # any step may have read it
                self._say_changed(changed)

    async def _until_change(self, before: Seen, work: Coroutine[Any, Any, None]) -> list[Path]:
        """Do the work until it ends, and wait for a change; return the files that have changed.

        None have when Enter ends the wait. Raises what the work raises.
        """
        working = asyncio.create_task(work)
        changing = asyncio.create_task(self._source.changed(before))
        entering = asyncio.create_task(self._enter.wait())
        tasks: set[asyncio.Task[Any]] = {working, changing, entering}
        try:
            while not (changing.done() or entering.done()):
                await asyncio.wait(
                    {task for task in tasks if not task.done()},
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if working.done():
                    working.result()
            return changing.result() if changing.done() else []
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _again(self) -> None:
        self._kept.forget()
        self._enter.set()

    async def _load(self, runs: LocalRuns) -> Pipeline | None:
        """Return the pipeline; None after it has shown what is wrong with it."""
        from ...domain.errors import StartupError

        pipeline, mistakes = self._source.load()
        if pipeline is None or mistakes:
            self._show_mistakes(mistakes)
            return None
        try:
            await runs.open(pipeline)
        except StartupError as error:
            self._complain(str(error))
            return None
        return pipeline

    async def _turn(self, pipeline: Pipeline | None, runs: LocalRuns) -> None:
        if pipeline is not None:
            await self._run(pipeline, runs)
        if not self._options.json:
            number = len(self._source.files()) + len(self._source.data())
            files = f"{number} file{'s' if number > 1 else ''}"
            print(coloured(f"watching {files}; Ctrl-C ends", "dim"), flush=True)

    async def _run(self, pipeline: Pipeline, runs: LocalRuns) -> None:
        from headstart import InvalidRequest

        from .showing import show_run, showing

        files = await in_own_thread(self._source.files)
        code = await in_own_thread(self._sources.of, pipeline, files)
        try:
            inputs = inputs_of(self._inputs)
            async with showing(as_json=self._options.json) as progress:
                run = await runs.run(
                    pipeline,
                    inputs,
                    kept=lambda plan: self._kept.of(pipeline, plan, code),
                    completed=self._kept.keep,
                    progress=progress,
                )
        except (InvalidRequest, ValueError) as error:
            self._complain(str(error))
            return
        show_run(run, as_json=self._options.json, trace=self._options.trace)

    def _show_mistakes(self, mistakes: list[Mistake]) -> None:
        if self._options.json:
            data = [{"where": each.where, "text": each.text} for each in mistakes]
            print(json.dumps({"mistakes": plain(data)}), flush=True)
        else:
            report(mistakes)
            sys.stderr.flush()

    def _complain(self, text: str) -> None:
        complain(text)
        sys.stderr.flush()

    def _say_changed(self, paths: list[Path]) -> None:
        if self._options.json:
            return
        what = ", ".join(os.path.relpath(path) for path in paths[:3])
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""  # noqa: PLR2004  # as above
        text = f"changed: {what}{more}" if paths else "anew"
        print(f"\n{coloured(text, 'bold')}", flush=True)


class _Kept:
    """The results that a next run takes over: those of the same code and the same inputs."""

    def __init__(self, *, restart: bool) -> None:
        """With `restart`, keep nothing."""
        self._restart = restart
        self._records: dict[str, tuple[str, StepRecord]] = {}
        self._digests: Mapping[str, str] = {}

    def of(
        self, pipeline: Pipeline, plan: RunPlan, code: Mapping[str, str]
    ) -> dict[str, StepRecord]:
        """Return the records of the steps of this plan that need not be computed."""
        self._digests = {
            name: sha256(f"{digest} {code[name]}".encode()).hexdigest()
            for name, digest in plan.steps.items()
        }
        found: dict[str, StepRecord] = {}
        for name, digest in self._digests.items():  # each after what it needs
            made_of, record = self._records.get(name, ("", None))
            needs = pipeline.needs(pipeline.by_name[name])
            if record and made_of == digest and all(need in found for need in needs):
                found[name] = record
        return found

    def keep(self, records: Mapping[str, StepRecord]) -> None:
        """Keep what the last run, for which `of` was asked, has completed."""
        if not self._restart:
            self._records |= {name: (self._digests[name], each) for name, each in records.items()}

    def forget(self) -> None:
        """Let the next run compute every step."""
        self._records.clear()


@asynccontextmanager
async def _lines_of_input(called: Callable[[], None]) -> AsyncIterator[None]:
    """Call a function at each line that a person enters, if there is a terminal."""
    if not (is_terminal(sys.stdout) and sys.stdin.isatty()):
        yield
        return
    loop, descriptor = asyncio.get_running_loop(), sys.stdin.fileno()

    def read() -> None:
        if os.read(descriptor, 4096):
            called()
        else:  # Ctrl-D
            loop.remove_reader(descriptor)

    loop.add_reader(descriptor, read)
    try:
        yield
    finally:
        with suppress(ValueError):
            loop.remove_reader(descriptor)
