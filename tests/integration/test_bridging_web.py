"""examples/bridging_web over HTTP, beside a real Headstart, and without one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx2
import pytest
import uvicorn

from examples.bridging_web.app import MAX_BODY, create_app
from examples.bridging_web.games import Games
from examples.bridging_web.live import Live
from headstart import NotFound, PrecomputeClient, percentile, relevance
from headstart_service.config.loading import load_settings
from headstart_service.domain.errors import StepFailed
from headstart_service.pipelines.bridging.scan import VocabularyScan
from headstart_service.providers.anthropic import AnthropicModel
from headstart_service.providers.embedding_cache import CachedEmbedder
from headstart_service.providers.embeddings import SentenceEmbedder
from headstart_service.providers.encoder import Encoder
from headstart_service.providers.vocabulary import Vocabulary, open_vocabulary
from tests.integration.conftest import GameServer
from tests.support.messages_api import CLUES, MessagesApi, Reply
from tests.support.real_model import default_identity, encoder  # noqa: F401 - a fixture
from tests.support.waiting import wait_until

GAME = {"anchor": "Ocean", "target": "forest", "recipient_type": "human"}
MINE = ["island", "rain", "moss", "river", "wetland"]
NOBODY = "127.0.0.1:1"
PATIENT = 30.0
"""Seconds: a machine that is busy with other tests must not make the application compute itself."""


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    """The one that the server's worker has."""
    return open_vocabulary(load_settings({}).vocabulary, default_identity())


@pytest.fixture
async def live(
    encoder: Encoder,  # noqa: F811 - the fixture
    vocabulary: Vocabulary,
) -> AsyncIterator[Callable[..., Live]]:
    """Makes what computes in the application's process; with `api` it has a language model."""
    async with (
        SentenceEmbedder(lambda: encoder) as embedder,
        VocabularyScan(vocabulary.matrix) as scan,
    ):
        opened = []
        remembering = CachedEmbedder(embedder, vocabulary, remembered=100)

        async def make(api: MessagesApi | None = None, embedder: Any = remembering) -> Live:
            model = AnthropicModel(
                api_key="key" if api else None, model="m", base_url=api.url if api else None
            )
            opened.append(model)
            await model.__aenter__()
            return Live(
                embedder=embedder,
                vocabulary=vocabulary,
                scan=scan,
                language_model=model,
            )

        yield make
        for model in opened:
            await model.__aexit__(None, None, None)


@asynccontextmanager
async def site(client: PrecomputeClient, live: Live, **more: Any) -> AsyncIterator[Any]:
    """The application behind a real HTTP server; gives a client of it."""
    app = create_app(client, live, **more)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    try:
        await wait_until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False
        ) as web:
            yield web
    finally:
        server.should_exit = True
        await serving


@pytest.fixture
async def client(game_server: GameServer) -> AsyncIterator[PrecomputeClient]:
    async with PrecomputeClient(game_server.address) as opened:
        yield opened


@pytest.fixture
def nobody() -> AbstractAsyncContextManager[PrecomputeClient]:
    """A client of a service that is not there."""
    return PrecomputeClient(NOBODY, max_attempts=1)


async def begun(web: Any, **changes: Any) -> Any:
    answer = await web.post("/bridging/", json=GAME | changes)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def submitted(web: Any, game: Any, clues: Sequence[str] = MINE) -> Any:
    answer = await web.post(f"/bridging/{game['id']}/clues", json={"clues": clues})
    assert answer.status_code == 200, answer.text
    return answer.json()


def sources(answer: Any) -> dict[str, str]:
    return {step: part["source"] for step, part in answer["parts"].items()}


async def test_what_was_computed_while_the_player_typed_is_ready_at_submit(client, live):
    async with site(client, await live(), budget=PATIENT) as web:
        game = await begun(web)
        assert (game["anchor"], game["not_started"]) == ("ocean", None)
        results = await client.get_results(game["id"], wait=30)
        answer = await submitted(web, game)
    assert sources(answer) == dict.fromkeys(results.steps, "ready")
    assert answer["null_samples"] == list(results.bridging.null_samples)
    assert answer["haiku"] is None
    lexical = answer["lexical"]
    assert [each["word"] for each in lexical["words"]] == list(results.bridging.lexical_bridge)
    ends = (results.bridging.anchor_embedding, results.bridging.target_embedding)
    score = relevance(results.bridging.lexical_embeddings, *ends)
    assert lexical["score"] == pytest.approx(score, abs=1e-6)
    assert lexical["percentile"] == percentile(score, results.bridging.null_samples)
    assert lexical["score"] > answer["you"]["score"] > answer["null_samples"][50]


async def test_without_a_head_start_nothing_is_started_and_the_figures_are_the_same(client, live):
    async with site(client, await live(), budget=PATIENT) as web:
        ahead = await begun(web)
        await client.get_results(ahead["id"], wait=30)
        later = await begun(web, head_start=False)
        with pytest.raises(NotFound):
            await client.get_status(later["id"])
        with_it, without = await submitted(web, ahead), await submitted(web, later)
    assert set(sources(without).values()) == {"live"}
    assert set(sources(with_it).values()) == {"ready"}
    for figure in ("you", "lexical", "haiku", "null_samples", "embedding_model"):
        assert_close(with_it[figure], without[figure], figure)


