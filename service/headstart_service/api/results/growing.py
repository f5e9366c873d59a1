"""Joins a run's answers with what its steps give before they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress

from headstart.v1 import precompute_pb2 as pb

from ...domain.errors import StoreUnavailable
from ..deadline import RETRY_PAUSE
from .answer import Answer
from .followers import Follower


async def growing(
    answers: AsyncGenerator[Answer], follower: Follower
) -> AsyncGenerator[tuple[Answer | None, Sequence[pb.PartialResult]]]:
    """Yield each answer with the pieces before it; pieces between two answers by themselves."""
    pending = _next(answers, follower)
    sent = False
    try:
        while True:
            await follower.news.wait()
            follower.news.clear()
            answer: Answer | None = None
            if pending.done():
                answer = pending.result()
                if answer is None:
                    return
                if answer.run != follower.run:
                    follower.doubt()
            elif not sent:
                continue  # a watch begins with the run's state
            try:
                pieces = await follower.take()
            except StoreUnavailable:
                if not sent:
                    raise
                await asyncio.sleep(RETRY_PAUSE)
                follower.doubt()
                continue
            if answer is not None:
                pending, sent = _next(answers, follower), True
            if answer is not None or pieces:
                yield answer, pieces
    finally:
        pending.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await pending
        await answers.aclose()


def _next(answers: AsyncGenerator[Answer], follower: Follower) -> asyncio.Task[Answer | None]:
    """Have the follower's `news` set when there is another answer, or the answers' end."""

    async def following() -> Answer | None:
        return await anext(answers, None)

    task = asyncio.create_task(following(), name="next answer")
    task.add_done_callback(lambda _: follower.news.set())
    return task
