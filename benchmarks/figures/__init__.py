"""One module a figure; `ALL` has them in the order of the design's table."""

from __future__ import annotations

from . import (
    api_process,
    encoder,
    fastapi_json,
    first_game,
    near_cache,
    redis_memory,
    redis_read,
    starts,
    throughput,
    undisturbed,
    waiters,
    wake_up,
    worker,
)

ALL = (
    near_cache.FIGURE,
    redis_read.FIGURE,
    fastapi_json.FIGURE,
    starts.FIGURE,
    wake_up.FIGURE,
    waiters.FIGURE,
    encoder.FIGURE,
    first_game.FIGURE,
    throughput.FIGURE,
    undisturbed.FIGURE,
    redis_memory.FIGURE,
    api_process.FIGURE,
    worker.FIGURE,
)
