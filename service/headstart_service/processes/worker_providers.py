"""Opens the providers that steps may name as a parameter. Brings numpy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from ..base.extras import install
from ..config.limits_file import EMBEDDINGS
from ..config.model_keys import embeddings_key
from ..config.model_names import EXTRAS
from ..config.settings import Settings
from ..domain import MessageBatches
from ..domain.errors import PackageMissing, StartupError
from ..providers.building import ensure_vocabulary
from ..providers.embedding_cache import CachedEmbedder
from ..providers.embeddings import SentenceEmbedder
from ..providers.encoder import load_encoder
from ..providers.endpoint_embedder import ENDPOINT, EndpointEmbedder
from ..providers.http import http_client
from ..providers.progress import build_progress
from ..providers.storage import open_storage
from ..providers.vocabulary import Vocabulary
from ..telemetry.metrics.work import ModelMetrics
from .governors import Governors
from .language_models import open_language_models

if TYPE_CHECKING:
    from ..telemetry.tracing.tracing import Tracing


@asynccontextmanager
async def open_providers(
    settings: Settings,
    wanted: AbstractSet[str],
    metrics: ModelMetrics,
    traced: Tracing | None,
    governors: Governors,
    models: Collection[str] = ("",),
    batches: MessageBatches | None = None,
) -> AsyncIterator[Mapping[str, Any]]:
    """Open the wanted providers of `pipeline.providers.PROVIDERS`, by parameter name.

    Calls of language models need permits of `governors`. Pipelines name these `models`; an empty
    name is that of the settings. Their requests in batches are kept in `batches`.
    Raises PackageMissing, which names the extra, where a package of one is not installed.
    """
    providers: dict[str, Any] = {}
    known: Vocabulary | None = None
    async with AsyncExitStack() as stack:
        embedder: SentenceEmbedder | EndpointEmbedder
        if settings.embeddings_url and "embedder" in wanted:
            with _needing("embedder"):
                endpoint = _endpoint(settings, settings.embeddings_url, governors)
                embedder = await stack.enter_async_context(endpoint)
        elif wanted & {"embedder", "vocabulary", "scan"}:
            load = partial(
                load_encoder,
                settings.model,
                settings.prepared_models,
                threads=settings.compute_threads,
            )
            local = SentenceEmbedder(load, observer=metrics)
            embedder = await stack.enter_async_context(local)
        if wanted & {"vocabulary", "scan"}:
            with build_progress() as progress:
                vocabulary = await asyncio.to_thread(
                    ensure_vocabulary,
                    settings.vocabulary,
                    local.model_identity,
                    None,
                    local.encode,
                    progress,
                )
            providers["vocabulary"] = known = vocabulary
            from ..pipelines.bridging.scan import VocabularyScan  # brings numpy

            scan = await stack.enter_async_context(
                VocabularyScan(vocabulary.matrix, metrics.scanned, identity=vocabulary.identity)
            )
            providers["scan"] = scan
            # The first product reads the whole matrix from disk: do that before a user waits.
            await scan.rate(*vocabulary.matrix[:2])
        if "embedder" in wanted:
            providers["embedder"] = CachedEmbedder(
                traced.embedder(embedder) if traced else embedder,
                known,
                remembered=settings.word_cache,
                observer=metrics,
            )
        if "http" in wanted:
            with _needing("http"):
                providers["http"] = await stack.enter_async_context(
                    http_client(
                        per_host=settings.http_per_host,
                        retries=settings.http_retries,
                        wait=settings.step_wait,
                    )
                )
        if "language_model" in wanted:
            with _needing("language_model"):
                providers |= await open_language_models(
                    settings, models, metrics, traced, governors, batches, stack
                )
        if "storage" in wanted:
            if settings.storage is None:
                raise StartupError(
                    "a step takes storage: set HEADSTART_STORAGE, such as file:///srv/headstart"
                )
            with _needing("storage"):
                providers["storage"] = await stack.enter_async_context(
                    open_storage(settings.storage, ttl=settings.storage_ttl)
                )
        yield providers


def _endpoint(settings: Settings, url: str, governors: Governors) -> EndpointEmbedder:
    """Return the embedder at `url`."""
    model = settings.embeddings_model
    return EndpointEmbedder(
        url=url,
        model=model,
        key=embeddings_key(settings),
        dimensions=settings.embeddings_dimensions,
        batch=settings.embeddings_batch,
        governor=governors.of_model(["embedder"], EMBEDDINGS, model, ENDPOINT),
    )


@contextmanager
def _needing(provider: str) -> Iterator[None]:
    """Turn an ImportError into a PackageMissing that names the extra."""
    try:
        yield
    except ImportError as error:
        brings = {"embedder": "worker", "storage": "storage"}.get(provider, "language-model")
        extra = EXTRAS.get(error.name or "", brings)
        raise PackageMissing(
            f"a step takes {provider}, which needs {error.name}, which is not installed: "
            f"{install(extra)}"
        ) from error
