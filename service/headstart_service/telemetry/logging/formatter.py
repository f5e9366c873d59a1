"""How a log line looks: one event, one line, whatever text a caller has got into it.

A line has a message for people, and fields for machines. Its writer gives some fields
(`extra=fields(...)`). The run and step that it is written inside (`inside`) give theirs.
JSON lines show all of them, text lines the ids and the inputs.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from datetime import UTC, datetime
from typing import Any, Final

from ...base.escaping import escaped
from ...domain.log_fields import FIELDS, around

_LINE: Final = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_INDENT: Final = "    "
_MESSAGE_LIMIT: Final = 4000
_FIELD_LIMIT: Final = 1000
_TRACEBACK_LIMIT: Final = 16_000
"""All in characters: what a caller has sent may be long."""
_ALSO_AS_TEXT: Final = ("token", "trace_id", "inputs")
_COLOURS: Final = {"WARNING": "\033[33m", "ERROR": "\033[31m", "CRITICAL": "\033[31m"}
_PLAIN: Final = "\033[0m"
_NOISY: Final = (
    *("uvicorn", "httpx", "httpcore", "httpx2", "httpcore2", "anthropic"),
    *("grpc", "sentence_transformers"),
)
"""Others' loggers whose debug lines are theirs to read."""


class _Where(logging.Filter):
    """Gives a line the fields of the context that it is written in; its own ones win."""

    def filter(self, record: logging.LogRecord) -> bool:
        if outer := around():
            record.__dict__[FIELDS] = {**outer, **record.__dict__.get(FIELDS, {})}
        return True


class OneLineFormatter(logging.Formatter):
    """Escapes what could end a line or move the cursor, and indents what belongs to an event.

    So a line that begins with a time was written by this process, not by a caller that chose a key.
    """

    def __init__(self, *, colours: bool = False) -> None:
        super().__init__(_LINE)
        self._colours = colours
        self._second = -1
        self._shown = ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802  # logging's name
        """The local time of the event; lines of one second share all but the milliseconds."""
        del datefmt
        if (second := int(record.created)) != self._second:
            shown = time.strftime(self.default_time_format, self.converter(second))
            self._second, self._shown = second, shown
        return f"{self._shown},{record.msecs:03.0f}"

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        """The line of the event."""
        line = super().formatMessage(record)
        fields = record.__dict__.get(FIELDS, {})
        shown = [
            f"{name}={_clipped(str(fields[name]))}" for name in _ALSO_AS_TEXT if name in fields
        ]
        line = escaped(" ".join([line, *shown]))
        colour = _COLOURS.get(record.levelname) if self._colours else None
        return f"{colour}{line}{_PLAIN}" if colour else line

    def formatException(self, ei: object) -> str:  # noqa: N802  # logging's name
        """Its traceback, each line indented."""
        text = super().formatException(ei)  # type: ignore[arg-type]  # whatever logging hands on
        return "\n".join(_INDENT + escaped(line) for line in text.split("\n"))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the fields, and any traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, in ASCII, so that no reader takes a part of it for its end."""
        at = datetime.fromtimestamp(record.created, UTC)
        content: dict[str, Any] = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _clipped(record.getMessage(), _MESSAGE_LIMIT),
        }
        for name, value in record.__dict__.get(FIELDS, {}).items():
            content[name] = _clipped(value) if isinstance(value, str) else value
        if record.exc_info:
            content["exception"] = _clipped(self.formatException(record.exc_info), _TRACEBACK_LIMIT)
        return json.dumps(content, separators=(",", ":"), default=str)


def wants_json(log_format: str) -> bool:
    """Whether this setting means JSON here; `auto` does in a pod, unless a person looks on."""
    if log_format == "auto":
        return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and not sys.stderr.isatty()
    return log_format == "json"


def set_up_logging(level: str, log_format: str = "text") -> None:
    """One line an event on standard error, in the form that this setting means."""
    handler = logging.StreamHandler(sys.stderr)
    if wants_json(log_format):
        handler.setFormatter(JsonFormatter())
    else:
        colours = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        handler.setFormatter(OneLineFormatter(colours=colours))
    handler.addFilter(_Where())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)


def leave_out_places() -> None:
    """Have log records hold neither the line of code nor the thread and process that wrote them.

    No line of ours shows these, and finding them takes a third of a line's time. A worker keeps
    them, because its steps may have log handlers of their own.
    """
    logging._srcfile = None  # noqa: SLF001  # as Python's logging HOWTO has it
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def _clipped(text: str, limit: int = _FIELD_LIMIT) -> str:
    """At most `limit` characters, none of which UTF-8 cannot say."""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="backslashreplace").decode()
    return text
