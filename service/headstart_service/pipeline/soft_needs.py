"""Soft needs: steps that another step takes the value of, and can do without."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from .signatures import declared_type, value_type
from .step import Step


def soft_needs(steps: Mapping[str, Step]) -> dict[str, frozenset[str]]:
    """Return, for each step, the steps that it can do without.

    Those are parameters with a default, and parameters of a type `T | None` of steps that never
    return None themselves. The item of `each` is none of them.
    """
    return {
        name: frozenset(
            need
            for need in step.parameters
            if need in steps and need != step.each and _is_soft(step, need, steps[need])
        )
        for name, step in steps.items()
    }


def _is_soft(step: Step, name: str, need: Step) -> bool:
    if name in step.defaults:
        return True
    return _may_be_none(declared_type(step, name)) and not _may_be_none(value_type(need))


def _may_be_none(kind: Any) -> bool:
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) in (Union, types.UnionType):
        return any(_may_be_none(each) for each in get_args(kind))
    return kind is None or kind is type(None)
