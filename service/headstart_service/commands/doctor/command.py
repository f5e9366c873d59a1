"""The command doctor: checks everything between here and a server, with advice for each fault."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from ...base import exit_codes
from ...base.extras import install
from .. import client_options
from ..operator.execution import bare_command

if TYPE_CHECKING:
    from .report import Check

_TIMEOUT: Final = 5.0
_HTTP_PORT: Final = 8080


def add(commands: Any) -> None:
    """Add the command to the parser's subcommands."""
    doctor = bare_command(
        commands, "doctor", "check address, TLS, token, health, speed and clock of a server"
    )
    doctor.add_argument("--namespace", default="", help="where to try the token (default: default)")
    doctor.add_argument(
        "--http", metavar="HOST:PORT", help="its HTTP port (default: 8080 on the same host)"
    )
    where = doctor.add_mutually_exclusive_group()
    where.add_argument(
        "--local",
        action="store_true",
        help="also check what a server needs on this machine: settings, store, model, vocabulary",
    )
    where.add_argument("--local-only", action="store_true", help="check nothing else")
    doctor.add_argument(
        "--strict", action="store_true", help="exit with 1 also when something is to look at (WARN)"
    )
    doctor.add_argument("--load", action="store_true", help="with --local: load the model, too")
    doctor.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from .report import Verdict, line, summary

    checks = []
    for check in _checks(options):
        checks.append(check)
        if not options.json:
            print(line(check), flush=True)
    bad = {Verdict.FAIL, Verdict.WARN} if options.strict else {Verdict.FAIL}
    failed = any(check.verdict in bad for check in checks)
    if options.json:
        findings = [
            {"check": c.name, "verdict": c.verdict, "found": c.found, "advice": c.advice}
            for c in checks
        ]
        print(json.dumps({"ok": not failed, "checks": findings}), flush=True)
    else:
        print(summary(checks), flush=True)
    return exit_codes.FAILED if failed else exit_codes.DONE


def _checks(options: argparse.Namespace) -> Iterator[Check]:
    timeout = options.timeout or _TIMEOUT
    if not options.local_only:
        yield from _remote(options, timeout)
    if options.local or options.local_only:
        try:
            from .local import check_machine
        except ImportError as error:
            from .report import fail

            advice = install("server")
            yield fail("settings", f"{error.name} is not installed: no server can run here", advice)
            return
        yield from check_machine(timeout, load=options.load)


def _remote(options: argparse.Namespace, timeout: float) -> Iterator[Check]:
    from headstart._for_service import default_address, endpoint, target_of

    from .address import Place, check_address
    from .clock import check_clock
    from .readiness import check_readiness
    from .report import fail
    from .service import Server
    from .tls import check_tls

    try:
        given = options.address
        address = target_of(given, "--address") if given else default_address()
    except ValueError as error:
        yield fail("address", str(error), "give --address or HEADSTART_ADDRESS as host:port")
        return
    place = None
    silent = False
    for found in check_address(address, timeout):
        if isinstance(found, Place):
            place = found
        else:
            silent = found.verdict != "SKIP"
            yield found
    if place is None and silent:
        return
    try:
        tls = client_options.tls_of(options)
        where = endpoint(address, tls=tls)
    except ValueError as error:
        yield fail("TLS", str(error), "see `headstart doctor --help`")
        return
    private = True
    if place is not None:
        for check in check_tls(place, tls, timeout):
            private = private and check.verdict != "FAIL"
            yield check
    if private:
        yield from Server(where, options.namespace, timeout).checks()
    if options.http or place is not None:
        host = place.host if place is not None and place.port else "localhost"
        default = str(Place(host, _HTTP_PORT))
        yield from check_readiness(options.http or default, timeout)
        yield check_clock(options.http or default, timeout)
