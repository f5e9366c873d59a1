"""What a step may ask of Ray. Imports no Ray: API processes declare steps, too."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class RayOptions:
    """Declares what a step with `runs_on="ray"` needs of its cluster.

    `None` leaves a number to Ray. Raises ValueError or TypeError about an option out of its range.
    """

    num_cpus: float | None = None
    """CPUs that a call, or an actor, takes: 0 or more; Ray's own default is 1."""
    num_gpus: float | None = None
    """GPUs that it takes: 0 to 1, or a whole number."""
    resources: Mapping[str, float] = field(default_factory=dict, hash=False)
    """Custom resources of the nodes that it takes, each more than 0 to 1, or a whole number."""
    runtime_env: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """The environment that Ray sets up for it, such as {"pip": […]} or {"working_dir": "…"}."""
    actor: type | None = None
    """A class of a module's top level, made once per actor without arguments.

    The step gets the instance as its parameter `actor`. Steps with equal options share actors.
    """
    actors: int = 1
    """How many actors one worker has at most; each serves one call at a time."""

    def __post_init__(self) -> None:
        for name in ("num_cpus", "num_gpus"):
            amount = getattr(self, name)
            if amount is not None:
                _check_amount(name, amount, fraction=name == "num_gpus", least=0.0)
        for name, amount in _named("resources", self.resources).items():
            if name in ("", "CPU", "GPU"):
                raise ValueError(
                    f"resources: a name must be a text other than CPU and GPU, is {name!r}: use "
                    "num_cpus and num_gpus for those"
                )
            _check_amount(f"resources[{name!r}]", amount, fraction=True, least=0.0001)
        _named("runtime_env", self.runtime_env)
        _check_actor(self.actor, self.actors)

    def wanted(self) -> dict[str, Any]:
        """Return the options as Ray's `options` takes them, without those left to Ray."""
        found = {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus}
        options: dict[str, Any] = {name: n for name, n in found.items() if n is not None}
        if self.resources:
            options["resources"] = dict(self.resources)
        if self.runtime_env:
            options["runtime_env"] = dict(self.runtime_env)
        return options


def _named(option: str, given: object) -> Mapping[str, Any]:
    if isinstance(given, Mapping) and all(isinstance(name, str) for name in given):
        return given
    raise TypeError(f"{option} must be a mapping from names, is {given!r}")


def _check_actor(actor: object, actors: object) -> None:
    if isinstance(actors, bool) or not isinstance(actors, int) or actors < 1:
        raise ValueError(f"actors must be a whole number, 1 or more, is {actors!r}")
    if actor is None:
        if actors != 1:
            raise ValueError(f"actors is {actors}, which needs an actor class")
    elif not isinstance(actor, type) or "<" in actor.__qualname__:
        raise TypeError(
            f"actor must be a class at the top of its module, which nodes can import, is {actor!r}"
        )


def _check_amount(name: str, amount: object, *, fraction: bool, least: float) -> None:
    if isinstance(amount, bool) or not isinstance(amount, int | float):
        raise TypeError(f"{name} must be a number, is {amount!r}")
    if not math.isfinite(amount) or amount < least or 0 < amount < 0.0001:  # noqa: PLR2004  # Ray's precision
        raise ValueError(
            f"{name} must be {f'{least:g} or more' if least else '0, or 0.0001 or more'}, "
            f"is {amount!r}"
        )
    if fraction and amount > 1 and amount != int(amount):
        raise ValueError(f"{name} must be at most 1, or a whole number, is {amount!r}")
