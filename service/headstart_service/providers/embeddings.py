"""Embeddings for concurrent callers, in shared batches."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ..domain import FailureReason
from ..domain.errors import StepFailed
from ..worker.batching import Batcher
from .encoder import Encoder
from .model_files import ModelIdentity
from .provider_observer import EmbeddingObserver, Unwatched

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_GROUP = 4
"""Texts that stay together: few enough that one caller's fifty leave room for others'."""
_MAX_GROUPS = 32
"""Per batch, so 64 texts when each caller has two: 6 times as fast as one by one."""
_MAX_WAITING = 4096

_log = logging.getLogger(__name__)


class SentenceEmbedder:
    """Embeds texts; callers that come while a batch is computed share the next one.

    Use it as an async context manager: entering loads the model, leaving drops what still waits.
    """

    def __init__(
        self,
        load: Callable[[], Encoder],
        *,
        observer: EmbeddingObserver | None = None,
    ) -> None:
        """Load the model with `load`, in a thread."""
        self._load = load
        self._encoder: Encoder | None = None
        self._observer = observer or Unwatched()
        self._stack = AsyncExitStack()
        self._batcher: Batcher[tuple[str, ...], NDArray[np.float32]] | None = None

    @property
    def model(self) -> str:
        """The name that the model was asked for by."""
        return self._loaded().model

    @property
    def identity(self) -> str:
        """The model's name and the digest of the files that were loaded."""
        return str(self.model_identity)

    @property
    def model_identity(self) -> ModelIdentity:
        """The same, in two parts: what a vocabulary must be of."""
        return self._loaded().model_identity

    @property
    def dimension(self) -> int:
        """The length of each vector."""
        return self._loaded().dimension

    async def __aenter__(self) -> Self:
        """Load the model in a thread. Raises StartupError when there is no such model."""
        self._encoder = await asyncio.to_thread(self._load)
        batcher = Batcher(
            self._compute,
            max_batch=_MAX_GROUPS,
            max_waiting=_MAX_WAITING,
            name="embed",
            weigh=len,
            threads=lambda: self._loaded().threads,
            check=check_texts,
        )
        self._batcher = await self._stack.enter_async_context(batcher)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()
        self._batcher = None

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One float32 row of unit length per text, in their order: shape (len(texts), dimension).

        Raises StepFailed when a text is no valid Unicode text, or the model fails.
        """
        if self._batcher is None:
            raise RuntimeError("SentenceEmbedder is used outside its async with block")
        import numpy as np

        if not texts:
            return np.empty((0, self.dimension), dtype=np.float32)
        groups = [tuple(texts[at : at + _GROUP]) for at in range(0, len(texts), _GROUP)]
        if len(groups) == 1:
            return await self._batcher.submit(groups[0])
        # Not a TaskGroup: that would wrap the batch's StepFailed in an ExceptionGroup.
        return np.concatenate(await asyncio.gather(*map(self._batcher.submit, groups)))

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As `embed`, blocking and unbatched, for one thread at a time: building a vocabulary."""
        return self._loaded().encode(texts)

    def _loaded(self) -> Encoder:
        if self._encoder is None:
            raise RuntimeError("SentenceEmbedder is used outside its async with block")
        return self._encoder

    def _compute(self, groups: Sequence[tuple[str, ...]]) -> Sequence[NDArray[np.float32]]:
        # Games share words (popular anchors, a restarted run): each is encoded once per batch.
        place: dict[str, int] = {}
        for group in groups:
            for text in group:
                place.setdefault(text, len(place))
        began = time.perf_counter()
        try:
            vectors = self._loaded().encode(list(place))
        except (
            BaseException
        ) as error:  # whatever the runtime raises, or the tokenizer: a Rust panic, too
            _log.exception("the embedding model %s failed on %d texts", self.model, len(place))
            raise StepFailed(
                "the embedding model failed", failure_reason=FailureReason.INTERNAL
            ) from error
        self._observer.encoded(len(place), time.perf_counter() - began)
        return [vectors[[place[text] for text in group]] for group in groups]


def check_texts(group: Sequence[str]) -> None:
    """Raise StepFailed for a text that no tokenizer takes: it must not join others' batch."""
    for text in group:
        if not isinstance(text, str):
            reason = f"cannot embed a {type(text).__name__}: every text must be a str"
            raise StepFailed(reason, retry=False)
        try:
            text.encode()
        except UnicodeEncodeError as error:
            reason = f"cannot embed a text with {text[error.start]!a}: it must be valid Unicode"
            raise StepFailed(reason, retry=False) from error
