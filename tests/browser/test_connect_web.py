"""The official Connect client in a real Chromium, on a page of another origin than the server's."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import Site, open_site
from tests.support.connect_page import connect_page
from tests.support.pipelines import REFERENCES

pytest.importorskip("playwright.sync_api", reason="make test-browser")
pytestmark = pytest.mark.browser

WATCH = """([url, key, binary]) => {
    const notes = [];
    const take = (note) => { notes.push(note); window.noted(note); };
    return headstart.watch(url, key, binary, take).then(() => notes);
}"""
STATUS = "([url, key]) => headstart.status(url, key)"
START = """([url, key]) => headstart.clientOf(url, false)
    .startPrecompute({ key, spec: { case: "custom", value: { pipeline: "noop" } } })
    .then(() => "started", (error) => String(error))"""
COMPLETED = 3


@dataclass
class Shop:
    """A server, and the origin whose pages may call it."""

    site: Site
    origin: str
    url: str


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with connect_page() as origin:
        site = open_site(
            HEADSTART_DATA_DIR=str(tmp_path_factory.mktemp("data")),
            HEADSTART_BRIDGING="false",
            HEADSTART_PIPELINES=REFERENCES,
            HEADSTART_CORS_ORIGINS=origin,
        )
        yield Shop(site, origin, site.url.rstrip("/"))
        site.process.stop()


@pytest.mark.parametrize("binary", [False, True])
def test_a_page_watches_a_run_step_by_step(
    shop: Shop,
    new_page: Callable[..., Any],
    tmp_path: Path,
    binary: bool,  # noqa: FBT001  # a parameter
) -> None:
    def noted(note: dict[str, Any]) -> None:
        """Let the second step end once the page has seen the end of the first one."""
        if note["steps"]["first"] == COMPLETED:
            (tmp_path / "go").touch()

    page = new_page()
    page.goto(shop.origin)
    page.expose_function("noted", noted)
    key = f"watched-{binary}"
    shop.site.start(key, "probe", directory=str(tmp_path))
    notes = page.evaluate(WATCH, [shop.url, key, binary])
    assert notes[-1]["status"] == "COMPLETED"
    ended = [sum(state == COMPLETED for state in note["steps"].values()) for note in notes]
    assert ended == sorted(ended)
    assert {1, 2} <= set(ended), "the steps were seen one by one"
    assert all(a["at"] < b["at"] for a, b in itertools.pairwise(notes))


def test_a_page_reads_by_get_without_a_preflight(shop: Shop, new_page: Callable[..., Any]) -> None:
    page = new_page()
    page.goto(shop.origin)
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.method))
    assert page.evaluate(STATUS, [shop.url, "missing"]) == "NotFound"
    assert sent == ["GET"]


@pytest.mark.promise("In a real browser, a page of another origin reads and starts nothing", "CORS")
def test_a_page_of_another_origin_reads_and_starts_nothing(shop: Shop, browser: Any) -> None:
    with connect_page() as other:
        page = browser.new_page()
        page.goto(other)
        shop.site.start("kept", "noop")
        shop.site.get("kept")
        assert page.evaluate(STATUS, [shop.url, "kept"]) in {"Unknown", "Unavailable", "Internal"}
        assert "Failed to fetch" in page.evaluate(START, [shop.url, "stolen"])
        page.close()
    mine = browser.new_page()
    mine.goto(shop.origin)
    assert mine.evaluate(STATUS, [shop.url, "stolen"]) == "NotFound"
    assert mine.evaluate(STATUS, [shop.url, "kept"]) == "COMPLETED"
    mine.close()
