"""Games for the figures about computing, played by Headstart and by the bare computation."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from itertools import count

import grpc

from headstart.v1 import precompute_pb2 as pb
from headstart.v1 import precompute_pb2_grpc as pb_grpc
from headstart_service.config.loading import load_settings
from headstart_service.providers.prepared_model import prepared_identity
from headstart_service.providers.vocabulary import is_current

from .engines import ENGINES
from .harness import Bench, Unavailable
from .processes import start_server

Pair = tuple[str, str]
_WAIT = 60
_FREQUENT, _LENGTH = 150_000, 4
"""How many words to look at, and how many letters one needs to be a player's."""


class Deck:
    """Pairs of words, no word twice until all are used, and the same in every run."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = list(words)
        random.Random(0).shuffle(self._words)
        self._next = 0

    def deal(self, number: int) -> list[Pair]:
        """So many pairs."""
        return [(self._word(), self._word()) for _ in range(number)]

    def _word(self) -> str:
        self._next += 1
        return self._words[self._next % len(self._words)]


def common_words() -> Sequence[str]:
    """Those of the vocabulary, whose embeddings a worker knows. Raises Unavailable."""
    settings = load_settings({})
    model = prepared_identity(settings.prepared_models, settings.model)
    if not is_current(settings.vocabulary, model):
        raise Unavailable(f"no vocabulary in {settings.vocabulary}: headstart vocabulary build")
    return (settings.vocabulary / "words.txt").read_text().split()


def uncommon_words() -> Sequence[str]:
    """Words that a worker has to embed: the most frequent ones behind the vocabulary."""
    from wordfreq import top_n_list

    common = frozenset(common_words())
    words = top_n_list("en", _FREQUENT)
    return [w for w in words if w.isalpha() and len(w) >= _LENGTH and w not in common]


class Player:
    """Plays through Headstart: start, then wait for all of the results."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: pb_grpc.PrecomputeServiceAsyncStub = pb_grpc.PrecomputeServiceStub(channel)
        self._numbers = count()

    async def start(self, pair: Pair) -> str:
        """Start a game; gives its key."""
        key = f"game-{next(self._numbers)}"
        spec = pb.BridgingSpec(
            anchor=pair[0], target=pair[1], recipient_type=pb.RECIPIENT_TYPE_HUMAN
        )
        await self._stub.StartPrecompute(pb.StartPrecomputeRequest(key=key, bridging=spec))
        return key

    async def play(self, pair: Pair) -> float:
        """Seconds from the start to all of the results."""
        began = time.perf_counter()
        request = pb.GetResultsRequest(key=await self.start(pair))
        request.wait.seconds = _WAIT
        answer = await self._stub.GetResults(request)
        took = time.perf_counter() - began
        if len(answer.bridging.null_samples) == 0 or len(answer.bridging.lexical_bridge) == 0:
            raise RuntimeError(f"no whole result for {pair}: {answer.steps}")
        return took

    async def play_all(self, pairs: Sequence[Pair], at_once: int) -> float:
        """Games a second, when so many are always under way."""
        left = iter(pairs)

        async def keep_playing() -> None:
            for pair in left:
                await self.play(pair)

        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(keep_playing())
        return len(pairs) / (time.perf_counter() - began)

    async def queued(self) -> int:
        """How many runs no worker has taken yet."""
        return (await self._stub.GetStats(pb.GetStatsRequest())).queued_jobs


class BareComputation:
    """Plays by calling the functions, in a process that does nothing else."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def play(self, games: Sequence[Pair], batch: int) -> list[float]:
        """Seconds for each batch of so many games."""
        self._writer.write(json.dumps({"games": games, "batch": batch}).encode() + b"\n")
        await self._writer.drain()
        took: list[float] = json.loads(await self._reader.readline())
        return took


async def bare_computation(bench: Bench, engine: str = ENGINES[0]) -> BareComputation:
    """Start one, whose encoder is of this engine, with one thread."""
    _, address = await start_server(bench, "compute", "--engine", engine)
    host, _, port = address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=2**24)
    bench.stack.callback(writer.close)
    return BareComputation(reader, writer)
