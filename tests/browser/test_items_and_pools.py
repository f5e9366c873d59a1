"""Items of a step, and steps of a pool without workers, on the live page, in a real Chromium."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from headstart.v1 import precompute_pb2 as pb
from tests.browser.conftest import Site

expect = pytest.importorskip("playwright.sync_api", reason="make test-browser").expect
pytestmark = pytest.mark.browser

CARRIERS = ["good", "bad-1", "bad-2", "held-1", "held-2", "held-3"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("light", {"color_scheme": "light"}),
        ("dark", {"color_scheme": "dark"}),
        ("phone", {"viewport": {"width": 360, "height": 740}, "is_mobile": True}),
    ],
)
def test_items_their_failures_and_steps_without_workers_are_shown(
    new_page: Any, site: Site, tmp_path: Path, picture: Any, name: str, options: dict[str, Any]
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    key = f"parcel-{uuid4().hex[:6]}"
    site.start(key, "parcel", directory=str(tmp_path), carriers=CARRIERS)
    page = new_page(**options)
    page.goto(site.url)
    row = page.locator("#live li", has=page.get_by_text(key, exact=True))
    expect(row).to_contain_text("label: no worker serves the pool printer")
    pool = page.get_by_role("list", name="Pools").get_by_role("listitem").filter(has_text="printer")
    expect(pool).to_have_text(re.compile(r"^printer0 workers1 queued for up to .* s, 0 running$"))
    picture(page, f"pools-{name}")
    row.get_by_role("link").click()
    detail = page.get_by_role("dialog")
    expect(detail.locator(".waits")).to_have_text("Waits: label: no worker serves the pool printer")
    expect(detail.locator(".labels li", has_text="label")).to_contain_text("pool printer")

    items = detail.get_by_role("region", name="Items of rates")
    expect(items).to_contain_text("6 items, 1 completed, 2 failed, 2 running, 1 waiting")
    reason = "item 1 dependency away: <b>bad-1</b> is away"
    expect(items.get_by_role("listitem").first).to_have_text(reason)
    expect(items.get_by_role("listitem")).to_have_count(2)
    picture(page, f"items-{name}")
    assert page.evaluate("document.documentElement.scrollWidth") == page.viewport_size["width"]
    assert detail.evaluate("d => d.scrollWidth <= d.clientWidth")
    found = Axe().run(page).response["violations"]
    assert [(each["id"], [n["html"][:120] for n in each["nodes"]]) for each in found] == []

    (tmp_path / "open").touch()
    expect(items).to_contain_text("6 items, 4 completed, 2 failed")
    expect(items.get_by_role("listitem").first).to_have_text(reason)
    site.stub.CancelPrecompute(pb.CancelPrecomputeRequest(key=key), timeout=20)
    expect(detail.locator(".badge")).to_have_text("cancelled")
    expect(detail.locator(".waits")).to_have_count(0)
