"""Copies of values: each try of a step gets its own, and what it changes stays with it."""

from __future__ import annotations

from copy import deepcopy
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel

UNCHANGING: Final = frozenset(
    {
        *(str, int, float, bool, type(None), bytes, complex),
        *(date, datetime, time, timedelta, Decimal, UUID),
    }
)
"""Types whose values nobody can change. Not their subclasses, which may have attributes."""


def copied(value: Any) -> Any:
    """Copy a value so deeply that no change of the copy reaches it.

    Lists, dicts, tuples and pydantic models are copied here, in a third of the time that
    `copy.deepcopy` takes; all else, such as arrays and dataclasses, by that. Raises what it raises.
    """
    kind = type(value)
    if kind in UNCHANGING:
        return value
    if kind is list:
        return [each if type(each) in UNCHANGING else copied(each) for each in value]
    if kind is dict:
        return {
            name: each if type(each) in UNCHANGING else copied(each) for name, each in value.items()
        }
    if kind is tuple:
        return tuple([copied(each) for each in value])
    if isinstance(value, BaseModel) and kind.__deepcopy__ is BaseModel.__deepcopy__:
        model = value.model_copy()
        for held in (model.__dict__, model.__pydantic_extra__, model.__pydantic_private__):
            if held:
                held.update(copied(held))
        return model
    return deepcopy(value)
