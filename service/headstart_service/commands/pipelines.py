"""`headstart pipelines check`: check declared pipelines as a server would, without a server.

It needs neither Redis nor a model: modules are imported, as an API process imports them, and
what they declare is read.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..base import exit_codes
from ..base.escaping import escaped
from ..base.extras import SERVER, install, listed
from ..base.output import graph, show, table

if TYPE_CHECKING:
    from ..pipeline.mistakes import Mistake
    from ..pipeline.pipeline import Pipeline

_PLACE = re.compile(r"(\S+:\d+): (.*)", re.DOTALL)


def add(commands: Any) -> None:
    """Give the command `pipelines` its action `check`."""
    parser: argparse.ArgumentParser = commands.choices["pipelines"]
    actions = parser.add_subparsers(metavar="ACTION")
    check = actions.add_parser(
        "check",
        **listed("check pipelines on this machine, without a server", SERVER),
        description="Check pipelines on this machine, without a server: print their steps, and "
        "every mistake in their declarations with its file and line.",
    )
    check.add_argument(
        "what",
        nargs="?",
        default="",
        metavar="MODULE:NAME | DISTRIBUTION",
        help="a pipeline, or an installed distribution (default: all installed ones, and those of "
        "HEADSTART_PIPELINES)",
    )
    # Also an option of `pipelines`, so that it may stand on either side of `check`.
    check.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print JSON, for scripts"
    )
    check.set_defaults(run=_check)


def _check(options: argparse.Namespace) -> int:
    try:
        from ..pipeline.registry import described, entry_points
    except ImportError as error:
        needed = f"pipelines check needs {error.name}: {install('server')}"
        return _complain(needed, exit_codes.WRONG_ARGUMENTS)
    what: str = options.what
    if ":" in what:
        references = {what: what}
    else:
        points = entry_points(what)
        if what and not points:
            complaint = f"{what} is no MODULE:NAME, and no installed distribution that offers any"
            return _complain(complaint, exit_codes.WRONG_ARGUMENTS)
        references = {described(point): point.value for point in points}
        if not what:
            named = os.environ.get("HEADSTART_PIPELINES", "").split(",")
            references |= {name.strip(): name.strip() for name in named if name.strip()}
    pipelines, mistakes = _looked_at(references)
    as_data = {
        "pipelines": [_data(pipeline) for pipeline in pipelines],
        "mistakes": [{"where": each.where, "text": each.text} for each in mistakes],
    }
    show(as_data, _text(pipelines), as_json=options.json)
    if not options.json:
        for mistake in mistakes:
            print(escaped(str(mistake)), file=sys.stderr)
    return exit_codes.FAILED if mistakes else exit_codes.DONE


def _complain(text: str, code: int) -> int:
    print(f"headstart: {escaped(text)}", file=sys.stderr)
    return code


def _looked_at(references: dict[str, str]) -> tuple[list[Pipeline], list[Mistake]]:
    """The pipelines that could be loaded, and all that is wrong, by source and `module:name`."""
    from ..domain.errors import StartupError
    from ..pipeline.checks import unknown_parameters
    from ..pipeline.mistakes import gathered
    from ..pipeline.providers import PROVIDERS
    from ..pipeline.registry import load

    found: dict[str, Pipeline] = {}
    with gathered() as mistakes:
        for source, reference in references.items():
            try:
                pipeline = load(reference, source)
            except StartupError as error:
                mistakes.append(_broken(error, source, reference))
                continue
            first = found.get(pipeline.name)
            if first is not None:
                if first is not pipeline:  # a setting may name an installed pipeline again
                    mistakes.append(_twice(first, pipeline))
                continue
            found[pipeline.name] = pipeline
            mistakes.extend(unknown_parameters(pipeline, PROVIDERS))
            mistakes.extend(_unshowable(pipeline))
    return list(found.values()), mistakes


def _broken(error: Exception, source: str, reference: str) -> Mistake:
    """What a module raised while it was imported, at the line that raised it."""
    from ..pipeline.mistakes import Mistake

    cause = error.__cause__
    where, text = reference, str(error).removeprefix(f"{source}: ")
    if cause is not None:
        frames = [
            frame
            for frame in traceback.extract_tb(cause.__traceback__)
            if not frame.filename.startswith("<")  # a dataclass's __init__, importlib's frozen code
            and "importlib" not in frame.filename
            and "headstart_service" not in frame.filename
        ]
        placed = _PLACE.fullmatch(str(cause))
        if placed is not None:
            where, text = placed[1], placed[2]
        elif isinstance(cause, SyntaxError):
            where, text = f"{cause.filename}:{cause.lineno}", str(cause.msg)
        elif frames:
            where = f"{frames[-1].filename}:{frames[-1].lineno}"
            text = f"{type(cause).__name__}: {cause}"
        elif isinstance(cause, ModuleNotFoundError):
            text += " (is its directory on PYTHONPATH?)"
    return Mistake(where, text if source == reference else f"{text} ({source})")


def _twice(first: Pipeline, second: Pipeline) -> Mistake:
    from ..pipeline.mistakes import Mistake

    text = f"two pipelines are named {second.name}: the first is declared at {first.where}"
    return Mistake(second.where, text)


def _unshowable(pipeline: Pipeline) -> list[Mistake]:
    """Return why its inputs cannot be described as JSON Schema."""
    from ..pipeline.mistakes import Mistake

    try:
        pipeline.inputs.model_json_schema()
    except Exception as error:  # noqa: BLE001  # an author's schema hooks may raise anything
        text = f"pipeline {pipeline.name}: its inputs have no JSON Schema: {error}"
        return [Mistake(pipeline.where, text)]
    return []


def _steps(pipeline: Pipeline) -> list[dict[str, Any]]:
    from ..pipeline.signatures import output_type
    from ..pipeline.step import DIGEST_PARAMETER, VISIBLE_OPTIONS

    rows = []
    for name in pipeline.order:
        step = pipeline.by_name[name]
        inputs = [p for p in step.parameters if p in pipeline.inputs.model_fields]
        needs = pipeline.needs(step)
        rest = {*inputs, *needs, DIGEST_PARAMETER}
        rows.append(
            {
                "name": name,
                "needs": list(needs),
                "inputs": inputs,
                "providers": [p for p in step.parameters if p not in rest],
                "output_type": output_type(pipeline.codec, step),
                **{option: getattr(step, option) for option in VISIBLE_OPTIONS},
            }
        )
    return rows


def _data(pipeline: Pipeline) -> dict[str, Any]:
    return {
        "name": pipeline.name,
        "version": pipeline.version,
        "description": pipeline.description,
        "declared": pipeline.where,
        "steps": _steps(pipeline),
    }


def _text(pipelines: Sequence[Pipeline]) -> str:
    if not pipelines:
        return "no pipelines"
    rows = [("PIPELINE", "STEP", "NEEDS", "INPUTS", "PROVIDERS", "RETURNS", "KIND")]
    graphs = []
    for pipeline in pipelines:
        steps = _steps(pipeline)
        rows += [
            (
                *(pipeline.name, step["name"], ", ".join(step["needs"])),
                *(", ".join(step["inputs"]), ", ".join(step["providers"])),
                *(step["output_type"], "required" if step["required"] else "optional"),
            )
            for step in steps
        ]
        graphs.append(f"{pipeline.name}: {graph({s['name']: s['needs'] for s in steps})}")
    return "\n".join([table(rows), *map(escaped, graphs)])
