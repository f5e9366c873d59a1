"""The live page, as an operator sees it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from headstart.v1 import precompute_pb2 as pb
from tests.browser.conftest import Site, open_site
from tests.support.pipelines import NOOP
from tests.support.prefix_proxy import prefix_proxy
from tests.support.processes import clean_environment
from tests.support.tokens import tokens_of

expect = pytest.importorskip("playwright.sync_api", reason="make test-browser").expect
pytestmark = pytest.mark.browser

HOSTILE = (
    '<img src=x onerror="alert(1)">',
    "</script><script>alert(2)</script>",
    "../../%2e%2e#/run/{{7*7}}?a=b&c",
    "مفتاح-" + "ж" * 60,
    "k" * 250,
)


def row(page: Any, listed: str, key: str) -> Any:
    return page.locator(f"#{listed} li", has=page.get_by_text(key, exact=True))


def unique(name: str) -> str:
    return f"{name}-{uuid4().hex[:6]}"


def test_a_games_whole_life_can_be_watched(
    page: Any, site: Site, tmp_path: Path, picture: Any
) -> None:
    key = unique("gated")
    site.start(key, "probe", directory=str(tmp_path), value=1)
    live = row(page, "live", key)
    expect(live).to_contain_text("running")
    expect(live).to_contain_text("1 of 2 steps")
    live.get_by_role("link").click()
    detail = page.get_by_role("dialog")
    expect(detail.locator(".timeline .labels li")).to_have_count(2)
    expect(detail).to_contain_text("still runs")
    expect(detail.locator("rect.bar.running")).to_have_count(1)
    assert detail.locator("path.need").count() == 1, "gated waited for first"
    (tmp_path / "go").touch()
    expect(detail.locator(".badge")).to_have_text("completed")
    expect(detail.locator("rect.bar.completed")).to_have_count(2)
    expect(detail).to_contain_text("20")  # the value of gated
    page.keyboard.press("Escape")
    expect(row(page, "recent", key)).to_contain_text("completed")
    expect(live).to_have_count(0)

    ready = page.locator(".chart", has_text="Results of three minutes").locator(".now")
    before = int(ready.inner_text())
    game = unique("game")
    spec = pb.BridgingSpec(anchor="ocean", target="forest", recipient_type="RECIPIENT_TYPE_HUMAN")
    site.stub.StartPrecompute(pb.StartPrecomputeRequest(key=game, bridging=spec), timeout=20)
    site.get(game)
    expect(ready).to_have_text(str(before + 1))
    row(page, "recent", game).get_by_role("link").click()
    expect(detail.locator(".chips li")).to_have_count(5)
    expect(detail.locator("svg.spark")).to_have_count(7)
    assert "100 values from" in str(detail.locator(".histogram svg").get_attribute("aria-label"))
    expect(detail).to_contain_text("384 numbers, norm 1")
    expect(detail.locator("dl.facts")).to_contain_text("in 29 min")
    picture(page, "dashboard-run")


def test_failures_are_shown_and_grouped_by_reason(page: Any, site: Site) -> None:
    keys = [unique("bug") for _ in range(3)]
    for key in keys:
        site.start(key, "buggy")
        site.get(key)
    group = page.locator("#failures li", has_text="buggy: internal error <id>")
    expect(group).to_have_count(1)
    expect(group.locator(".value")).to_have_text("3")
    expect(group.get_by_role("link")).to_have_count(3)
    refused = unique("refused")
    site.start(refused, "refused", text="x")
    site.get(refused)
    failed = row(page, "recent", refused)
    expect(failed).to_contain_text("failed")
    expect(failed).to_contain_text("the warehouse does not answer")
    failed.get_by_role("link").click()
    detail = page.get_by_role("dialog")
    expect(detail).to_contain_text("in 2 tries")
    expect(detail.locator("dl.facts")).to_contain_text("dependency away")
    expect(detail.locator(".errors")).to_contain_text("dependency away: the warehouse does not")
    expect(detail.locator("rect.bar.failed")).to_have_count(1)
    assert "nobody may read this" not in page.content()


def test_it_works_under_a_path_of_a_proxy(new_page: Any, site: Site, tmp_path: Path) -> None:
    with prefix_proxy(site.url) as proxy:
        page = new_page()
        page.goto(proxy.url)
        page.locator("#link[data-state=live]").wait_for()
        key = unique("proxied")
        site.start(key, "probe", directory=str(tmp_path), value=1)
        row(page, "live", key).get_by_role("link").click()
        detail = page.get_by_role("dialog")
        expect(detail).to_contain_text("still runs")
        assert page.url.startswith(f"{proxy.url}#")
        page.goto("about:blank")
        page.go_back()
        expect(detail.locator("h2")).to_have_text(key)
        detail.get_by_role("button", name="Cancel this run").click()
        expect(detail.locator(".badge")).to_have_text("cancelled")
        page.keyboard.press("Escape")
        page.locator("#namespace").fill("default")
        page.locator("#namespace").press("Enter")
        page.locator("#link[data-state=live]").wait_for()
        assert page.url == f"{proxy.url}?namespace=default"
        page.reload()
        expect(row(page, "recent", key)).to_contain_text("cancelled")
        assert proxy.outside == []
        page.close()


@pytest.mark.promise("Keys on the page are text", "strict policy, Trusted Types")
@pytest.mark.parametrize("key", HOSTILE)
def test_a_key_is_text_whatever_it_says(page: Any, site: Site, key: str) -> None:
    own = f"{key[:240]}{uuid4().hex[:6]}"
    site.start(own, "echo", text=HOSTILE[0])
    site.get(own)
    row(page, "recent", own).get_by_role("link").click()
    detail = page.get_by_role("dialog")
    expect(detail.locator("h2")).to_have_text(own)
    expect(detail.locator("pre")).to_have_text(json.dumps(HOSTILE[0]))
    assert page.locator("img[src=x]").count() == 0
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    expect(page.get_by_role("dialog").locator("h2")).to_have_text(own)


def test_everything_can_be_done_with_a_keyboard(page: Any, site: Site) -> None:
    key = unique("keyboard")
    site.start(key, "echo", text="x")
    site.get(key)
    expect(row(page, "recent", key)).to_have_count(1)
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    link = page.locator(":focus")
    assert "run" in (link.get_attribute("class") or "")
    outline = link.evaluate("e => getComputedStyle(e).outlineStyle")
    assert outline == "solid"
    name = link.inner_text()
    later = unique("later")
    site.start(later, "echo", text="x")
    expect(row(page, "recent", later)).to_have_count(1)  # it was drawn anew: the focus has stayed
    assert page.locator(":focus").inner_text().split("\n")[0] == name.split("\n")[0]
    page.keyboard.press("Enter")
    detail = page.get_by_role("dialog")
    expect(detail).to_be_visible()
    assert detail.locator(":focus").count() == 1
    page.keyboard.press("Escape")
    expect(detail).to_be_hidden()
    assert page.locator(":focus").get_attribute("class") == "run"


def test_a_telephone_is_wide_enough(new_page: Any, site: Site, picture: Any) -> None:
    site.start("w" * 250, "echo", text="x" * 300)
    site.get("w" * 250)
    page = new_page(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page.goto(site.url)
    expect(row(page, "recent", "w" * 250)).to_have_count(1)
    wide = "document.documentElement.scrollWidth"
    assert page.evaluate(wide) == 360
    picture(page, "dashboard-phone")
    row(page, "recent", "w" * 250).get_by_role("link").click()
    expect(page.get_by_role("dialog").locator("pre")).to_be_visible()
    assert page.evaluate(wide) == 360
    dialog = page.get_by_role("dialog").evaluate("d => [d.scrollWidth, d.clientWidth]")
    assert dialog[0] <= dialog[1]


def test_light_and_dark_follow_the_system_until_one_is_chosen(
    new_page: Any, site: Site, picture: Any
) -> None:
    page = new_page(color_scheme="dark")
    page.goto(site.url)
    page.locator("#link[data-state=live]").wait_for()

    def ground() -> int:
        return sum(
            page.evaluate(
                "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
            )
        )

    assert ground() < 150
    picture(page, "dashboard-dark")
    page.emulate_media(color_scheme="light")
    assert ground() > 600
    toggle = page.get_by_role("button", name="Theme: automatic")
    toggle.click()
    toggle = page.get_by_role("button", name="Theme: light")
    toggle.click()
    assert ground() < 150
    page.reload()
    assert ground() < 150
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()


def test_a_run_can_be_cancelled_here(page: Any, site: Site, tmp_path: Path) -> None:
    key = unique("unwanted")
    site.start(key, "probe", directory=str(tmp_path))
    row(page, "live", key).get_by_role("link").click()
    page.get_by_role("button", name="Cancel this run").click()
    detail = page.get_by_role("dialog")
    expect(detail.locator(".badge")).to_have_text("cancelled")
    expect(page.get_by_role("button", name="Cancel this run")).to_have_count(0)
    assert site.get(key, 0).status == pb.PRECOMPUTE_STATUS_CANCELLED


def test_workers_steps_and_latencies_are_shown(
    page: Any, site: Site, tmp_path: Path, picture: Any
) -> None:
    for number in range(12):
        site.start(f"chain-{number}", "chain", value=number)
    expect(page.locator("#workers li")).to_have_count(1)
    expect(page.locator("#workers li")).to_contain_text("of 64")
    site.get("chain-11")
    steps = page.locator("#steps div", has_text="chain")
    expect(steps.locator("li")).to_have_count(3)
    expect(page.locator("#steps li", has_text="three")).to_contain_text("ms")
    site.start("gated", "probe", directory=str(tmp_path))
    for _ in range(60):
        site.get("chain-11", 0)
        page.wait_for_timeout(100)
    ready = page.locator(".chart", has_text="Time to a ready result").get_by_role("img")
    expect(ready).to_have_attribute("aria-label", re.compile("median now .*[µm]s"))
    picture(page, "dashboard")
    (tmp_path / "go").touch()


def test_what_it_saved_is_reported_in_words_and_as_bars_with_their_numbers(
    page: Any, new_page: Any, site: Site, tmp_path: Path
) -> None:
    expect(page.locator("#board")).to_be_visible()
    saved = page.get_by_role("region", name="What it saved")

    def runs(fate: str) -> int:
        found = saved.get_by_role("listitem").filter(has_text=fate).locator(".value")
        return int(found.inner_text().split()[0]) if found.count() else 0

    before = {name: runs(name) for name in ("used, ready", "cancelled", "not known yet")}
    read, unread, unwanted = unique("read"), unique("unread"), unique("unwanted")
    site.start(read, "chain", value=1)
    expect(row(page, "recent", read)).to_contain_text("completed")
    site.get(read)
    site.start(unread, "echo", text="x")
    site.start(unwanted, "probe", directory=str(tmp_path))
    site.stub.CancelPrecompute(pb.CancelPrecomputeRequest(key=unwanted), timeout=20)
    expect(row(page, "recent", unread)).to_contain_text("completed")
    expect(row(page, "recent", unwanted)).to_contain_text("cancelled")
    for name, count in before.items():
        item = saved.get_by_role("listitem").filter(has_text=name)
        expect(item.locator(".value")).to_have_text(re.compile(rf"^{count + 1} · "))
    expect(saved.locator("#saved-hidden")).to_have_text(re.compile(r"^[\d.]+ (ms|s|min .* s)$"))
    expect(saved).to_contain_text(re.compile(r"\d+ % of the work was never read"))
    widths = saved.locator("rect").evaluate_all("all => all.map((r) => r.width.baseVal.value)")
    numbers = "\n".join(saved.locator(".value").all_inner_texts())
    shares = [int(share) for share in re.findall(r"(\d+) %", numbers)]
    assert widths == pytest.approx(shares, abs=1.1)
    phone = new_page(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    phone.goto(site.url)
    expect(phone.locator("#saved")).to_be_visible()
    assert phone.evaluate("document.documentElement.scrollWidth") == 360


def test_nobody_is_kept_from_it(page: Any, new_page: Any, site: Site) -> None:
    from axe_playwright_python.sync_playwright import Axe

    key = unique("axe")
    site.start(key, "refused", text="x")
    site.get(key)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        row(page, "recent", key).wait_for()
        _no_serious(Axe().run(page))
        row(page, "recent", key).get_by_role("link").click()
        page.get_by_role("dialog").locator(".timeline").wait_for()
        _no_serious(Axe().run(page))
        page.keyboard.press("Escape")


def _no_serious(results: Any) -> None:
    found = [
        (each["id"], each["impact"], [node["html"][:120] for node in each["nodes"]])
        for each in results.response["violations"]
        if each["impact"] in ("serious", "critical")
    ]
    assert found == []


def test_a_token_is_asked_for_and_shows_its_namespaces_alone(new_page: Any, tmp_path: Path) -> None:
    tokens = tokens_of(shop=("shop", "read,write"), reader=("shop", "read"), ops=("*", "admin"))
    guarded = open_site(
        "--no-worker",
        HEADSTART_DATA_DIR=str(tmp_path / "data"),
        HEADSTART_BRIDGING="false",
        HEADSTART_PIPELINES=f"tests.support.pipelines:{NOOP.name.upper()}",
        HEADSTART_TOKENS=str(tokens.written(tmp_path / "tokens")),
    )
    try:
        spec = pb.CustomSpec(pipeline="noop")
        for namespace in ("shop", "other"):
            request = pb.StartPrecomputeRequest(
                namespace=namespace, key=f"of-{namespace}", custom=spec
            )
            guarded.stub.StartPrecompute(request, metadata=tokens.metadata("ops"), timeout=20)
        page = new_page()
        page.goto(guarded.url)
        expect(page.get_by_label("Token", exact=True)).to_be_focused()
        expect(page.locator("#board")).to_be_hidden()
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#login-said")).to_contain_text("not one that this server accepts")
        page.get_by_label("Token", exact=True).fill(tokens.by_name["reader"])
        page.keyboard.press("Enter")
        expect(row(page, "live", "of-shop")).to_have_count(1)
        assert "of-other" not in page.content()
        expect(page.locator("#workers-none")).to_contain_text("admin")
        row(page, "live", "of-shop").get_by_role("link").click()
        expect(page.get_by_role("dialog")).to_contain_text("none yet")
        assert page.get_by_role("button", name="Cancel this run").count() == 0
        page.keyboard.press("Escape")
        _refuse_and_allow_a_namespace(page)
        row(page, "live", "of-shop").get_by_role("link").click()
        expect(page.get_by_role("dialog")).to_be_visible()
        secret = tokens.by_name["reader"]
        assert secret not in page.evaluate("JSON.stringify(localStorage) + document.cookie")
        assert secret in page.evaluate("JSON.stringify(sessionStorage)")
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()
        expect(page).to_have_url(re.compile(r"/\?namespace=shop$"))
        page.get_by_role("button", name="Forget token").click()
        expect(page.get_by_label("Token", exact=True)).to_be_visible()
        page.get_by_label("Token", exact=True).fill(tokens.by_name["ops"])
        page.locator("#login-namespace").fill("")
        page.keyboard.press("Enter")
        expect(row(page, "live", "other/of-other")).to_have_count(1)
        (tmp_path / "tokens").write_text(tokens_of(new=("*", "admin")).text)
        expect(page.get_by_label("Token", exact=True)).to_be_visible()
    finally:
        guarded.process.stop()


def _refuse_and_allow_a_namespace(page: Any) -> None:
    """Name one that the token lacks, which leaves the token where it is; then its own."""
    expect(page).to_have_url(re.compile(r"/$"))  # closed, and the focus is where it was
    page.locator("#namespace").fill("shup")
    page.locator("#namespace").press("Enter")
    expect(page.locator("#notice")).to_contain_text("lacks read in 'shup'")
    expect(page.get_by_label("Token", exact=True)).to_be_hidden()
    expect(page.locator("#board")).to_be_hidden()
    page.locator("#namespace").fill("shop")
    page.locator("#namespace").press("Enter")
    expect(page.locator("#link")).to_have_text("Live")
    expect(page.locator("#notice")).to_be_hidden()


def test_a_restart_of_the_server_is_told_and_outlived(new_page: Any, tmp_path: Path) -> None:
    settings = {
        "HEADSTART_DATA_DIR": str(tmp_path),
        "HEADSTART_BRIDGING": "false",
        "HEADSTART_PIPELINES": "tests.support.pipelines:NOOP",
    }
    first = open_site("--no-worker", **settings)
    page = new_page()
    try:
        page.goto(first.url)
        link = page.locator("#link")
        expect(link).to_have_text("Live")
    finally:
        first.process.stop()
    expect(link).to_have_text("Connection lost, trying again")
    port = first.url.rstrip("/").rpartition(":")[2]
    second = open_site("--no-worker", **settings, HEADSTART_HTTP_PORT=port)
    try:
        expect(link).to_have_text("Live")
        second.start("after", "noop")
        expect(row(page, "live", "after")).to_have_count(1)
    finally:
        second.process.stop()


def test_runs_are_found_by_text_pipeline_and_status(page: Any, site: Site) -> None:
    mine, other, failed = unique("find-mine"), unique("find-other"), unique("find-failed")
    for key, pipeline in ((mine, "echo"), (other, "chain"), (failed, "refused")):
        inputs = {"value": 1} if pipeline == "chain" else {"text": "x"}
        site.start(key, pipeline, **inputs)
        site.get(key)
    for key in (mine, other, failed):
        expect(row(page, "recent", key)).to_have_count(1)
    found = page.locator("#find-found")
    page.get_by_label("Search").fill(mine.upper())
    expect(page.locator("#recent li")).to_have_count(1)
    expect(row(page, "recent", mine)).to_have_count(1)
    expect(found).to_have_text(re.compile(r"^1 of \d+ listed runs match\.$"))
    page.get_by_label("Search").fill("find- warehouse")  # a key's words and a reason's
    expect(page.locator("#recent li")).to_have_count(1)
    expect(row(page, "recent", failed)).to_have_count(1)
    page.get_by_label("Search").fill("find-")
    page.get_by_label("Pipeline").select_option("chain")
    expect(page.locator("#recent li")).to_have_count(1)
    expect(row(page, "recent", other)).to_have_count(1)
    page.get_by_label("Status").select_option("failed")
    expect(page.locator("#recent-none")).to_have_text("No ended run matches.")
    page.get_by_role("button", name="Clear").click()
    expect(page.get_by_label("Search")).to_be_focused()
    for key in (mine, other, failed):
        expect(row(page, "recent", key)).to_have_count(1)
    expect(found).to_be_empty()


def test_an_empty_page_shows_a_first_run_and_a_phone_shows_runs_before_charts(
    new_page: Any, tmp_path: Path, picture: Any
) -> None:
    fresh = open_site(
        HEADSTART_DATA_DIR=str(tmp_path),
        HEADSTART_BRIDGING="false",
        HEADSTART_PIPELINES="examples.factors:FACTORS",
    )
    try:
        page = new_page(viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
        page.goto(fresh.url)
        commands = page.get_by_role("region", name="Commands to paste")
        expect(commands).to_contain_text("headstart start first --pipeline factors")
        expect(page.get_by_role("search")).to_be_hidden()
        picture(page, "dashboard-empty")
        _paste(commands.inner_text(), fresh.address)
        expect(row(page, "recent", "first")).to_contain_text("completed")
        expect(commands).to_be_hidden()
        runs, charts = (page.locator(each).bounding_box() for each in ("#now", "#history"))
        assert runs["y"] < charts["y"]
        expect(page.locator("#saved-hidden")).to_have_text(re.compile(r"^\d.*s$"))
        wide = new_page()
        wide.goto(fresh.url)
        expect(row(wide, "recent", "first")).to_have_count(1)
        runs, charts = (wide.locator(each).bounding_box() for each in ("#now", "#history"))
        assert runs["y"] > charts["y"]
    finally:
        fresh.process.stop()


def _paste(commands: str, address: str) -> None:
    """Run the page's commands as they stand, but for a number that has its factors at once."""
    lines = [line for line in commands.splitlines() if line.startswith("headstart ")]
    assert len(lines) == 3
    for line in lines:
        name, *arguments = shlex.split(line.replace("7400840699802997", "91"))
        command = [str(Path(sys.executable).with_name(name)), *arguments]
        environment = clean_environment() | {"HEADSTART_ADDRESS": address}
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)
