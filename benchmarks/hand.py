"""A worker in the benchmark's own process: the real pipeline, queue and codec, without a model.

What it keeps is what a `headstart worker` would keep, byte for byte in size and layout; only the
vectors are random. So figures about reading and memory need not wait for torch, and a figure about
waiting decides itself when a run ends.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from headstart_service.domain import Claim, RunKey
from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.registry import Registry
from headstart_service.pipelines.bridging import BRIDGING
from headstart_service.pipelines.bridging.scan import VocabularyScan
from headstart_service.processes.lifecycle import redis_client
from headstart_service.store.connect import BLOCKING, WORKER
from headstart_service.store.job_queue import RedisJobQueue
from headstart_service.store.redis_store import RedisStore
from headstart_service.store.store_rules import StoreRules
from headstart_service.values.limits import Limits
from headstart_service.worker.offers import offers_of
from headstart_service.worker.run import run

from .harness import OURS
from .pipelines import BLOB, NOOP

M = TypeVar("M", bound=BaseModel)
DIMENSION = 384
_PIPELINES = {pipeline.name: pipeline for pipeline in (BRIDGING, NOOP, BLOB)}
_WORDS = (
    *("nature", "river", "rain", "lagoon", "mist", "habitat", "canopy", "island", "shelter"),
    *("journey", "shadow", "valley", "storm", "harvest", "bridge", "garden", "silence", "winter"),
)
_TTL = 1800.0
_BURST = 16


class _Embedder:
    """Random unit vectors, the same for the same text."""

    model = "all-MiniLM-L6-v2"

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.array([_vector(text) for text in texts])


class _Vocabulary:
    words = _WORDS

    def __init__(self) -> None:
        self.matrix = np.array([_vector(word) for word in _WORDS])
        self.index = {word: place for place, word in enumerate(_WORDS)}


class _LanguageModel:
    async def parse(self, *, system: str, prompt: str, output: type[M], max_tokens: int) -> M:
        del system, prompt, max_tokens
        return output.model_validate({"clues": _WORDS})


def _vector(text: str) -> NDArray[np.float32]:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    vector = np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)
    unit: NDArray[np.float32] = vector / np.linalg.norm(vector)
    return unit


class HandWorker:
    """Starts runs and works on them when told to."""

    def __init__(
        self,
        store: RedisStore,
        queue: RedisJobQueue,
        providers: Mapping[str, Any],
        name: str = f"benchmark-{os.getpid()}",
    ) -> None:
        self._store = store
        self._queue = queue
        self._providers = providers
        self._name = name
        self._offers = offers_of(Registry(_PIPELINES.values()), providers)

    async def start(self, key: str, pipeline: Pipeline, inputs: Mapping[str, Any]) -> None:
        """Start a run as an API process would."""
        plan = pipeline.plan(inputs, "inputs")
        await self._store.start(RunKey("default", key), plan, _TTL, restart=True)

    async def claim(self) -> Claim:
        """Take the next run that is queued."""
        (job,) = await self._queue.next_jobs(0, self._name, 1, 5.0)
        claim = await self._queue.claim(job, self._name, self._offers)
        assert claim is not None, "another worker took it"
        return claim

    async def finish(self, claim: Claim, limits: Limits | None = None) -> None:
        """Run what was claimed to its end."""
        await run(claim, _PIPELINES[claim.pipeline], self._providers, self._queue, limits=limits)

    async def keep_game(self, key: str) -> None:
        """Keep a finished game against Haiku: five clues of each side, 100 null samples, 18 kB."""
        await self.start_game(key)
        await self.finish(await self.claim())

    async def start_game(self, key: str) -> None:
        """Start a game against Haiku."""
        await self.start(key, BRIDGING, _game(key))

    async def keep_games(self, keys: Sequence[str]) -> None:
        """Keep many."""
        for first in range(0, len(keys), _BURST):
            await asyncio.gather(*(self.keep_game(key) for key in keys[first : first + _BURST]))


def _game(key: str) -> dict[str, Any]:
    # Other words for each key, so that no two games share anything.
    letters = "".join(chr(ord("a") + int(digit, 16)) for digit in key.encode().hex()[-8:])
    return {"anchor": f"ocean{letters}", "target": "forest", "recipient_type": "haiku"}


@asynccontextmanager
async def hand_worker(url: str, max_records: int = 100_000) -> AsyncIterator[HandWorker]:
    """A hand worker on this Redis; its connections are the benchmark's own."""
    rules = StoreRules(partitions=1, max_records=max_records, failure_ttl=60)
    vocabulary = _Vocabulary()
    async with (
        redis_client(f"{url}?{OURS}", WORKER) as client,
        redis_client(f"{url}?{OURS}", BLOCKING) as blocking,
        VocabularyScan(vocabulary.matrix) as scan,
    ):
        providers = {
            "embedder": _Embedder(),
            "vocabulary": vocabulary,
            "scan": scan,
            "language_model": _LanguageModel(),
        }
        queue = RedisJobQueue(client, blocking, rules, lease=600, budget=10)
        await queue.prepare_queue()
        store = RedisStore(client, rules, budget=10, connections=WORKER.connections)
        async with aclosing(queue), aclosing(store):
            yield HandWorker(store, queue, providers)
