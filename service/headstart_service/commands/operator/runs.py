"""The commands about one run: start, get, cancel, delete, touch."""

from __future__ import annotations

import argparse
from typing import Any

from ...base import exit_codes
from ...base.escaping import escaped
from ...base.output import show
from ..inputs_argument import HELP, METAVAR, inputs_of
from .describing import described
from .execution import command, complain, duration
from .start_list import refuse_unfit, start_list


def add(commands: Any) -> None:
    """Add the commands to the parser's subcommands."""
    start = command(commands, "start", _start, "start a bridging game, or any other pipeline")
    start.add_argument("key", nargs="?", help="your name for the run")
    start.add_argument("anchor", nargs="?", help="the word to start from")
    start.add_argument("target", nargs="?", help="the word to get to")
    start.add_argument(
        "--recipient", choices=("human", "haiku"), help="the player that answers (default: human)"
    )
    start.add_argument("--clues", type=int, metavar="N", help="how many clues make a bridge")
    start.add_argument("--pipeline", metavar="NAME", help="another pipeline than bridging")
    start.add_argument("--inputs", metavar=METAVAR, help=f"its inputs, {HELP}")
    start.add_argument(
        "--file",
        metavar="FILE",
        help="start each line of a list: a key, or a JSON object with key, and maybe pipeline, "
        "inputs, expected_need_in, ttl, restart; - reads standard input",
    )
    start.add_argument("--ttl", type=duration, metavar="TIME", help="how long results live")
    start.add_argument(
        "--needed-in",
        type=duration,
        metavar="TIME",
        help="in how long a caller is likely to read them; default: at once",
    )
    start.add_argument("--restart", action="store_true", help="compute anew")

    get = command(commands, "get", _get, "show the results that exist")
    get.add_argument("key")
    get.add_argument(
        "--wait", type=duration, default=0.0, metavar="TIME", help="how long to wait for them"
    )
    get.add_argument(
        "--step",
        action="append",
        default=[],
        metavar="NAME",
        help="wait for this step alone; may be given several times",
    )
    get.add_argument(
        "--complete",
        action="store_true",
        help=f"exit with {exit_codes.INCOMPLETE} unless every step has its result, or each --step",
    )

    cancel = command(commands, "cancel", _cancel, "end runs")
    cancel.add_argument("key", nargs="+")
    _take_revision(cancel)

    delete = command(commands, "delete", _delete, "delete a run and its results")
    delete.add_argument("key")
    _take_revision(delete)

    touch = command(commands, "touch", _touch, "let a run's results live longer")
    touch.add_argument("key")
    touch.add_argument(
        "--ttl",
        type=duration,
        metavar="TIME",
        help="how long they live at least (default: the server's)",
    )
    _take_revision(touch)


def _take_revision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--revision",
        type=int,
        default=0,
        metavar="N",
        help="only this revision, so that a newer run is spared (default: any)",
    )


async def _start(client: Any, options: argparse.Namespace) -> int:
    if options.file is not None:
        refuse_unfit(options)
        return await start_list(client, options)
    if options.key is None:
        raise ValueError("give a key, or --file")
    rules = {
        "ttl": options.ttl,
        "restart": options.restart,
        "expected_need_in": options.needed_in,
    }
    _refuse_mixed(options)
    if options.pipeline:
        inputs = inputs_of(options.inputs or "{}")
        started = await client.start(options.key, options.pipeline, inputs, **rules)
    elif options.anchor is None or options.target is None:
        raise ValueError("give an anchor and a target, or --pipeline and --inputs")
    else:
        started = await client.start_bridging(
            options.key,
            options.anchor,
            options.target,
            options.recipient or "human",
            clue_count=options.clues,
            **rules,
        )
    text = f"{started.outcome}: revision {started.revision}, {started.status}"
    show(started, text, as_json=options.json)
    return exit_codes.DONE


def _refuse_mixed(options: argparse.Namespace) -> None:
    """Refuse options of a game for another pipeline, and the reverse. Raises ValueError."""
    of_game = {
        "anchor": options.anchor,
        "--recipient": options.recipient,
        "--clues": options.clues,
    }
    given = [name for name, value in of_game.items() if value is not None]
    if options.pipeline and given:
        raise ValueError(f"{', '.join(given)}: for a bridging game alone, not with --pipeline")
    if options.inputs is not None and not options.pipeline:
        raise ValueError("--inputs needs --pipeline")


async def _get(client: Any, options: argparse.Namespace) -> int:
    results = await client.get_results(
        options.key, wait=options.wait, required_steps=options.step, partial_results=True
    )
    show(results, described(results), as_json=options.json)
    wanted = set(options.step) or set(results.steps)
    missing = [name for name in results.missing if name in wanted]
    if options.complete and (missing or not results.steps):
        complain(f"no result of {', '.join(missing) or 'any step'}")
        return exit_codes.INCOMPLETE
    return exit_codes.DONE


async def _cancel(client: Any, options: argparse.Namespace) -> int:
    import headstart

    alone = len(options.key) == 1
    if options.revision and not alone:
        complain("--revision is of one key: give one")
        return exit_codes.WRONG_ARGUMENTS
    code = exit_codes.DONE
    for key in options.key:
        try:
            done = await client.cancel(key, revision=options.revision)
        except headstart.NotFound as error:
            complain(error)
            code = exit_codes.NOT_FOUND
            continue
        if done.cancelled:
            text = f"cancelled: {done.status}"
        elif options.revision not in {0, done.revision}:
            text = f"spared: the key has revision {done.revision}, {done.status}"
        else:
            text = f"had ended before: {done.status}"
        show(done, text if alone else f"{escaped(key)}: {text}", as_json=options.json)
    return code


async def _delete(client: Any, options: argparse.Namespace) -> int:
    deleted = await client.delete(options.key, revision=options.revision)
    show({"deleted": deleted}, "deleted" if deleted else "nothing to delete", as_json=options.json)
    return exit_codes.DONE


async def _touch(client: Any, options: argparse.Namespace) -> int:
    touched = await client.touch(options.key, ttl=options.ttl, revision=options.revision)
    text = f"{touched.status}, kept until {touched.expires_at:%Y-%m-%d %H:%M:%S} UTC"
    show(touched, text, as_json=options.json)
    return exit_codes.DONE
