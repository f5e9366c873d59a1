"""How a log line looks: one event, one line, whatever text a caller has got into it."""

from __future__ import annotations

import logging
import sys
from typing import Final

_LINE: Final = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_INDENT: Final = "    "


class OneLineFormatter(logging.Formatter):
    """Escapes what could end a line or move the cursor, and indents what belongs to an event.

    So a line that begins with a time was written by this process, not by whoever chose a key.
    """

    def __init__(self) -> None:
        super().__init__(_LINE)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        """The line of the event."""
        return escaped(super().formatMessage(record))

    def formatException(self, ei: object) -> str:  # noqa: N802  # logging's name
        """Its traceback, each line indented."""
        text = super().formatException(ei)  # type: ignore[arg-type]  # whatever logging hands on
        return "\n".join(_INDENT + escaped(line) for line in text.split("\n"))


def escaped(text: str) -> str:
    """The text without control characters, line ends among them, and lone surrogates."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def set_up_logging(level: str) -> None:
    """One line an event on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLineFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for noisy in ("uvicorn", "httpx", "httpcore", "anthropic", "sentence_transformers"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
