"""Builds a room's rules from the settings whose names its fields have."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from .settings import Settings

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Rules = TypeVar("Rules", bound=DataclassInstance)


def rules_of(kind: type[Rules], settings: Settings, **others: Any) -> Rules:
    """Return rules of this kind: each field is the setting of its name, or one of `others`.

    So a field needs no line in a composition root. Raises TypeError for a field that is neither.
    """
    names = [each.name for each in fields(kind) if each.name not in others]
    for name in names:
        if name not in Settings.model_fields:
            raise TypeError(f"{kind.__name__}.{name} must be a setting's name, or be given")
    return kind(**{name: getattr(settings, name) for name in names}, **others)
