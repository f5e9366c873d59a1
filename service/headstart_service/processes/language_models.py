"""Opens the language models that a worker's pipelines take."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from contextlib import AsyncExitStack
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ..config.model_keys import access, named
from ..config.model_names import ANTHROPIC, OPENAI, ModelName
from ..config.settings import Settings
from ..domain import MessageBatches
from ..pipeline.language_model import LanguageModel
from ..pipeline.named_models import model_key
from ..providers.anthropic import API, AnthropicModel
from ..providers.governed_model import GovernedModel
from ..providers.openai import OpenAIModel, title_of
from ..providers.provider_observer import LanguageModelObserver
from .governors import Governors

if TYPE_CHECKING:
    from ..telemetry.tracing.tracing import Tracing


async def open_language_models(
    settings: Settings,
    names: Collection[str],
    observer: LanguageModelObserver,
    traced: Tracing | None,
    governors: Governors,
    batches: MessageBatches | None,
    stack: AsyncExitStack,
) -> Mapping[str, LanguageModel]:
    """Open the models that pipelines name, by the key of their provider; `stack` closes them.

    Warms them meanwhile, which delays nothing. Requests in batches are kept in `batches`. Raises
    ImportError where an SDK is missing.
    """
    keys: dict[ModelName, list[str]] = {}
    for each in sorted(names):
        keys.setdefault(named(settings, each), []).append(model_key(each))
    opened: dict[str, LanguageModel] = {}
    for name, own in keys.items():
        if find_spec(name.dialect) is None:  # found, not imported: the import takes a second
            raise ModuleNotFoundError(f"no module {name.dialect}", name=name.dialect)
        model = _model(settings, name, own, observer, traced, governors, batches)
        given: LanguageModel = await stack.enter_async_context(model)
        if traced and name.dialect == OPENAI:  # Anthropic's SDK makes spans itself
            given = traced.model_without_spans(given, name.model)
        opened |= dict.fromkeys(own, given)
        if settings.warm_models:
            stack.push_async_callback(
                _ended, asyncio.create_task(model.warm(), name=f"warm {name}")
            )
    return opened


async def _ended(warming: asyncio.Task[bool]) -> None:
    warming.cancel()
    await asyncio.wait({warming})


def _model(
    settings: Settings,
    name: ModelName,
    keys: Collection[str],
    observer: LanguageModelObserver,
    traced: Tracing | None,
    governors: Governors,
    batches: MessageBatches | None,
) -> GovernedModel:
    found = access(settings, name)
    title = API if name.dialect == ANTHROPIC else title_of(found.base_url)
    governor = governors.of_model(keys, name.dialect, name.model, title)
    if name.dialect == ANTHROPIC:
        return AnthropicModel(
            api_key=found.api_key,
            model=name.model,
            base_url=found.base_url,
            open_telemetry=traced.language_model() if traced else None,
            observer=observer,
            governor=governor,
            batches=batches,
        )
    return OpenAIModel(
        api_key=found.api_key,
        model=name.model,
        base_url=found.base_url,
        observer=observer,
        governor=governor,
    )
