"""The packages of examples/ on a real server with a real worker and model, installed as they say."""

from __future__ import annotations

import re
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from headstart_comparisons import Comparison
from headstart_comparisons import Summary as Winners
from headstart_streaming import Summary
from headstart_support import Answer

from headstart import PrecomputeClient
from tests.support.messages_api import MessagesApi, Reply
from tests.support.processes import ROOT, serving

PACKAGES = (
    *("checkout", "comparisons", "recommendations"),
    *("report", "search", "streaming", "support"),
)
ITEMS = {
    "bread": "How to bake sourdough bread at home",
    "bread-again": "Baking sourdough bread at home, step by step",
    "pizza": "Pizza dough with little yeast",
    "tyre": "Mending a flat bicycle tyre",
}


def install(package: str, site: Path) -> str:
    """Put a package where Python finds it, with its entry point, as pip does; gives its source."""
    project = tomllib.loads((ROOT / "examples" / package / "pyproject.toml").read_text())["project"]
    folder = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (folder / "entry_points.txt").write_text("\n".join(lines))
    return str(ROOT / "examples" / package / "src")


@asynccontextmanager
async def examples_served(directory: Path, api: MessagesApi) -> AsyncIterator[PrecomputeClient]:
    site = directory / "site"
    paths = [str(site), *(install(package, site) for package in PACKAGES)]
    paths += [str(ROOT / "client"), str(ROOT / "service")]
    async with (
        serving(
            PYTHONPATH=":".join(paths),
            HEADSTART_BRIDGING="false",
            HEADSTART_DATA_DIR=str(directory / "data"),
            ANTHROPIC_API_KEY="test-key",
            ANTHROPIC_BASE_URL=api.url,
            HEADSTART_PROVIDER_GATEWAY_URL=f"{api.url}/carriers",
        ) as (_, address),
        PrecomputeClient(address) as client,
    ):
        yield client


async def test_they_run_where_they_are_installed(tmp_path: Path):
    with MessagesApi() as api:
        async with examples_served(tmp_path, api) as client:
            assert {each.name for each in await client.list_pipelines()} == {
                *("checkout", "comparisons", "recommendations"),
                *("report", "search", "summary", "support"),
            }  # fmt: skip
            await recommends(client)
            await compares(client)
            await summarises(client, api)
            await reports(client)
            await supports(client, api)
            await checks_out(client, api)


async def recommends(client: PrecomputeClient) -> None:
    catalogue = [{"id": name, "text": text} for name, text in ITEMS.items()]
    inputs = {"article": "My first sourdough bread", "catalogue": catalogue, "count": 3}
    await client.start("reader", "recommendations", inputs | {"diversity": 0.6})
    results = await client.get_results("reader", wait=30)
    similar = results.artifact("similar", list[str])
    diverse = results.artifact("diverse", list[str])
    assert set(similar[:2]) == {"bread", "bread-again"}
    assert "tyre" not in similar
    assert diverse[0] == similar[0]
    assert set(diverse) != set(similar)


async def compares(client: PrecomputeClient) -> None:
    offers = [
        {"id": name, "text": text, "figures": {"minutes": len(text)}}
        for name, text in ITEMS.items()
    ]
    inputs = {"offers": offers, "lower_is_better": ["minutes"]}
    await client.start("shopper", "comparisons", inputs | {"selected": ["bread", "tyre"]})
    first = await client.get_results("shopper", wait=30)
    [pair] = first.artifact("comparisons", list[Comparison])
    assert (pair.left, pair.right) == ("bread", "tyre")
    # One more is ticked: the vectors are those of before.
    started = await client.start(
        "shopper", "comparisons", inputs | {"selected": ["bread", "tyre", "bread-again"]}
    )
    assert (started.outcome, started.revision) == ("replaced", 2)
    second = await client.get_results("shopper", wait=30, min_revision=2)
    assert len(second.artifact("comparisons", list[Comparison])) == 3
    assert set(second.artifact("summary", Winners).most_alike) == {"bread", "bread-again"}
    vectors = second.steps["vectors"]
    assert vectors.elapsed == first.steps["vectors"].elapsed
    assert second.steps["comparisons"].elapsed != first.steps["comparisons"].elapsed


async def summarises(client: PrecomputeClient, api: MessagesApi) -> None:
    said = ["A form ", "is filled in. ", "Slowly. ", *["More. "] * 1000]
    api.script(Reply.stream(said, pause=0.01))
    await client.start("form", "summary", {"document": "A long form. " * 50, "sentences": 2})
    early = await client.get_results("form", wait=30, required_steps=["reading_minutes"])
    assert early.artifact("reading_minutes", float) == pytest.approx(0.6)
    *spoken, last = [piece async for piece in client.stream("form", "summary")]
    assert "".join(piece.text for piece in spoken).startswith("A form is filled in. Slowly.")
    summary = (await client.get_results("form", wait=30)).artifact("summary", Summary)
    assert last.result == summary.model_dump()
    assert (summary.text, summary.ended) == ("A form is filled in. Slowly.", "enough")
    assert summary.input_tokens == 11


async def reports(client: PrecomputeClient) -> None:
    sales = [{"day": "2026-11-01", "cents": 500}]
    await client.start("dialog", "report", {"title": "November", "sales": sales})
    chart = (await client.get_results("dialog", wait=30)).artifact("chart", bytes)
    assert chart.startswith(b"\x89PNG")


async def supports(client: PrecomputeClient, api: MessagesApi) -> None:
    before = len(api.requests)
    api.script(Reply.stream(["Use little yeast ", "[pizza]."]))
    articles = [{"id": name, "text": text} for name, text in ITEMS.items()]
    for typed in ("How much yeast", "How much yeast does pizza dough need?"):
        asked = [{"by": "customer", "text": typed}]
        await client.start("chat", "support", {"conversation": asked, "articles": articles})
    *words, last = [piece async for piece in client.stream("chat", "answer")]
    assert "".join(piece.text for piece in words) == "Use little yeast [pizza]."
    assert last.result["sources"] == ["pizza"]
    results = await client.get_results("chat", wait=30)
    assert results.artifact("answer", Answer).sources == ["pizza"]
    assert len(api.requests) == before + 1, "the first of the two texts had not settled"


async def checks_out(client: PrecomputeClient, api: MessagesApi) -> None:
    """Use the provider of the package, whose setting is the carriers' address."""
    before = len(api.requests)
    api.script(Reply.status(403), Reply.status(503))
    parcel = {"grams": 900, "longest_cm": 30}
    order = {"parcel": parcel, "country": "DE", "postcode": "10115", "carriers": ["ant", "bee"]}
    await client.start("cart", "checkout", order)
    results = await client.get_results("cart", wait=30)
    assert sorted(each.path for each in api.requests[before:]) == ["/carriers/ant", "/carriers/bee"]
    assert results.steps["quotes"].items.failed == 2
    assert re.fullmatch(
        r"quotes: all 2 items failed; the first: answered \d03", results.error or ""
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_each_is_a_package_of_at_most_150_lines_that_offers_its_pipeline(package: str):
    folder = ROOT / "examples" / package
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    [reference] = project["entry-points"]["headstart.pipelines"].values()
    assert re.fullmatch(r"headstart_\w+:PIPELINE", reference)
    module = folder / "src" / reference.partition(":")[0] / "__init__.py"
    assert len(module.read_text().splitlines()) <= 150
    assert f"headstart pipelines check {project['name']}" in (folder / "README.md").read_text()
