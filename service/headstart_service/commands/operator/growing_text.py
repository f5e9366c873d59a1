"""What steps that stream give, as lines of a log and as the last line of a picture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def text_of(partial: Any) -> str:
    """Return a step's text, or its items a line each."""
    if isinstance(partial, str):
        return partial
    return "".join(f"{json.dumps(item, ensure_ascii=False)}\n" for item in partial)


def last_line(partial: Any) -> str:
    """Return the line that a step writes at present."""
    lines = text_of(partial).rstrip("\n").split("\n")
    return lines[-1]


class GrowingText:
    """Cuts what steps give into lines, each shown once it is whole."""

    def __init__(self) -> None:
        self._shown: dict[str, str] = {}
        """What of each step's text has been shown."""

    def lines(self, results: Any) -> Iterator[str]:
        """Yield the lines that are new; the last one of a step once that has ended."""
        for name, partial in results.partials.items():
            text = text_of(partial)
            shown = self._shown.get(name, "")
            if not text.startswith(shown):
                yield f"{name}> (begins anew)"
                shown = ""
            report = results.steps.get(name)
            ended = report is None or report.state.ended
            whole = text if ended else text[: text.rfind("\n") + 1]
            for line in whole[len(shown) :].splitlines():
                yield f"{name}> {line}"
            self._shown[name] = max(whole, shown, key=len)
