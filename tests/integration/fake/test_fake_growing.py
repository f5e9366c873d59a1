"""What there is of a step before it has ended: the fake server gives it as the service does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headstart import ItemProgress, ItemResult, NotFound, Results, StepState
from headstart.testing import fake_server
from tests.integration.fake.conftest import NEVER, Side, real_server, side_of
from tests.support.item_pipelines import REFERENCES as ITEMS
from tests.support.streaming_pipelines import REFERENCE as STREAMS

LONG = 30.0
CARRIERS = ["one", "bad", "held"]
WORDS = [{"words": 1}, {"words": 2}]


def _rated(inputs: Any) -> dict[str, Any]:
    rates = [
        {"error": "carrier away", "reason": "step_failed"}
        if name == "bad"
        else {"value": len(name)}
        for name in inputs["carriers"]
    ]
    return {"rates": rates, "cheapest": 3}


@pytest.fixture(scope="module", params=["fake", "real"])
def growing(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of a service whose steps go on without an end, but for the key "known"."""
    if request.param == "real":
        pipelines = {"HEADSTART_PIPELINES": f"{ITEMS},{STREAMS}", "HEADSTART_BRIDGING": "false"}
        with real_server(tmp_path_factory.mktemp("growing"), **pipelines) as address:
            yield address
        return
    with fake_server() as server:
        needs = {"cheapest": ["rates?"]}
        late = {"rates": [0.0, 0.0, NEVER]}
        server.script(
            _rated, pipeline="carriers", items=late, delays={"cheapest": NEVER}, needs=needs
        )
        ended = {"rates": [0.0] * 3}
        server.script(_rated, pipeline="carriers", items=ended, needs=needs, key="known")
        streams: dict[str, Any] = {"draft": ["befüre ", "after"], "verdicts": WORDS}
        more = {"streams": streams, "failed": {"failing": "broke off"}}
        needed = {"verdict": ["draft"], "failing": ["draft"]}
        results = {"verdict": {"words": 2}}
        waits = dict.fromkeys(("draft", "verdict", "failing"), NEVER)
        server.script(results, pipeline="words", delays=waits, needs=needed, **more)
        server.script(results, pipeline="words", needs=needed, key="known", **more)
        yield server.address


@pytest.fixture
async def side(growing: str) -> AsyncIterator[Side]:
    async for each in side_of(growing):
        yield each


async def _first(side: Side, key: str, seen: Any, **options: Any) -> Results:
    """Return the first state for which `seen` holds."""
    states = side.client.watch_results(key, **options)
    return await anext(state async for state in states if seen(state))


async def test_the_items_that_have_ended_are_read_before_their_step_has(
    side: Side, tmp_path: Path
) -> None:
    inputs = {"directory": str(tmp_path), "carriers": CARRIERS}
    await side.client.start("k", "carriers", inputs)
    partial = await _first(side, "k", lambda state: len(state.items("rates")) == 2)
    one, bad = partial.items("rates")
    assert one == ItemResult(index=0, value=3, attempts=1)
    assert (bad.index, bad.value, bad.error) == (1, None, "carrier away")
    assert (bad.failure_reason, bad.attempts) == ("step_failed", 1)
    progress = partial.steps["rates"].items
    assert progress is not None
    # The service has an estimate once it has seen items end.
    assert replace(progress, estimate=None) == ItemProgress(
        total=3, completed=1, failed=1, running=1
    )
    assert set(partial.missing) == {"rates", "cheapest"}
    others = await side.client.get_results("k", result_steps=["cheapest"])
    assert others.items("rates") == ()
    await side.client.cancel("k")
    ended = await side.client.get_results("k")
    # What there was stays readable, as long as the run is kept.
    assert ended.items("rates") == partial.items("rates")
    assert (ended.steps["rates"].state, ended.steps["rates"].items) == (StepState.PENDING, None)


async def test_a_list_that_has_ended_is_the_step_s_value(side: Side, tmp_path: Path) -> None:
    (tmp_path / "open").touch()
    await side.client.start("known", "carriers", {"directory": str(tmp_path), "carriers": CARRIERS})
    results = await side.client.get_results("known", wait=LONG)
    assert results.custom == _rated({"carriers": CARRIERS})
    assert [(each.index, each.value, each.error) for each in results.items("rates", int)] == [
        (0, 3, None),
        (1, None, "carrier away"),
        (2, 4, None),
    ]
    assert results.partial_items == {}
    assert results.steps["cheapest"].missing_needs == ()


async def test_what_a_step_has_given_is_read_before_it_has_ended(
    side: Side, tmp_path: Path
) -> None:
    await side.client.start("k", "words", {"directory": str(tmp_path)})
    partial = await _first(
        side, "k", lambda state: "verdicts" in state.custom, partial_results=True
    )
    assert partial.partials["draft"] == "befüre "
    assert (await side.client.get_results("k")).partials == {}
    piece = await anext(side.client.stream("k", "draft"))
    assert (piece.text, piece.items) == ("befüre ", ())
    await side.client.cancel("k")
    ended = await side.client.get_results("k", partial_results=True)
    assert (ended.partials, ended.steps["draft"].state) == (
        partial.partials,
        StepState.PENDING,
    )
    with pytest.raises(NotFound):
        await anext(side.client.stream("other", "draft"))


async def test_a_stream_that_has_ended_is_read_whole(side: Side, tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    await side.client.start("known", "words", {"directory": str(tmp_path)})
    await side.client.get_results("known", wait=LONG)
    assert "".join([str(piece) async for piece in side.client.stream("known", "draft")]) == (
        "befüre after"
    )
    items = [
        item async for piece in side.client.stream("known", "verdicts") for item in piece.items
    ]
    assert items == WORDS
