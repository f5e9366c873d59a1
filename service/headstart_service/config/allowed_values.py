"""What a setting may be, in words, and variables that look like settings and are none."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args

from pydantic.fields import FieldInfo

from .model_names import RULE

PREFIX: Final = "HEADSTART_"
OF_CLIENTS: Final = frozenset(
    {
        *("HEADSTART_ADDRESS", "HEADSTART_TOKEN", "HEADSTART_TOKEN_FILE", "HEADSTART_CA"),
        *("HEADSTART_CLIENT_CERT", "HEADSTART_CLIENT_KEY", "HEADSTART_SERVER_NAME"),
    }
)
"""The variables that clients and the operator's commands read."""
_OF_TOOLS: Final = frozenset({"HEADSTART_SOAK_SECONDS"})
_OF_KUBERNETES: Final = re.compile(
    r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT(_\d+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?)?$"
)
"""What a pod finds in its environment for every Service of its namespace."""
_CHOICE: Final = re.compile(r"\^\(([\w|-]+)\)\$")
_SPECIAL: Final = {
    "pipelines": "module:name, several separated by commas",
    "providers": "module:name or parameter=module:name, several separated by commas",
    "pools": "names of 1 to 32 of a-z, 0-9 and '-', separated by commas",
    "cors_origins": "origins such as https://shop.example, or *, separated by commas",
    "redis_url": "a URL: redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://",
    "anthropic_base_url": "a URL",
    "embeddings_url": "a URL",
    "openai_base_url": "a URL",
    "language_model": RULE,
    "ray_address": "auto, a host and port, or a URL ray://",
    "host": "an address or name of this machine",
    "prefix": "1 to 64 characters of A-Z, a-z, 0-9, '.', '_' and '-'",
}


def allowed(name: str, field: FieldInfo) -> str:
    """The values that a setting takes, as a message or a table says it."""
    if name in _SPECIAL:
        return _SPECIAL[name]
    kinds = set(get_args(field.annotation)) or {field.annotation}
    for rule in field.metadata:
        choice = _CHOICE.fullmatch(getattr(rule, "pattern", None) or "")
        if choice:
            *others, last = choice[1].split("|")
            return f"{', '.join(others)} or {last}"
    if bool in kinds:
        return "true or false"
    if kinds & {int, float}:
        number = "a number" if float in kinds else "a whole number"
        return f"{number}{_range(field.metadata)}"
    if Path in kinds:
        return "a path"
    filled = any(getattr(rule, "min_length", 0) for rule in field.metadata)
    return "text that is not empty" if filled else "text"


def _range(rules: Sequence[Any]) -> str:
    low = high = None
    for rule in rules:
        low = getattr(rule, "ge", low)
        high = getattr(rule, "le", high)
    if low is not None and high is not None:
        return f" from {_number(low)} to {_number(high)}"
    bounds = [
        "" if low is None else f", {_number(low)} or more",
        "" if high is None else f", {_number(high)} or less",
    ]
    for rule in rules:
        if (above := getattr(rule, "gt", None)) is not None:
            bounds.append(f", more than {_number(above)}")
        if (below := getattr(rule, "lt", None)) is not None:
            bounds.append(f", less than {_number(below)}")
    return "".join(bounds)


def _number(value: Any) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def unknown_variables(
    environment: Mapping[str, str], settings: Iterable[str]
) -> Iterator[tuple[str, str | None]]:
    """Yield variables with our prefix that no setting reads, each with the nearest known one."""
    known = sorted({*settings, *OF_CLIENTS, *_OF_TOOLS})
    # Compare without the common prefix, which would make every name near.
    bare = [name.removeprefix(PREFIX) for name in known]
    for variable in sorted(environment):
        name = variable.upper()  # pydantic ignores case
        if not name.startswith(PREFIX) or name in known or _is_kubernetes(name):
            continue
        near = difflib.get_close_matches(name.removeprefix(PREFIX), bare, 1)
        yield variable, known[bare.index(near[0])] if near else None


def _is_kubernetes(name: str) -> bool:
    return _OF_KUBERNETES.search(name.removeprefix("HEADSTART")) is not None
