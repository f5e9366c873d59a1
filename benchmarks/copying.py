"""How long it takes to give a step values of its own, by each way: docs/decisions/0037."""

from __future__ import annotations

import copy
import json
import pickle
import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from pydantic import BaseModel, TypeAdapter

from headstart_service.values.artifacts import ArtifactCodec
from headstart_service.worker.copies import copied


class Item(BaseModel):
    id: int
    name: str
    score: float
    tags: list[str]


def items(size: int) -> list[dict[str, Any]]:
    """So many bytes of JSON."""
    count = size // 67
    return [
        {"id": n, "name": f"name {n}", "score": n / 7, "tags": ["a", "b"]} for n in range(count)
    ]


def least(action: Callable[..., object], *arguments: Any) -> float:
    """The least CPU time of its calls within a second, in microseconds."""
    end, best = time.perf_counter() + 1.0, float("inf")
    while best == float("inf") or time.perf_counter() < end:
        began = time.thread_time()
        action(*arguments)
        best = min(best, time.thread_time() - began)
    return best * 1e6


def main() -> None:
    for size in (1_000, 100_000, 8_000_000):
        plain = items(size)
        models = TypeAdapter(list[Item]).validate_python(plain)
        floats = [random.random() for _ in range(size // 9)]
        array, codec = np.zeros(size // 8), ArtifactCodec()
        took = {
            "copied": least(copied, plain),
            "deepcopy": least(copy.deepcopy, plain),
            "pickle.loads": least(pickle.loads, pickle.dumps(plain)),
            "decode": least(codec.decode, "step", codec.encode("step", plain)),
            "encode": least(codec.encode, "step", plain),
            "copied models": least(copied, models),
            "deepcopy of models": least(copy.deepcopy, models),
            "copied floats": least(copied, floats),
            "copied array": least(copied, array),
        }
        print(f"{len(json.dumps(plain)):,} bytes, in µs:")
        print("  " + ", ".join(f"{name} {figure:,.1f}" for name, figure in took.items()))


if __name__ == "__main__":
    main()
