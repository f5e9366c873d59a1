"""Language models behind OpenAI's chat completions, which many servers speak, through its SDK."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from pydantic import BaseModel

from ..config.model_names import OPENAI
from ..pipeline.identity import printable
from ..pipeline.language_model import Answer, Usage
from .answer_forms import Abilities, Form, in_words, is_json
from .dialect import CONNECTIONS, Piece, Question
from .governed_model import PATIENCE, TRY_TIMEOUT, GovernedModel
from .governor import Governor
from .model_request import SdkErrors, count_of
from .provider_observer import LanguageModelObserver

if TYPE_CHECKING:
    from openai import AsyncOpenAI, AsyncStream
    from openai.types.chat import ChatCompletionChunk

OWN: Final = "the OpenAI API"
COMPATIBLE: Final = "the OpenAI-compatible API"
"""How messages call them."""
_HOSTS: Final = ("openai.com", "azure.com")
"""Where OpenAI's own models are."""
_FILTER: Final = "content_filter"
_DECLINED: Final = "refusal"
_STOPS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    _FILTER: _DECLINED,
    "tool_calls": "tool_use",
    "function_call": "tool_use",
}
"""Stop reasons as all models have them, by the API's."""
_LEARNT: Final = 4
"""Questions that a server may refuse, one after the other, until its abilities are known."""


class OpenAIModel(GovernedModel):
    """A language model behind chat completions. Use it as an async context manager."""

    def __init__(
        self,
        *,
        api_key: str | None,
        model: str,
        base_url: str | None = None,
        timeout: float = TRY_TIMEOUT,
        patience: float = PATIENCE,
        observer: LanguageModelObserver | None = None,
        governor: Governor | None = None,
    ) -> None:
        """Ask `model` with `api_key`, which a server at a `base_url` may not need.

        Without both every request fails and none is sent. See GovernedModel for the others.
        """
        super().__init__(
            _Completions(api_key, model, base_url, timeout),
            identity=printable(f"{OPENAI}:{model}"),
            timeout=timeout,
            patience=patience,
            observer=observer,
            governor=governor,
        )


def title_of(base_url: str | None) -> str:
    """Return how messages call the API at this address."""
    return OWN if _is_own(base_url) else COMPATIBLE


def _is_own(base_url: str | None) -> bool:
    host = urlsplit(base_url).hostname or "" if base_url else _HOSTS[0]
    return any(host == own or host.endswith(f".{own}") for own in _HOSTS)


