"""Reads what all workers know of the providers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..domain import ProviderState, WaitsFor
from .keys import PartitionKeys, decoded
from .provider_scripts import ProviderScripts


async def provider_states(
    scripts: ProviderScripts, first: PartitionKeys
) -> tuple[Sequence[ProviderState], Mapping[str, int]]:
    """Return the providers of the `first` partition, by name, and the budgets that are used up."""
    found, spent = await scripts.providers(
        first, None, index=first.providers, states=first.provider(""), over=first.over_budget
    )
    states = [
        ProviderState(
            name=name.decode(errors="replace"),
            paused=int(paused) / 1e6,
            opened=int(opened),
            ending=ending.decode(errors="replace"),
            waits_for=WaitsFor(waits_for.decode()),
            rate=int(rate) / 1e3,
        )
        for name, paused, opened, ending, waits_for, rate in found
    ]
    states.sort(key=lambda state: state.name)
    budgets = {
        decoded(name.decode(errors="replace")): int(budget)
        for name, budget in zip(spent[::2], spent[1::2], strict=True)
    }
    return states, budgets
