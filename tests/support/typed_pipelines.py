"""Pipelines written as an author writes them: typed steps, and steps that misbehave."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from headstart_service.sdk import Pipeline, step

if TYPE_CHECKING:
    import numpy as np
    from httpx2 import AsyncClient
    from numpy.typing import NDArray


class Count(BaseModel):
    word: str
    times: int
    share: float


class Text(BaseModel):
    text: str = Field(min_length=1)
    url: str = ""


@step(required=True)
async def words(text: str) -> list[str]:
    return text.split()


@step(required=True)
async def counts(words: list[str]) -> list[Count]:
    return [
        Count(word=word, times=words.count(word), share=words.count(word) / len(words))
        for word in dict.fromkeys(words)
    ]


@step(required=True)
async def lengths(words: list[str]) -> NDArray[np.int64]:
    import numpy as np

    return np.array([[len(word) for word in words]], dtype=np.int64)


@step(required=True)
async def summary(counts: list[Count], lengths: NDArray[np.int64]) -> dict[str, Any]:
    return {"most": counts[0].word, "letters": int(lengths.sum()), "half": 2.0, "id": 2**60}


@step(required=True)
async def raw(text: str) -> bytes:
    return text.encode()


@step(when=lambda inputs: bool(inputs.url))
async def page(url: str, http: AsyncClient) -> str:
    return (await http.get(url)).text


class Nothing(BaseModel):
    pass


@step()
async def raises() -> int:
    raise RuntimeError("secret")


@step()
async def mistyped() -> list[str]:
    return {"a": 1}  # type: ignore[return-value]


@step()
async def too_much() -> bytes:
    return bytes(200_000)


@step()
async def far_too_much() -> list[str]:
    return ["x" * 1000] * 10_000


@step(timeout=0.2)
async def endless() -> int:
    await asyncio.Event().wait()
    return 1


@step()
async def fine() -> int:
    return 1


class Ids(BaseModel):
    id: int
    more: Any = None


@step(required=True, memo=True)
async def given(id: int, more: Any) -> Any:  # noqa: A002  # what callers call it
    return {"id": id, "more": more}


@step(required=True, memo=True)
async def written(id: int, more: Any) -> str:  # noqa: A002
    return f"{id!r} {more!r}"


IDS = Pipeline("ids", "1", "Gives its inputs back", Ids, (given, written))
TYPED = Pipeline("typed", "1", "Every type", Text, (words, counts, lengths, summary, raw, page))
ODD = Pipeline(
    "odd",
    "1",
    "Misbehaves in every way",
    Nothing,
    (raises, mistyped, too_much, far_too_much, endless, fine),
)
REFERENCES = ",".join(f"tests.support.typed_pipelines:{name}" for name in ("TYPED", "ODD", "IDS"))
