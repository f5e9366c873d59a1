"""How a server of chat completions is asked: what each of the many servers can do is learnt.

A 400 that names a field shows that the server has it not, so the question is asked again without.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final
from weakref import WeakKeyDictionary

from pydantic import BaseModel

_MAX_TOKENS, _MAX_COMPLETION_TOKENS = "max_tokens", "max_completion_tokens"
_OF_FORMS: Final = ("response_format", "schema", "guided")
"""Of these words messages about `response_format` use one."""
_UNKNOWN: Final = ("unsupported", "not supported", "unrecognized", "unknown", "extra", "permitted")
"""Of these words messages about a field that a server has not use one."""


class Form(Enum):
    """How a server is asked for JSON of a schema."""

    FORMAT = "format"
    """By `response_format`."""
    BOTH = "both"
    """By `response_format` and in words: it has ignored the first."""
    WORDS = "words"
    """In words alone: it refuses `response_format` or this schema."""


@dataclass
class Abilities:
    """What one server is known to take."""

    limit: str = _MAX_TOKENS
    """The field of the token limit. OpenAI's newer models refuse the old name; others have it."""
    counts_streams: bool = True
    """Whether it takes `stream_options`, by which a stream ends with its usage."""
    forms: WeakKeyDictionary[type[BaseModel], Form] = field(default_factory=WeakKeyDictionary)

    @classmethod
    def of_openai(cls) -> Abilities:
        """Return those of OpenAI's own API."""
        return cls(limit=_MAX_COMPLETION_TOKENS)

    def form_of(self, output: type[BaseModel]) -> Form:
        """Return how to ask for an output."""
        return self.forms.get(output, Form.FORMAT)

    def learn(self, sent: dict[str, Any], output: type[BaseModel] | None, text: str) -> bool:
        """Learn from the `text` of a 400 to what was `sent`. Returns whether to ask otherwise."""
        text = text.lower()
        shaped = "response_format" in sent and any(word in text for word in _OF_FORMS)
        if output is not None and shaped:
            self.forms[output] = Form.WORDS
            return True
        if "stream_options" in sent and "stream_options" in text:
            self.counts_streams = False
            return True
        if _MAX_TOKENS in sent and _MAX_COMPLETION_TOKENS in text:
            self.limit = _MAX_COMPLETION_TOKENS
            return True
        refused = _MAX_COMPLETION_TOKENS in text and any(word in text for word in _UNKNOWN)
        if _MAX_COMPLETION_TOKENS in sent and refused:
            self.limit = _MAX_TOKENS
            return True
        return False

    def ignored(self, output: type[BaseModel]) -> bool:
        """Note an answer that is no JSON. Returns whether to ask otherwise."""
        if self.form_of(output) is not Form.FORMAT:
            return False
        self.forms[output] = Form.BOTH
        return True


def in_words(output: type[BaseModel]) -> str:
    """Return what asks for an output in words."""
    schema = json.dumps(output.model_json_schema(), separators=(",", ":"), ensure_ascii=False)
    return f"Answer with JSON alone, without a code fence, that matches this JSON Schema: {schema}"


def is_json(text: str) -> bool:
    """Return whether a text is JSON."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
