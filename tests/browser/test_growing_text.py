"""What a step gives before it ends, on the live page, in a real Chromium."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.browser.conftest import Site

expect = pytest.importorskip("playwright.sync_api", reason="make test-browser").expect
pytestmark = pytest.mark.browser

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
AT_END = "e => e.scrollHeight > e.clientHeight && e.scrollHeight - e.scrollTop - e.clientHeight < 2"
SELECT = "e => getSelection().setBaseAndExtent(e.firstChild, 0, e.firstChild, 4)"


@pytest.fixture
def written(site: Site, tmp_path: Path) -> tuple[str, Callable[[str], None]]:
    """A run whose step gives what is written, and a function that writes."""
    (tmp_path / "said").touch()
    key = f"essay-{uuid4().hex[:6]}"
    site.start(key, "essay", directory=str(tmp_path))

    def write(text: str) -> None:
        with (tmp_path / "said").open("a") as said:
            said.write(text)

    return key, write


def opened(page: Any, site: Site, key: str) -> Any:
    page.goto(f"{site.url}#/run/default/{key}")
    return page.get_by_role("dialog")


def test_a_steps_text_grows_is_followed_and_becomes_its_value(
    new_page: Any, site: Site, written: Any, tmp_path: Path
) -> None:
    key, write = written
    detail = opened(new_page(), site, key)
    expect(detail).to_contain_text("None yet.")
    hostile = '<img src=x onerror="alert(1)">'
    write(f"Once {hostile}")
    text = detail.get_by_role("region", name="What essay has given")
    expect(text).to_have_text(f"Once {hostile}")
    assert detail.locator("img").count() == 0
    expect(detail).not_to_contain_text("None yet.")

    text.evaluate(SELECT)
    write("".join(f"\nline {number}" for number in range(40)))
    expect(text).to_contain_text("line 39")
    expect(detail.locator(".value-row")).to_contain_text("so far")
    assert text.page.evaluate("getSelection().toString()") == "Once"
    assert text.evaluate(AT_END), "its end is in view"

    text.evaluate("e => e.scrollTop = 50")
    write("\nline 40")
    expect(text).to_contain_text("line 40")
    assert text.evaluate("e => e.scrollTop") == 50, "what is read there stays in view"

    write("é" * 2500)  # more than the page shows
    expect(detail.locator(".value-row")).to_contain_text("so far, its end")
    assert "\N{REPLACEMENT CHARACTER}" not in text.inner_text()

    (tmp_path / "end").touch()
    expect(detail.locator(".badge")).to_have_text("completed")
    expect(detail.get_by_role("region", name="JSON of essay")).to_contain_text("Once")
    expect(text).to_have_count(0)


def test_the_text_of_a_new_try_replaces_the_old(
    new_page: Any, site: Site, written: Any, tmp_path: Path
) -> None:
    key, write = written
    write("a first draft")
    detail = opened(new_page(), site, key)
    text = detail.get_by_role("region", name="What essay has given")
    expect(text).to_have_text("a first draft")
    (tmp_path / "said").write_text("a second")
    (tmp_path / "fail").touch()
    expect(text).to_have_text("a second")
    (tmp_path / "fail").touch()
    expect(detail.locator(".errors")).to_contain_text("the pen broke")
    expect(text).to_have_text("a second")
    expect(detail.locator(".value-row")).to_contain_text("before it failed")


def test_growing_text_fits_a_telephone_and_can_be_read_in_light_and_dark(
    new_page: Any, site: Site, written: Any, tmp_path: Path
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    key, write = written
    write("w" * 300 + " and so on. " * 40)
    page = new_page(**PHONE)
    detail = opened(page, site, key)
    text = detail.get_by_role("region", name="What essay has given")
    expect(text).to_contain_text("and so on.")
    detail.evaluate("d => d.scrollTop = 60")
    write("more")
    expect(text).to_contain_text("more")
    assert detail.evaluate("d => d.scrollTop") == 60
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert text.evaluate("e => e.scrollWidth <= e.clientWidth"), "it wraps"
    assert detail.evaluate("d => d.scrollWidth <= d.clientWidth")
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page).response["violations"]
        assert [(each["id"], [n["html"][:120] for n in each["nodes"]]) for each in found] == []
    (tmp_path / "end").touch()
