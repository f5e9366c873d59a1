"""A real Chromium on the live page of a real server. Without either, nothing here can run.

`make test-browser` installs both. Without playwright the tests are skipped; without Chromium, too,
but in CI they fail instead.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from headstart.v1 import precompute_pb2 as pb
from headstart.v1 import precompute_pb2_grpc as pb_grpc
from tests.support.pipelines import REFERENCES
from tests.support.processes import Process, run_headstart

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
PATIENT = 30_000
"""Milliseconds for what a page shall come to show."""
NAMES = ("ECHO", "REFUSED", "BUGGY", "ESSAY", "PARCEL")
OWN = ",".join(f"tests.browser.pipelines:{name}" for name in NAMES)


@dataclass
class Site:
    """A server, its page and a way to call it."""

    process: Process
    url: str
    address: str
    stub: Any

    def start(self, key: str, pipeline: str, namespace: str = "", **inputs: Any) -> None:
        spec = pb.CustomSpec(pipeline=pipeline)
        spec.inputs.update(inputs)
        request = pb.StartPrecomputeRequest(namespace=namespace, key=key, custom=spec)
        self.stub.StartPrecompute(request, timeout=20)

    def get(self, key: str, wait: int = 20, namespace: str = "") -> Any:
        request = pb.GetResultsRequest(namespace=namespace, key=key)
        request.wait.seconds = wait
        return self.stub.GetResults(request, timeout=wait + 20)


def wait_for(condition: Callable[[], Any], within: float = 120.0) -> Any:
    """As `wait_until`, without a loop: the browser's own may not run inside another."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not true within {within} s"
        time.sleep(0.02)
    return value


def open_site(*flags: str, **environment: str) -> Site:
    """A server that serves; whoever opens it stops it."""
    ports = {"HEADSTART_GRPC_PORT": "0", "HEADSTART_HTTP_PORT": "0"}
    process = run_headstart("serve", *flags, **(ports | environment))

    def said(pattern: str) -> re.Match[str] | None:
        assert process.alive, process.tail
        return re.search(pattern, process.output)

    wait_for(lambda: said("Headstart serves on"))
    url, address = said(r"live page on (\S+)"), said(r"gRPC on (\S+),")
    assert url is not None
    assert address is not None
    channel = grpc.insecure_channel(address[1])
    return Site(process, url[1], address[1], pb_grpc.PrecomputeServiceStub(channel))


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A whole server, games and all, for every test that breaks nothing."""
    opened = open_site(
        HEADSTART_DATA_DIR=str(tmp_path_factory.mktemp("data")),
        HEADSTART_PIPELINES=f"{REFERENCES},{OWN}",
        HEADSTART_POOLS="default",
    )
    yield opened
    opened.process.stop()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    from playwright.sync_api import expect, sync_playwright

    if CHROMIUM is None:
        message = "Chromium is missing: run `make test-browser`"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        expect.set_options(timeout=PATIENT)  # its own 5 s are over soon on a busy machine
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield opened
        opened.close()


@pytest.fixture
def new_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Makes pages; afterwards, none may have complained or asked another host for anything."""
    contexts, complaints, foreign = [], [], []

    def make(**options: Any) -> Any:
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENT)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(f"dialog {dialog.message}"))
        page.on("console", lambda said: _note(complaints, said))
        page.on("request", lambda request: _note_foreign(foreign, request.url))
        return page

    yield make
    for context in contexts:
        context.close()
    assert complaints == []
    assert foreign == []


def _note(complaints: list[str], said: Any) -> None:
    # That a server is away, or refuses, the browser says itself; what it means is on the page.
    if said.type == "error" and "Failed to load resource" not in said.text:
        complaints.append(said.text)


def _note_foreign(foreign: list[str], url: str) -> None:
    if not url.startswith(("http://127.0.0.1:", "http://localhost:")):
        foreign.append(url)


@pytest.fixture
def page(new_page: Callable[..., Any], site: Site) -> Any:
    """The page, live."""
    opened = new_page()
    opened.goto(site.url)
    opened.locator("#link[data-state=live]").wait_for()
    return opened


@pytest.fixture
def picture() -> Callable[[Any, str], None]:
    """Takes a screenshot for the docs, if HEADSTART_PICTURES names the folder."""
    folder = os.environ.get("HEADSTART_PICTURES")

    def take(page: Any, name: str) -> None:
        if folder:
            page.screenshot(path=Path(folder) / f"{name}.png")

    return take
