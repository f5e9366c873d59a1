"""The argument `--inputs` of every command that starts a run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

METAVAR: Final = "JSON | FILE"
HELP: Final = "an object, or a file that has it; - reads standard input"


def file_of(text: str) -> Path | None:
    """Return the file that the argument names; None if it is JSON or standard input."""
    return None if text == "-" or text.lstrip().startswith(("{", "[", '"')) else Path(text)


def inputs_of(text: str) -> dict[str, Any]:
    """Return the inputs that the argument gives. Raises ValueError that says what is wrong."""
    from headstart._for_service import InputsError, read_inputs

    path = file_of(text)
    try:
        given = sys.stdin.read() if text == "-" else text
        if path is not None:
            given = path.expanduser().read_text(encoding="utf-8")
        return read_inputs(given)
    except InputsError as error:
        rules = "; ".join(rule for _, rule in error.rules)
        raise ValueError(f"--inputs {rules}") from None
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ValueError(f"--inputs {text}: is no JSON object, and no file: {why}") from None
