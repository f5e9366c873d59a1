"""Checks of single settings, beyond their ranges."""

from __future__ import annotations

import re
from typing import Any, Final

from ..base.urls import ENCODING, check_web_url
from ..domain import pool_violation

_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\\\s]+")


def split(value: Any) -> Any:
    """Split a list at its commas."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def without_brackets(value: Any) -> Any:
    """Return an IPv6 address without the brackets that it has in a URL."""
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        return value[1:-1]
    return value


def are_origins(value: Any) -> Any:
    """Raise ValueError unless these are origins."""
    for origin in value:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ValueError("must be origins as browsers send them: scheme, host, no path")
    return value


def are_pools(value: Any) -> Any:
    """Raise ValueError unless these are names of pools."""
    for pool in value:
        if rule := pool_violation(pool):
            raise ValueError(f"{pool!r} {rule}")
    return value


def is_key(value: Any) -> Any:
    """Raise ValueError for a key that no header can carry: a library's own error would quote it."""
    if isinstance(value, str) and not re.fullmatch(r"[!-~]*", value):
        raise ValueError("must be printable ASCII without spaces")
    return value


def is_url(value: Any) -> Any:
    """Raise ValueError unless this is a URL of the web."""
    if isinstance(value, str):
        try:
            check_web_url(value)
        except ValueError as error:
            raise ValueError(f"must be a URL: {error}; {ENCODING}") from None
    return value


def is_no_token(value: Any) -> Any:
    """Raise ValueError for a token where its file is asked for."""
    if "hst_" in str(value):
        raise ValueError("must be the file of tokens, not a token: clients take HEADSTART_TOKEN")
    return value
