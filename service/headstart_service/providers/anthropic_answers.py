"""Reads messages of Anthropic's API, whose bodies the SDK does not check."""

from __future__ import annotations

from ..pipeline.language_model import Answer, Usage
from .model_request import count_of


def answer_of(message: object) -> Answer | None:
    """Return what a message says; None for what is no message."""
    content = getattr(message, "content", None)
    if not isinstance(content, list):
        return None
    text = "".join(block.text for block in content if getattr(block, "type", "") == "text")
    stop_reason = getattr(message, "stop_reason", None) or ""
    return Answer(text, usage_of(getattr(message, "usage", None)), stop_reason)


def usage_of(usage: object) -> Usage:
    """Return the tokens of a message; 0 where the unchecked body has none."""
    return Usage(
        input_tokens=count_of(usage, "input_tokens"),
        output_tokens=count_of(usage, "output_tokens"),
        cache_read_tokens=count_of(usage, "cache_read_input_tokens"),
        cache_write_tokens=count_of(usage, "cache_creation_input_tokens"),
    )
