"""Text of others, made safe for one line of a log or a terminal."""

from __future__ import annotations


def escaped(text: str) -> str:
    """The text without control characters, line ends among them, and lone surrogates."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
