"""`headstart pipelines check`: check declared pipelines as a server would, without a server."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..base import exit_codes
from ..base.escaping import escaped
from ..base.extras import SERVER, install, listed
from ..base.output import graph, marked, show, table
from .authoring import running
from .declared_pipelines import complain, declared, references, report
from .generate import command

if TYPE_CHECKING:
    from ..pipeline.pipeline import Pipeline


def add(commands: Any) -> None:
    """Give the command `pipelines` its actions `check` and `generate`."""
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
    running.add(actions)
    command.add(actions)


def _check(options: argparse.Namespace) -> int:
    try:
        pipelines, mistakes = declared(references([options.what]))
    except ImportError as error:
        return complain(f"pipelines check needs {error.name}: {install('server')}")
    except ValueError as error:
        return complain(str(error))
    as_data = {
        "pipelines": [_data(pipeline) for pipeline in pipelines],
        "mistakes": [{"where": each.where, "text": each.text} for each in mistakes],
    }
    show(as_data, _text(pipelines), as_json=options.json)
    if not options.json:
        report(mistakes)
    return exit_codes.FAILED if mistakes else exit_codes.DONE


def _steps(pipeline: Pipeline) -> list[dict[str, Any]]:
    from ..pipeline.signatures import output_type
    from ..pipeline.step import DIGEST_PARAMETER

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
                "optional_needs": sorted(pipeline.soft_needs(step)),
                "inputs": inputs,
                "providers": [p for p in step.parameters if p not in rest],
                "output_type": output_type(pipeline.codec, step),
                **pipeline.visible(step),
            }
        )
    return rows


def _taken(step: dict[str, Any], kind: str) -> str:
    return marked(step[kind], step["optional_needs"], step["each"])


def _data(pipeline: Pipeline) -> dict[str, Any]:
    return {
        "name": pipeline.name,
        "version": pipeline.version,
        "description": pipeline.description,
        "declared": pipeline.where,
        "steps": _steps(pipeline),
    }


def _kind(step: Mapping[str, Any], pipeline: Pipeline) -> str:
    kind = "required" if step["required"] else "optional"
    return kind if step["pool"] == pipeline.pool else f"{kind}, pool {step['pool']}"


def _text(pipelines: Sequence[Pipeline]) -> str:
    if not pipelines:
        return "no pipelines"
    rows = [("PIPELINE", "STEP", "NEEDS", "INPUTS", "PROVIDERS", "RETURNS", "KIND")]
    graphs = []
    for pipeline in pipelines:
        steps = _steps(pipeline)
        rows += [
            (
                *(pipeline.name, step["name"], _taken(step, "needs")),
                *(_taken(step, "inputs"), ", ".join(step["providers"])),
                *(step["output_type"], _kind(step, pipeline)),
            )
            for step in steps
        ]
        graphs.append(f"{pipeline.name}: {graph({s['name']: s['needs'] for s in steps})}")
    return "\n".join([table(rows), *map(escaped, graphs)])
