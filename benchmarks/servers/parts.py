"""Times the parts of a game in a process of its own: encoding, rating, reading the vocabulary.

Each line of JSON that it reads names a part and its size; it answers the seconds that took.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from typing import Any


def parts() -> dict[str, Callable[[int], Any]]:
    """What can be timed; each takes how many texts or games, and repeats no text."""
    # As `headstart worker` does, before numpy or torch is loaded.
    for pool in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ[pool] = "1"
    from headstart_service.config.loading import load_settings
    from headstart_service.pipelines.bridging.ratings import Rater
    from headstart_service.providers.encoder import Encoder, load_encoder
    from headstart_service.providers.library_encoder import LibraryEncoder
    from headstart_service.providers.model_files import source_directory
    from headstart_service.providers.vocabulary import open_vocabulary

    from ..engines import ENGINES
    from ..games import Deck, uncommon_words

    settings = load_settings({})
    model = settings.model
    runtime = load_encoder(model, settings.prepared_models, threads=1)
    library = LibraryEncoder.load(model, source_directory(model), threads=1)
    matrix = open_vocabulary(settings.vocabulary, runtime.model_identity).matrix
    rater, numbers = Rater(matrix), matrix.reshape(-1)
    decks = {engine: Deck(uncommon_words()) for engine in ENGINES}

    def encode(engine: str, encoder: Encoder) -> Callable[[int], Any]:
        def timed(count: int) -> Any:
            pairs = decks[engine].deal((count + 1) // 2)
            return encoder.encode([word for pair in pairs for word in pair][:count])

        return timed

    return {
        "sentence-transformers": encode(ENGINES[0], library),
        "onnxruntime": encode(ENGINES[1], runtime),
        "rate": lambda games: rater.rate(
            [(matrix[2 * game], matrix[2 * game + 1]) for game in range(games)]
        ),
        # Nothing reads memory faster with one thread.
        "read": lambda _: numbers.max(),
    }


async def serve(known: dict[str, Callable[[int], Any]]) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            order = json.loads(line)
            part, took = known[order["part"]], []
            for _ in range(order["times"]):
                began = time.perf_counter()
                part(order["size"])
                took.append(time.perf_counter() - began)
            writer.write(json.dumps(took).encode() + b"\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(f"listening on {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(parts()))