class _Completions:
    """The dialect of chat completions."""

    batches = None
    """OpenAI takes batches as files, which most compatible servers lack."""

    def __init__(
        self, api_key: str | None, model: str, base_url: str | None, timeout: float
    ) -> None:
        self.title = title_of(base_url)
        self._api_key = api_key.strip() if api_key else ""
        self._model = model
        self._base_url = base_url
        self._timeout = timeout
        self._abilities = Abilities.of_openai() if _is_own(base_url) else Abilities()
        self._client: AsyncOpenAI | None = None

    @property
    def lacks(self) -> str:
        if self._api_key or not _is_own(self._base_url):
            return ""
        return (
            "no OpenAI API key: set OPENAI_API_KEY, or OPENAI_BASE_URL for a server that needs none"
        )

    @property
    def is_open(self) -> bool:
        return self._client is not None

    @property
    def errors(self) -> SdkErrors:
        import openai

        return SdkErrors.of(openai, "OpenAIError")

    def open(self) -> None:
        import httpx2
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        self._client = AsyncOpenAI(
            api_key=self._api_key or "none",  # the SDK wants one
            base_url=self._base_url or "https://api.openai.com/v1",
            organization=None,
            timeout=self._timeout,
            max_retries=0,  # `with_retries` tries again, by a permit each
            http_client=DefaultAsyncHttpxClient(limits=httpx2.Limits(**CONNECTIONS)),
        )

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def ask(self, question: Question) -> Answer | None:
        answer = await self._answer(question)
        output = question.output
        if answer is None or output is None or answer.stop_reason != "end_turn":
            return answer
        if is_json(answer.text) or not self._abilities.ignored(output):
            return answer
        again = await self._answer(question)
        if again is None:
            return None
        return Answer(again.text, answer.usage + again.usage, again.stop_reason)

    async def begin(self, question: Question) -> _Chunks:
        return _Chunks(await self._created(question, stream=True))

    async def reach(self) -> None:
        await self._open.models.retrieve(self._model)

    @property
    def _open(self) -> AsyncOpenAI:
        assert self._client is not None
        return self._client

    async def _answer(self, question: Question) -> Answer | None:
        response = await self._created(question, stream=False)
        if response is None:
            return Answer("", Usage(), _DECLINED)
        completion = response.parse()
        choice = _first(getattr(completion, "choices", None))
        message = getattr(choice, "message", None)
        if message is None:
            return None
        text = getattr(message, "content", None) or ""
        if not isinstance(text, str):
            return None
        stop_reason = _stop_reason(choice)
        if getattr(message, "refusal", None):
            stop_reason = _DECLINED
        return Answer(text, usage_of(getattr(completion, "usage", None)), stop_reason)

    async def _created(self, question: Question, *, stream: bool) -> Any:
        """Ask; otherwise, as long as the server shows that it cannot be asked so.

        Returns None for a question that a filter refuses, as Azure's does.
        """
        import openai

        create: Any = self._open.chat.completions.create
        if not stream:
            create = self._open.chat.completions.with_raw_response.create
        for _ in range(_LEARNT):
            request = self._request(question, stream=stream)
            try:
                return await create(**request)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                if error.code == _FILTER:
                    return None
                if not self._abilities.learn(request, question.output, str(error)):
                    raise
        return await create(**self._request(question, stream=stream))

    def _request(self, question: Question, *, stream: bool) -> dict[str, Any]:
        abilities, output = self._abilities, question.output
        request: dict[str, Any] = {"model": self._model, abilities.limit: question.max_tokens}
        system = question.system
        if output is not None:
            form = abilities.form_of(output)
            if form is not Form.FORMAT:
                system = f"{system}\n\n{in_words(output)}".lstrip()
            if form is not Form.WORDS:
                request["response_format"] = _format(output)
        first = [{"role": "system", "content": system}] if system else []
        request["messages"] = [*first, *question.turns]
        if stream:
            request["stream"] = True
            if abilities.counts_streams:
                request["stream_options"] = {"include_usage": True}
        return request


class _Chunks:
    """The chunks of a streamed completion."""

    def __init__(self, chunks: AsyncStream[ChatCompletionChunk] | None) -> None:
        """Read these; None is a question that a filter refused."""
        self._chunks = chunks
        self._ended = False
        self._refused = False

    async def next(self) -> Piece | None:
        if self._chunks is None:
            self._ended, ended = True, self._ended
            return None if ended else Piece(stop_reason=_DECLINED)
        chunk: Any = await anext(self._chunks, None)
        if chunk is None:
            return None
        # The SDK checks no chunk, so each part of one may be missing. The last has no choice.
        usage = getattr(chunk, "usage", None)
        choice = _first(getattr(chunk, "choices", None))
        delta = getattr(choice, "delta", None)
        text = getattr(delta, "content", None) or ""
        if not isinstance(text, str):
            raise ValueError("a piece of text that is none")  # noqa: TRY004  # `translated` reads it
        self._refused = self._refused or bool(getattr(delta, "refusal", None))
        stop_reason = _stop_reason(choice)
        if stop_reason and self._refused:
            stop_reason = _DECLINED
        return Piece(text, usage_of(usage) if usage is not None else None, stop_reason)

    async def close(self) -> None:
        if self._chunks is not None:
            await self._chunks.close()


def _first(choices: Any) -> Any:
    return choices[0] if isinstance(choices, list) and choices else None


def _stop_reason(choice: Any) -> str:
    reason = getattr(choice, "finish_reason", None) or ""
    return _STOPS.get(reason, reason) if isinstance(reason, str) else "unknown"


def _format(output: type[BaseModel]) -> dict[str, Any]:
    import openai

    strict = openai.pydantic_function_tool(output)["function"].get("parameters")
    name = output.__name__[:64]
    return {
        "type": "json_schema",
        "json_schema": {"name": name, "schema": strict, "strict": True},
    }


def usage_of(usage: object) -> Usage:
    """Return the tokens of a completion. Its prompt's tokens contain those of the cache."""
    details = getattr(usage, "prompt_tokens_details", None)
    read, written = count_of(details, "cached_tokens"), count_of(details, "cache_write_tokens")
    return Usage(
        input_tokens=max(0, count_of(usage, "prompt_tokens") - read - written),
        output_tokens=count_of(usage, "completion_tokens"),
        cache_read_tokens=read,
        cache_write_tokens=written,
    )
