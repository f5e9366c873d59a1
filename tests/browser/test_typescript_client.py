"""The TypeScript client in a real Chromium, on a page of another origin than the server's."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import Site, open_site
from tests.languages.tools import (
    CONNECT_CLIENTS,
    TYPESCRIPT_CLIENT,
    install_node_packages,
    node_environment,
)
from tests.support.connect_page import connect_page
from tests.support.pipelines import REFERENCES

pytest.importorskip("playwright.sync_api", reason="make test-browser")
pytestmark = pytest.mark.browser

WATCH = """async ([url, directory]) => {
    const client = headstartClient.createWebClient(url);
    const started = await client.start("page", "probe", { directory, value: 2n ** 53n });
    const states = [];
    for await (const state of client.watchResults("page")) {
        states.push(state.status);
        window.noted();
    }
    const { values } = await client.getResults("page", { waitMs: 1500 });
    const wrong = await client.start("page", "probe", { directory, value: "x" }).catch((error) => error);
    return {
        outcome: started.outcome,
        last: states.at(-1),
        many: states.length > 1,
        first: String(values.first),
        code: wrong.code,
        fields: wrong.violations.map((each) => each.field),
    };
}"""
AWAY = """async (url) => {
    const began = performance.now();
    const error = await headstartClient.createWebClient(url).getStatus("k").catch((error) => error);
    return [error.name, error.code, performance.now() - began > 100];
}"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client, bundled for pages."""
    install_node_packages(CONNECT_CLIENTS)
    install_node_packages(TYPESCRIPT_CLIENT)
    bundle = tmp_path_factory.mktemp("bundle") / "client.js"
    bundler = CONNECT_CLIENTS / "node_modules" / ".bin" / "esbuild"
    command = [bundler, TYPESCRIPT_CLIENT / "src" / "web.ts", "--bundle", "--format=iife"]
    command += ["--global-name=headstartClient", f"--outfile={bundle}"]
    subprocess.run(command, env=node_environment(), capture_output=True, check=True)
    return bundle


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, str]]:
    """A server, and the origin whose pages may call it."""
    with connect_page() as origin:
        site = open_site(
            HEADSTART_DATA_DIR=str(tmp_path_factory.mktemp("data")),
            HEADSTART_BRIDGING="false",
            HEADSTART_PIPELINES=REFERENCES,
            HEADSTART_CORS_ORIGINS=origin,
        )
        yield site, origin
        site.process.stop()


def test_a_page_starts_watches_and_reads_a_run(
    shop: tuple[Site, str], script: Path, new_page: Callable[..., Any], tmp_path: Path
) -> None:
    site, origin = shop
    page = new_page()
    page.goto(origin)
    page.add_script_tag(path=script)

    def let_go() -> None:  # Playwright cannot note anything on a method of a path
        (tmp_path / "go").touch()

    page.expose_function("noted", let_go)  # the run's end waits for a first state
    assert page.evaluate(WATCH, [site.url.rstrip("/"), str(tmp_path)]) == {
        "outcome": "started",
        "last": "completed",
        "many": True,
        "first": str(2**53 + 1),
        "code": "INVALID_ARGUMENT",
        "fields": ["custom.inputs.value"],
    }


def test_a_server_that_is_away_is_unavailable_to_a_page(
    shop: tuple[Site, str], script: Path, browser: Any
) -> None:
    page = browser.new_page()  # the console's complaints are expected
    page.goto(shop[1])
    page.add_script_tag(path=script)
    assert page.evaluate(AWAY, "http://127.0.0.1:9") == ["HeadstartError", "UNAVAILABLE", True]
    page.close()
