"""Language models behind Anthropic's Messages API, through its SDK."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ..domain import MessageBatches
from ..pipeline.identity import printable
from ..pipeline.language_model import Answer, Usage
from .anthropic_answers import answer_of, usage_of
from .anthropic_batches import AnthropicBatches
from .batch_rules import BatchRules
from .dialect import CONNECTIONS, Piece, Question
from .governed_model import PATIENCE, TRY_TIMEOUT, GovernedModel
from .governor import Governor
from .model_request import SdkErrors, count_of
from .provider_observer import LanguageModelObserver

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic, AsyncStream
    from anthropic.types import RawMessageStreamEvent

API: Final = "the Anthropic API"
"""How messages call it."""
_NO_KEY: Final = (
    "no Anthropic API key: set ANTHROPIC_API_KEY, or another model by HEADSTART_LANGUAGE_MODEL"
)


class AnthropicModel(GovernedModel):
    """A language model behind the Messages API. Use it as an async context manager."""

    def __init__(
        self,
        *,
        api_key: str | None,
        model: str,
        base_url: str | None = None,
        timeout: float = TRY_TIMEOUT,
        patience: float = PATIENCE,
        open_telemetry: Mapping[str, Any] | None = None,
        observer: LanguageModelObserver | None = None,
        governor: Governor | None = None,
        batches: MessageBatches | None = None,
        batch_rules: BatchRules | None = None,
    ) -> None:
        """Ask `model` with `api_key`; without a key every request fails and none is sent.

        `base_url` defaults to ANTHROPIC_BASE_URL, else to Anthropic's own. `open_telemetry` is the
        SDK's option of that name: how it traces what it sends. See GovernedModel for the others.
        """
        super().__init__(
            _Messages(api_key, model, base_url, timeout, open_telemetry),
            identity=printable(model),
            timeout=timeout,
            patience=patience,
            observer=observer,
            governor=governor,
            batches=batches,
            batch_rules=batch_rules,
        )


class _Messages:
    """The dialect of the Messages API."""

    title = API

    def __init__(
        self,
        api_key: str | None,
        model: str,
        base_url: str | None,
        timeout: float,
        open_telemetry: Mapping[str, Any] | None,
    ) -> None:
        self._api_key = api_key.strip() if api_key else ""
        self._model = model
        self._base_url = base_url
        self._timeout = timeout
        self._open_telemetry = open_telemetry
        self._client: AsyncAnthropic | None = None
        self.batches = AnthropicBatches(lambda: self._open, self._request)

    @property
    def lacks(self) -> str:
        return "" if self._api_key else _NO_KEY

    @property
    def is_open(self) -> bool:
        return self._client is not None

    @property
    def errors(self) -> SdkErrors:
        import anthropic

        return SdkErrors.of(anthropic, "AnthropicError")

    def open(self) -> None:
        import httpx2
        from anthropic import AsyncAnthropic, DefaultAsyncHttpxClient

        options: dict[str, Any] = {}
        if self._open_telemetry is not None:
            options["open_telemetry"] = self._open_telemetry
        self._client = AsyncAnthropic(
            api_key=self._api_key,
            base_url=self._base_url,
            timeout=self._timeout,
            max_retries=0,  # `with_retries` tries again, by a permit each
            http_client=DefaultAsyncHttpxClient(limits=httpx2.Limits(**CONNECTIONS)),
            **options,
        )

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def ask(self, question: Question) -> Answer | None:
        # The same request as of messages.parse. That method parses the text before the stop
        # reason is known, so it would take a refusal for a malformed answer.
        response = await self._open.messages.with_raw_response.create(**self._request(question))
        return answer_of(await response.parse())

    async def begin(self, question: Question) -> _Events:
        request = self._request(question)
        return _Events(await self._open.messages.create(**request, stream=True))

    async def reach(self) -> None:
        await self._open.models.retrieve(self._model)

    @property
    def _open(self) -> AsyncAnthropic:
        assert self._client is not None
        return self._client

    def _request(self, question: Question) -> dict[str, Any]:
        import anthropic

        request: dict[str, Any] = {
            "model": self._model,
            "max_tokens": question.max_tokens,
            "messages": list(question.turns),
        }
        if question.system and question.cache:
            kept = {"cache_control": {"type": "ephemeral"}}
            request["system"] = [{"type": "text", "text": question.system} | kept]
        elif question.system:
            request["system"] = question.system
        if question.output is not None:
            schema = anthropic.transform_schema(question.output)
            request["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
        return request


class _Events:
    """The events of a streamed message."""

    def __init__(self, events: AsyncStream[RawMessageStreamEvent]) -> None:
        self._events = events
        self._usage = Usage()

    async def next(self) -> Piece | None:
        event: Any = await anext(self._events, None)
        if event is None:
            return None
        # The SDK checks no event, so each part of one may be missing.
        kind, delta = getattr(event, "type", ""), getattr(event, "delta", None)
        if kind == "message_start":
            self._usage = usage_of(getattr(getattr(event, "message", None), "usage", None))
            return Piece(usage=self._usage)
        if kind == "message_delta":
            written = count_of(getattr(event, "usage", None), "output_tokens")
            self._usage = replace(self._usage, output_tokens=written)
            return Piece(usage=self._usage, stop_reason=getattr(delta, "stop_reason", None) or "")
        if kind == "content_block_delta" and getattr(delta, "type", "") == "text_delta":
            text = getattr(delta, "text", "")
            if not isinstance(text, str):
                raise ValueError("a piece of text that is none")  # `translated` reads it
            return Piece(text)
        return Piece()

    async def close(self) -> None:
        await self._events.close()
