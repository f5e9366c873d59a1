"""The word-bridging game, as its players see it: what `make demo-web` serves, in a real Chromium."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.browser.conftest import wait_for
from tests.support.processes import Process, clean_environment

expect = pytest.importorskip("playwright.sync_api", reason="make test-browser").expect
pytestmark = pytest.mark.browser

CLUES = ("island", "rain", "moss", "river", "wild")


@pytest.fixture(scope="module")
def game_url() -> Iterator[str]:
    """Headstart, the game and a stand-in for Haiku, as the make target starts them."""
    command = [sys.executable, "-m", "examples.bridging_web.serve", "--port", "0"]
    process = Process([*command, "--http-port", "0"], clean_environment())

    def said() -> re.Match[str] | None:
        assert process.alive, process.tail
        return re.search(r"Play on\s+(\S+)", process.output)

    yield wait_for(said)[1]
    process.stop()


@pytest.fixture
def game(new_page: Callable[..., Any], game_url: str) -> Any:
    return opened(new_page(viewport={"width": 1000, "height": 1250}), game_url)


def opened(page: Any, url: str) -> Any:
    page.goto(url)
    page.locator("html[data-ready=true]").wait_for()
    return page


def played(page: Any, clues: tuple[str, ...] = CLUES) -> None:
    """Begin with what the form says, type clues, submit, and wait for the answer."""
    submitting(page, clues)
    page.locator("#result").wait_for()


def submitting(page: Any, clues: tuple[str, ...] = CLUES) -> None:
    """Begin with what the form says, type clues and submit."""
    page.get_by_role("button", name="Begin").click()
    for number, clue in enumerate(clues, 1):
        page.get_by_label(f"Clue {number}").fill(clue)
    page.get_by_role("button", name="Submit").click()


def test_a_game_is_played_with_the_keyboard_alone(game: Any, picture: Any) -> None:
    press, write = game.keyboard.press, game.keyboard.type
    press("Tab")
    expect(game.get_by_label("Anchor")).to_be_focused()
    press("Control+A")
    write("music")
    press("Tab")
    press("Control+A")
    write("winter")
    press("Tab")
    expect(game.locator("[value=haiku]")).to_be_focused()
    press("Tab")
    expect(game.get_by_role("switch", name="Head start")).to_be_focused()
    expect(game.get_by_role("switch")).to_be_checked()
    press("Enter")
    expect(game.get_by_role("heading", name="2. From music to winter")).to_be_visible()
    expect(game.get_by_label("Clue 1")).to_be_focused()
    progress = game.get_by_role("status")
    expect(progress).to_have_text(re.compile(r"Computed so far: \d of 5 parts\."))
    for clue in ("dance", "holiday", "carol", "song", "festive"):
        write(clue)
        press("Tab")
        game.wait_for_timeout(1200)  # a player thinks, and Haiku's stand-in answers meanwhile
    expect(progress).to_have_text("Computed so far: 5 of 5 parts.", timeout=30_000)
    expect(game.get_by_role("button", name="Submit")).to_be_focused()
    press("Enter")
    expect(game.locator("#result-title")).to_be_focused()
    # On a busy machine some parts are waited for.
    expect(game.locator("#how")).to_have_text(
        re.compile(r"Head start on: of 5 parts, \d (ready|w)")
    )
    expect(game.locator("#how")).not_to_contain_text("failed")
    chart = game.locator("#histogram svg")
    expect(chart).to_have_attribute(
        "aria-label", re.compile(r"100 random bridges score .* You 0\.\d+, better than \d+ percent")
    )
    for kind in ("you", "lexical", "haiku"):
        expect(chart.locator(f".mark.{kind} line")).to_have_count(1)
        expect(chart.locator(f".mark.{kind} text")).to_have_text(re.compile(r" 0\.\d{3}$"))
    assert sum(_heights(chart)) > 0
    rows = game.locator("#bridges tbody tr")
    expect(rows).to_have_count(3)
    expect(rows.nth(0)).to_contain_text("carol")
    expect(rows.nth(2)).to_contain_text("Stand-in for Haiku")
    expect(game.locator("#stand-in")).to_contain_text("no game asks Claude Haiku")
    picture(game, "bridging-web")


def _heights(chart: Any) -> list[float]:
    heights: list[float] = chart.locator(".bar").evaluate_all(
        "all => all.map(b => b.getBoundingClientRect().height)"
    )
    return heights


def test_with_head_start_off_the_player_waits_for_what_is_computed_then(
    game: Any, picture: Any
) -> None:
    game.get_by_role("switch").uncheck()
    expect(game.locator("#head-start-note")).to_have_text("Compute when I submit.")
    waits = game.locator("#waits")
    expect(waits.locator(".took")).to_have_text(["not played yet"] * 2)
    submitting(game)
    expect(game.get_by_role("timer")).to_have_text(re.compile(r"waiting for \d+\.\d s"))
    game.locator("#result").wait_for()
    expect(game.locator("#clock")).to_be_hidden()
    expect(game.locator("#how")).to_have_text(
        "Head start off: all 5 parts were computed after you had submitted."
    )
    first = game.locator("#bridges tbody tr").first.inner_text()
    game.get_by_role("button", name="The same with head start on").click()
    expect(game.get_by_role("switch")).to_be_checked()
    expect(game.locator("#result")).to_be_hidden()  # the second game has begun
    expect(game.get_by_label("Clue 5")).to_have_value("wild")
    game.get_by_role("button", name="Submit").click()
    expect(game.locator("#submits li")).to_have_count(2, timeout=30_000)
    expect(game.locator("#submits")).to_contain_text("with head start off")
    expect(game.locator("#submits")).to_contain_text("with head start on")
    expect(waits.locator(".took")).to_have_text([re.compile(r"\d m?s$")] * 2)
    expect(game.locator("#waits-note")).not_to_contain_text("Play once")
    fills = waits.locator(".fill").evaluate_all("all => all.map(f => f.offsetWidth)")
    track = waits.locator(".track").first.evaluate("t => t.clientWidth")
    assert max(fills) == track, "the longer wait fills its bar"
    assert min(fills) > 0
    picture(game, "bridging-web-compared")
    assert game.locator("#bridges tbody tr").first.inner_text() == first


def test_what_is_computed_moves_no_button_under_the_player(game: Any) -> None:
    game.get_by_role("button", name="Begin").click()
    submit = game.get_by_role("button", name="Submit")
    expect(submit).to_be_enabled()
    place = "all => all.map(e => e.getBoundingClientRect().top + scrollY)"
    before = game.locator("#submit").evaluate_all(
        f"all => {{ document.getElementById('progress').hidden = true; return ({place})(all); }}"
    )
    expect(game.get_by_role("status")).to_have_text(
        "Computed so far: 5 of 5 parts.", timeout=30_000
    )
    assert game.locator("#submit").evaluate_all(place) == before


def test_what_is_wrong_is_said_beside_its_field(game: Any) -> None:
    game.get_by_label("a person").check()
    game.get_by_label("Target").fill("OCEAN")
    game.get_by_role("button", name="Begin").click()
    target = game.get_by_label("Target")
    expect(target).to_be_focused()
    expect(target).to_have_attribute("aria-invalid", "true")
    expect(target).to_have_accessible_description(re.compile("must differ from anchor"))
    target.fill("forest")
    played_wrong = ("rain", "Oceans", "", "moss")
    game.get_by_role("button", name="Begin").click()
    expect(target).not_to_have_attribute("aria-invalid", "true")
    for number, clue in enumerate(played_wrong, 1):
        game.get_by_label(f"Clue {number}").fill(clue)
    game.keyboard.press("Enter")
    empty = game.get_by_label("Clue 3")
    expect(empty).to_be_focused()
    expect(empty).to_have_accessible_description(re.compile("1 to 64 characters"))
    empty.fill("island")
    game.keyboard.press("Enter")
    expect(game.get_by_label("Clue 2")).to_have_accessible_description(
        re.compile("must not be a form of the anchor")
    )
    expect(game.locator("#result")).to_be_hidden()
    game.get_by_label("Clue 2").fill('<img src=x onerror="alert(1)">')
    game.keyboard.press("Enter")
    expect(game.locator("#bridges tbody tr").first).to_contain_text("<img src=x")
    assert game.locator("img[src=x]").count() == 0


def test_nobody_is_kept_from_playing(new_page: Any, game_url: str, picture: Any) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = new_page(
        viewport={"width": 360, "height": 740},
        has_touch=True,
        is_mobile=True,
        color_scheme="dark",
    )
    opened(page, game_url)
    page.get_by_label("a person").check()
    played(page)
    expect(page.locator("#bridges tbody tr")).to_have_count(2)
    for summary in page.locator("details summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    ground = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    assert sum(page.evaluate(ground)) < 150
    picture(page, "bridging-web-phone")
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page).response["violations"]
        assert [(each["id"], [n["html"][:120] for n in each["nodes"]]) for each in found] == []
    assert sum(page.evaluate(ground)) > 600
