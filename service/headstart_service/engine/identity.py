"""Temporary."""

from typing import Any


def identity_of(provider: Any) -> str:
    return str(getattr(provider, "identity", ""))
