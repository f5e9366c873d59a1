"""The bridging computation called directly: the same functions, no queue, no store, no network.

Takes lines of JSON over TCP, `{"games": [[anchor, target], …], "batch": 1}`, computes the games in
batches of that size and answers with the seconds that each batch took, `[0.013, …]`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Sequence
from typing import Any

from ..engines import ENGINES

Pair = tuple[str, str]
CLUES, SAMPLES = 5, 100


class Computation:
    """What a worker computes for a game against a person."""

    def __init__(self, threads: int, engine: str) -> None:
        # As `headstart worker` does, before numpy or torch is loaded.
        for pool in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
            os.environ[pool] = str(threads)
        from headstart_service.config.loading import load_settings
        from headstart_service.pipelines.bridging.ratings import Rater
        from headstart_service.providers.encoder import Encoder, load_encoder
        from headstart_service.providers.library_encoder import LibraryEncoder
        from headstart_service.providers.model_files import source_directory
        from headstart_service.providers.vocabulary import open_vocabulary

        settings = load_settings({})
        if engine == "sentence-transformers":
            directory = source_directory(settings.model)
            self._encoder: Encoder = LibraryEncoder.load(settings.model, directory, threads=threads)
        else:
            models = settings.prepared_models
            self._encoder = load_encoder(settings.model, models, threads=threads)
        self._vocabulary = open_vocabulary(settings.vocabulary, self._encoder.model_identity)
        self._rater = Rater(self._vocabulary.matrix)

    def play(self, games: Sequence[Pair]) -> list[dict[str, Any]]:
        """Everything that the games' results are made of, in one batch."""
        from headstart_service.pipelines.bridging.neighbours import neighbours
        from headstart_service.pipelines.bridging.null import null_samples

        vectors = self._encoder.encode([word for game in games for word in game])
        matrix, words, index = (
            self._vocabulary.matrix, self._vocabulary.words, self._vocabulary.index
        )  # fmt: skip
        ends = list(zip(vectors[::2], vectors[1::2], strict=True))
        played = []
        for game, end, ratings in zip(games, ends, self._rater.rate(ends), strict=True):
            best = neighbours(ratings, words, *game, CLUES)
            excluded = [index[word] for word in game if word in index]
            samples = null_samples(ratings, excluded, CLUES, SAMPLES, seed=hash(game) & 0xFFFFFFFF)
            played.append(
                {
                    "anchor_embedding": end[0],
                    "target_embedding": end[1],
                    "lexical_bridge": [words[place] for place in best],
                    "lexical_embeddings": matrix[best],
                    "null_samples": samples,
                }
            )
        return played


async def serve(computation: Computation) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            order = json.loads(line)
            games = [tuple(game) for game in order["games"]]
            took = []
            for first in range(0, len(games), order["batch"]):
                began = time.perf_counter()
                computation.play(games[first : first + order["batch"]])
                took.append(time.perf_counter() - began)
            writer.write(json.dumps(took).encode() + b"\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, limit=2**24)
    print(f"listening on {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="threads of encoder and numpy")
    parser.add_argument("--engine", default=ENGINES[0], choices=ENGINES, help="of the encoder")
    options = parser.parse_args()
    asyncio.run(serve(Computation(options.threads, options.engine)))


if __name__ == "__main__":
    main()