def assert_close(one: Any, other: Any, where: str) -> None:
    """Equal words, and numbers within 1e-6: their last bits depend on the batch."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for name in one:
            assert_close(one[name], other[name], f"{where}.{name}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for at, (mine, theirs) in enumerate(zip(one, other, strict=True)):
            assert_close(mine, theirs, f"{where}[{at}]")
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=1e-6), where
    else:
        assert one == other, where


async def test_a_game_goes_on_when_the_service_is_away(nobody, live):
    async with nobody as client, site(client, await live()) as web:
        game = await begun(web)
        assert "ServiceUnavailable" in game["not_started"]
        answer = await submitted(web, game)
    assert set(sources(answer).values()) == {"live"}
    assert len(answer["null_samples"]) == 100


async def test_haikus_bridge_is_scored_by_the_same_measure(nobody, live):
    with MessagesApi() as api:
        async with nobody as client, site(client, await live(api), stand_in=True) as web:
            game = await begun(web, recipient_type="haiku", head_start=False)
            answer = await submitted(web, game, CLUES[:5])
            assert (await web.get("/about")).json()["stand_in"] is True
    assert [each["word"] for each in answer["haiku"]["words"]] == CLUES[:5]
    assert answer["haiku"] == answer["you"]
    assert answer["stand_in"] is True


async def test_a_bridge_that_haiku_does_not_give_is_missing_with_the_reason(nobody, live):
    with MessagesApi() as api:
        api.script(Reply.text("sorry", stop_reason="refusal"))
        async with nobody as client, site(client, await live(api)) as web:
            game = await begun(web, recipient_type="haiku", head_start=False)
            answer = await submitted(web, game)
    assert "declined" in answer["haiku"]["error"]
    assert sources(answer)["haiku_bridge"] == sources(answer)["haiku_embeddings"] == "failed"
    assert answer["lexical"]["words"]


class BrokenEmbedder:
    """A model that fails."""

    model = "m"

    async def embed(self, texts: Sequence[str]) -> Any:
        raise StepFailed("the embedding model failed")


async def test_a_model_that_fails_is_reported_as_unavailable(nobody, live):
    async with nobody as client, site(client, await live(embedder=BrokenEmbedder())) as web:
        game = await begun(web, head_start=False)
        answer = await web.post(f"/bridging/{game['id']}/clues", json={"clues": MINE})
    assert answer.status_code == 503
    assert "the embedding model failed" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, ["anchor", "target", "recipient_type"]),
        (GAME | {"anchor": "x" * 65, "target": "  "}, ["anchor", "target"]),
        (GAME | {"target": " ocean"}, ["target"]),
        (GAME | {"recipient_type": "opus"}, ["recipient_type"]),
        (GAME | {"head_start": "perhaps"}, ["head_start"]),
        (GAME | {"clue_count": 51, "colour": "red"}, ["clue_count", "colour"]),
    ],
)
async def test_a_wrong_game_is_refused_with_every_wrong_field(body, fields, nobody, live):
    async with nobody as client, site(client, await live()) as web:
        answer = await web.post("/bridging/", json=body)
    assert answer.status_code == 422
    assert [wrong["loc"] for wrong in answer.json()["detail"]] == [["body", f] for f in fields]


@pytest.mark.parametrize(
    ("clues", "places"),
    [
        ([], [[]]),
        (["rain", "", "7", "x" * 65, "a\0b"], [[1], [2], [3], [4]]),
        (["rain", "Oceanic", "rains", "forests"], [[1], [2], [3]]),
        (["rain", "moss", "island", "river", "swamp", "sixth"], [[5]]),
        (["rain", 3], [[1]]),
        ("rain", [[]]),
    ],
)
async def test_wrong_clues_are_refused_by_their_places(clues, places, nobody, live):
    async with nobody as client, site(client, await live()) as web:
        game = await begun(web, head_start=False)
        answer = await web.post(f"/bridging/{game['id']}/clues", json={"clues": clues})
    assert answer.status_code == 422
    expected = [["body", "clues", *place] for place in places]
    assert [wrong["loc"] for wrong in answer.json()["detail"]] == expected


async def test_games_are_forgotten_and_unknown_ones_refused(nobody, live):
    now = [0.0]
    games = Games(most=2, ttl=60, now=lambda: now[0])
    async with nobody as client, site(client, await live(), games=games) as web:
        first, second, third = [await begun(web, head_start=False) for _ in range(3)]
        body = {"clues": MINE}
        assert (await web.post(f"/bridging/{first['id']}/clues", json=body)).status_code == 404
        await submitted(web, second)
        now[0] = 61.0
        refused = await web.post(f"/bridging/{third['id']}/clues", json=body)
    assert refused.status_code == 404
    assert "no such game" in refused.json()["detail"]
    assert len(games) == 0


async def test_the_page_needs_nothing_from_elsewhere_and_bodies_are_bounded(nobody, live):
    async with nobody as client, site(client, await live()) as web:
        page = await web.get("/")
        assert page.status_code == 200
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
        for name in ("page.js", "histogram.js", "watch.js", "style.css", "icon.svg"):
            text = (await web.get(f"/static/{name}")).raise_for_status().text
            assert "https://" not in text + page.text
        large = await web.post("/bridging/", content=b" " * (MAX_BODY + 1))
        assert large.status_code == 413
        assert (await web.get("/docs")).status_code == 404
