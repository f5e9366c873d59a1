"""Embeddings of any endpoint that speaks OpenAI's `POST /embeddings`, in batches.

Calls are governed like those of a language model: limits, pauses and the breaker are shared by all
workers, under the name `embeddings`. Their tokens count for the ledger and for the budgets of
namespaces.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit, urlunsplit

from ..domain import CallOutcome, FailureReason
from ..domain.errors import StartupError, StepFailed
from ..pipeline.identity import printable
from ..worker.cost_meter import spend
from .dialect import estimated
from .embeddings import check_texts
from .governor import Governor
from .model_request import ModelRequest
from .permit import Permit
from .provider_observer import ANSWERED, TIMEOUT, UNREACHABLE, UNREADABLE
from .retries import with_retries

if TYPE_CHECKING:
    import numpy as np
    from httpx2 import AsyncClient
    from numpy.typing import NDArray

ENDPOINT: Final = "the embeddings endpoint"
"""How messages call it."""
_PATIENCE: Final = 45.0
"""Seconds in which tries may begin, outside of a step."""
_AT_ONCE: Final = 8
"""Batches of one call that are under way."""
_OK: Final = 200

_log = logging.getLogger(__name__)


class EndpointEmbedder:
    """An embedder behind a URL. Use it as an async context manager."""

    def __init__(
        self,
        *,
        url: str,
        model: str,
        key: str | None,
        dimensions: int | None,
        batch: int,
        governor: Governor,
        timeout: float = 30.0,
    ) -> None:
        """Ask `model` at `url`, the base that ends with /v1, for `batch` texts at a time.

        Each try takes `timeout` seconds at most, and needs a permit of the `governor`. With
        `dimensions` the endpoint is asked for vectors of that length, else for its own.
        """
        self._url = url.rstrip("/")
        self._model = model
        self._key = key
        self._wanted = dimensions
        self._dimension = dimensions or 0
        self._batch = batch
        self._governor = governor
        self._timeout = timeout
        self._client: AsyncClient | None = None

    @property
    def model(self) -> str:
        """The name that the endpoint knows the model by."""
        return self._model

    @property
    def dimension(self) -> int:
        """The length of its vectors."""
        return self._dimension

    @property
    def identity(self) -> str:
        """The endpoint's address, the model and the length of its vectors."""
        parts = urlsplit(self._url)
        place = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
        return printable(f"{place},{self._model},{self._dimension}")

    async def __aenter__(self) -> Self:
        """Connect. Without `dimensions` it asks once, and raises StartupError without an answer."""
        import httpx2

        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._client = httpx2.AsyncClient(headers=headers, timeout=self._timeout)
        if not self._dimension:
            try:
                await self.embed(["dimension"])
            except StepFailed as error:
                await self.__aexit__(None, None, None)
                raise StartupError(
                    f"HEADSTART_EMBEDDINGS_URL: {error}; with HEADSTART_EMBEDDINGS_DIMENSIONS a "
                    "worker starts without asking"
                ) from error
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._governor.aclose()
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One float32 row of unit length per text, in their order: shape (len(texts), dimension).

        Raises StepFailed, with a reason fit for callers, when the endpoint gives no such rows.
        """
        import numpy as np

        if not texts:
            return np.empty((0, self._dimension), dtype=np.float32)
        check_texts(texts)
        turns = asyncio.Semaphore(_AT_ONCE)

        async def part(batch: Sequence[str]) -> NDArray[np.float32]:
            async with turns:
                return await self._embed(batch)

        starts = range(0, len(texts), self._batch)
        tasks = [asyncio.create_task(part(texts[at : at + self._batch])) for at in starts]
        try:
            rows = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        return np.concatenate(rows)

    async def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        request = ModelRequest(ENDPOINT, time.perf_counter(), _PATIENCE)
        about = estimated(*texts)

        async def ask(permit: Permit) -> NDArray[np.float32]:
            answer = await self._answer(request, texts)
            rows = self._rows(request, answer, len(texts))
            tokens = _tokens(answer) or about
            permit.settle(CallOutcome.ANSWERED, ANSWERED, tokens=tokens)
            spend(llm_tokens=tokens)
            return rows

        return await with_retries(
            self._governor,
            request,
            ask,
            lambda: _status_failure(request) if request.status else None,
            tokens=about,
            cost_of_lost=about,
        )

    async def _answer(self, request: ModelRequest, texts: Sequence[str]) -> Any:
        """Send one try. Raises StepFailed; its reason holds neither the key nor a text."""
        import httpx2

        if self._client is None:
            raise RuntimeError("EndpointEmbedder is used outside its async with block")
        body: dict[str, Any] = {"model": self._model, "input": list(texts)}
        body["encoding_format"] = "float"
        if self._wanted:
            body["dimensions"] = self._wanted
        left = request.step_left
        limit = self._timeout if left is None else min(left, self._timeout)
        try:
            async with asyncio.timeout(limit):
                answer = await self._client.post(f"{self._url}/embeddings", json=body)
        except (TimeoutError, httpx2.TimeoutException) as error:
            request.end, request.hurried = TIMEOUT, limit < self._timeout
            raise _away(f"{ENDPOINT} did not answer within {limit:.3g} s") from error
        except httpx2.RequestError as error:
            request.end = UNREACHABLE
            raise _away(f"{ENDPOINT} could not be reached") from error
        if answer.status_code != _OK:
            request.note_status(answer.status_code, answer.headers)
            _log.debug("%s answered %d", ENDPOINT, answer.status_code)
            raise _status_failure(request)
        try:
            return answer.json()
        except ValueError as error:
            raise _unreadable(request, "is no JSON") from error

    def _rows(self, request: ModelRequest, answer: Any, count: int) -> NDArray[np.float32]:
        """Return the vectors of an answer, in the texts' order and of unit length."""
        import numpy as np

        try:
            data = sorted(answer["data"], key=lambda each: each["index"])
            places = [each["index"] for each in data]
            rows = np.array([each["embedding"] for each in data], dtype=np.float32)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise _unreadable(request, "is no list of vectors") from error
        if places != list(range(count)) or rows.ndim != 2 or not rows.shape[1]:  # noqa: PLR2004
            raise _unreadable(request, f"has not one vector for each of {count} texts")
        if self._dimension and rows.shape[1] != self._dimension:
            raise _unreadable(request, f"has {rows.shape[1]} numbers a text, not {self._dimension}")
        lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
        if not (np.isfinite(lengths).all() and lengths.all()):
            raise _unreadable(request, "has a vector without a direction")
        self._dimension = rows.shape[1]
        unit: NDArray[np.float32] = (rows / lengths).astype(np.float32)
        return unit


def _tokens(answer: Any) -> int:
    """Return how many tokens the endpoint has read; 0 if it reports none."""
    usage = answer.get("usage")
    count = usage.get("prompt_tokens") if isinstance(usage, Mapping) else None
    return max(0, count) if isinstance(count, int) and not isinstance(count, bool) else 0


def _status_failure(request: ModelRequest) -> StepFailed:
    reason = f"{ENDPOINT} answered {request.status}"
    return _away(reason) if request.may_pass else StepFailed(reason, retry=False)


def _unreadable(request: ModelRequest, how: str) -> StepFailed:
    request.end = UNREADABLE
    return StepFailed(f"the answer of {ENDPOINT} {how}", retry=False)


def _away(reason: str) -> StepFailed:
    return StepFailed(reason, failure_reason=FailureReason.DEPENDENCY_AWAY)
