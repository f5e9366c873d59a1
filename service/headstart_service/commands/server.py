"""The commands that need a server's packages: serve, worker, vocabulary and the checks."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..base import exit_codes
from ..base.extras import install
from ..base.listening import reachable, url_host
from ..config.loading import describe, load_settings
from ..config.settings import API_URLS, KEYS, Settings, variable
from ..domain.errors import PackageMissing, StartupError, StoreUnavailable
from ..processes.compute_threads import limit_threads
from ..processes.hang_guard import HangGuard
from ..processes.lifecycle import exit_with_parent, run_loop, store_rules
from ..processes.memory import return_large_blocks
from ..processes.preflight import flag, load_checked, warn_of_unknown
from ..processes.worker_supervisor import LACKS_LINE
from ..store.redis_url import holds_secret
from ..store.repartition import StoreInUse
from ..telemetry.logging.formatter import leave_out_places, set_up_logging
from . import client_options
from .check_config import check_config


def add(
    serve: argparse.ArgumentParser,
    worker: argparse.ArgumentParser,
    model: argparse.ArgumentParser,
    vocabulary: argparse.ArgumentParser,
    check: argparse.ArgumentParser,
    health: argparse.ArgumentParser,
    move: argparse.ArgumentParser,
) -> None:
    """Give each command its options and what it runs."""
    move.add_argument(
        "--to", type=int, required=True, metavar="N", help="the new HEADSTART_PARTITIONS"
    )
    _add_settings(move)
    move.set_defaults(run=_repartition)
    for parser in (serve, worker, check):
        _add_settings(parser)
    serve.set_defaults(run=_serve)
    worker.add_argument("--exit-with-parent", action="store_true", help=argparse.SUPPRESS)
    worker.add_argument("--figures", type=int, help=argparse.SUPPRESS)
    worker.set_defaults(run=_worker)
    check.add_argument("--json", action="store_true", help="print JSON, for scripts")
    check.set_defaults(run=_check_config)

    actions = model.add_subparsers(required=True, metavar="ACTION")
    prepare = actions.add_parser("prepare", help="export the model for workers, unless it is done")
    prepare.add_argument(
        "name", nargs="?", metavar="MODEL", help="a name or a path (default: HEADSTART_MODEL)"
    )
    prepare.add_argument(
        "--revision", default="", help="commit, branch or tag of a model on Hugging Face"
    )
    prepare.add_argument("--force", action="store_true", help="export even if it is up to date")
    _add_settings(prepare)
    prepare.set_defaults(run=_prepare_model)

    actions = vocabulary.add_subparsers(required=True, metavar="ACTION")
    build = actions.add_parser("build", help="embed the words, unless that is done already")
    build.add_argument("--words", type=Path, help="a file of your own words, one a line")
    build.add_argument("--force", action="store_true", help="build even if it is up to date")
    _add_settings(build)
    build.set_defaults(run=_build_vocabulary)

    client_options.add(health)
    health.add_argument("--timeout", type=float, default=2.0, help="seconds to wait (default: 2)")
    _add_settings(health)
    health.set_defaults(run=_healthcheck)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("settings", "each is also an environment variable")
    for name, default, description in describe():
        if name in KEYS:
            continue  # process arguments are no place for a secret
        flag = f"--{name.replace('_', '-')}"
        text = f"{description} [{variable(name)}]".replace("%", "%%")
        if default in ("True", "False"):
            group.add_argument(
                flag, dest=f"setting_{name}", action=argparse.BooleanOptionalAction, help=text
            )
        else:
            text += f" (default: {default or 'none'})"
            group.add_argument(flag, dest=f"setting_{name}", metavar="VALUE", help=text)


def _flags(options: argparse.Namespace) -> dict[str, str]:
    """The settings that were given as flags. Raises StartupError for one that tells a secret."""
    flags = {
        name.removeprefix("setting_"): str(value)
        for name, value in vars(options).items()
        if name.startswith("setting_") and value is not None
    }
    if holds_secret(flags.get("redis_url", "")):
        raise StartupError(
            "--redis-url: everybody on this machine can see a password in arguments: "
            "set HEADSTART_REDIS_URL instead"
        )
    for name in API_URLS:
        if "@" in flags.get(name, ""):
            raise StartupError(
                f"{flag(name)}: everybody on this machine can see a password in arguments: "
                f"set {variable(name)} instead"
            )
    return flags


def _settings(options: argparse.Namespace) -> Settings:
    return load_settings(_flags(options))


def _run(
    options: argparse.Namespace,
    main: Callable[[Settings], Coroutine[Any, Any, None]],
    *,
    listens: bool,
) -> int:
    """Run a server until it is stopped; print a StartupError, or a missing package, once."""
    try:
        settings = load_checked(_flags(options), listens=listens)
        set_up_logging(settings.log_level, settings.log_format)
        if not getattr(options, "exit_with_parent", False):  # the parent has logged it
            warn_of_unknown(settings)
        return_large_blocks()
        run_loop(main(settings))
    except (StartupError, ModuleNotFoundError) as error:
        return _end(options, error)
    except BaseExceptionGroup as group:
        expected = group.subgroup((StartupError, ModuleNotFoundError))
        if expected is None:
            raise
        leaf: BaseException = expected
        while isinstance(leaf, BaseExceptionGroup):
            leaf = leaf.exceptions[0]
        return _end(options, leaf)
    return 0


def _end(options: argparse.Namespace, error: BaseException) -> int:
    """Print why a server ends. A package that a child misses ends its parent, which prints that."""
    if isinstance(error, ImportError):
        error = _missing(error, options)
    if isinstance(error, PackageMissing) and getattr(options, "exit_with_parent", False):
        print(f"{LACKS_LINE}{error}", flush=True)
        return exit_codes.WRONG_ARGUMENTS
    return _fail(error)


def _fail(error: BaseException) -> int:
    print(f"headstart: {error}", file=sys.stderr)
    return exit_codes.WRONG_ARGUMENTS


def _serve(options: argparse.Namespace) -> int:
    try:
        from ..processes.api import serve
    except ImportError as error:
        return _end(options, error)
    leave_out_places()
    return _run(options, serve, listens=True)


def _worker(options: argparse.Namespace) -> int:
    if options.exit_with_parent:
        exit_with_parent()
        # On a shared machine the API's answers come before work.
        os.nice(5)
    _limit_threads(options)
    try:
        from ..processes.worker import work
    except ImportError as error:
        return _end(options, error)
    return _run(
        options,
        lambda settings: work(
            settings,
            child=options.exit_with_parent,
            metrics_socket=options.figures,
            guard=HangGuard(settings.hang_limit),
        ),
        listens=False,
    )


def _missing(error: ImportError, options: argparse.Namespace) -> PackageMissing:
    if not error.name or error.name.partition(".")[0] == "headstart_service":
        raise error  # a bug, whose traceback is wanted
    whose, extra = ("the API", "server") if options.run is _serve else ("a worker", "worker")
    return PackageMissing(f"{whose} needs {error.name}, which is not installed: {install(extra)}")


def _limit_threads(options: argparse.Namespace) -> None:
    with suppress(StartupError):  # the command itself reports it
        limit_threads(_settings(options).compute_threads)


def _check_config(options: argparse.Namespace) -> int:
    try:
        return check_config(_flags(options), as_json=options.json)
    except StartupError as error:
        return _fail(error)


def _repartition(options: argparse.Namespace) -> int:
    from .repartition import move

    try:
        settings = load_settings(_flags(options) | {"partitions": str(options.to)})
        store_rules(settings)
        set_up_logging(settings.log_level, settings.log_format)
        return asyncio.run(move(settings))
    except StoreInUse as error:
        _fail(error)
        return exit_codes.FAILED
    except StoreUnavailable as error:
        _fail(error)
        return exit_codes.UNAVAILABLE
    except StartupError as error:
        return _fail(error)


def _prepare_model(options: argparse.Namespace) -> int:
    from ..processes.model import prepare_model

    try:
        settings = _settings(options)
        set_up_logging(settings.log_level, settings.log_format)
        prepare_model(
            settings,
            options.name or settings.model,
            revision=options.revision,
            force=options.force,
        )
    except StartupError as error:
        return _fail(error)
    return 0


def _build_vocabulary(options: argparse.Namespace) -> int:
    _limit_threads(options)
    try:
        from ..processes.vocabulary import build_vocabulary
    except ImportError as error:
        return _end(options, error)
    try:
        settings = _settings(options)
        set_up_logging(settings.log_level, settings.log_format)
        build_vocabulary(settings, words=options.words, force=options.force)
    except StartupError as error:
        return _fail(error)
    return 0


def _healthcheck(options: argparse.Namespace) -> int:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from headstart import ServiceUnavailable
    from headstart._for_service import endpoint

    from ..base.service_methods import SERVICE

    try:
        settings = _settings(options)
    except StartupError as error:
        return _fail(error)
    # This server's own certificate is trusted, even if no public authority signed it.
    own = {"HEADSTART_CA": str(settings.tls_cert)} if settings.tls_cert else {}
    address = f"{url_host(reachable(settings.host))}:{settings.grpc_port}"
    try:
        tls = client_options.tls_of(options, **own)
        # The address is of this machine: a proxy would be a detour at best.
        own_options = [("grpc.enable_http_proxy", 0)]
        channel = endpoint(address, tls=tls, options=own_options).open_blocking()
    except (ServiceUnavailable, ValueError) as error:
        print(f"{address}: {error}", file=sys.stderr)
        return exit_codes.FAILED
    with channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
        try:
            request = health_pb2.HealthCheckRequest(service=SERVICE)
            answer = stub.Check(request, timeout=options.timeout)
        except grpc.RpcError as error:
            why = f" ({error.details()})" if error.code() is grpc.StatusCode.UNAVAILABLE else ""
            print(f"{address}: {error.code().name}{why}", file=sys.stderr)
            return 1
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    print(f"{address}: {name}")
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else 1
