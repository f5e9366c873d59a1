"""Digests of a run's steps and of the run. What all runs of a pipeline share is encoded once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from ..domain import canonical, digest_of


class StepPart(NamedTuple):
    """What all runs share of a step's digest."""

    name: str
    when: Callable[[Any], bool] | None
    """Whether a run with these inputs has the step; None means always."""
    hard_needs: frozenset[str]
    """The steps without which there is none."""
    needs: Sequence[str]
    parameters: Sequence[str]
    about: tuple[Any, ...]
    """The names and versions that its digest begins with."""
    each: str


class PlanDigests:
    """The digests of a pipeline's runs: of the canonical JSON of all that a result depends on."""

    def __init__(self, about: tuple[Any, ...], steps: Iterable[StepPart]) -> None:
        """Know the pipeline's names and versions, and its steps, each after those it needs."""
        self._head: Final = _head(about)
        self._steps: Final = [
            (
                step._replace(needs=sorted(step.needs), parameters=sorted(step.parameters)),
                _head(step.about),
                f",{canonical(step.each)}]" if step.each else "]",
            )
            for step in steps
        ]

    def of_run(self, values: Any, plain: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
        """Return the digest of a run with these inputs, which are `plain` as JSON.

        Then return its steps, in order, each with its own digest.
        """
        # What stands for each input, and for each step, in an object of canonical JSON.
        inputs = {name: f"{canonical(name)}:{canonical(plain[name])}" for name in sorted(plain)}
        ended: dict[str, str] = {}
        steps: dict[str, str] = {}
        for step, head, tail in self._steps:
            if step.when is not None and not step.when(values):
                continue
            if not step.hard_needs <= steps.keys():
                continue
            own = ",".join([inputs[name] for name in step.parameters if name in inputs])
            needed = ",".join([ended[name] for name in step.needs if name in ended])
            found = steps[step.name] = digest_of(f"{head}{{{own}}},{{{needed}}}{tail}")
            ended[step.name] = f'"{step.name}":"{found}"'
        own, needed = ",".join(inputs.values()), ",".join([ended[name] for name in sorted(ended)])
        return digest_of(f"{self._head}{{{own}}},{{{needed}}}]"), steps


def _head(about: tuple[Any, ...]) -> str:
    """Return the beginning of the canonical JSON of a list."""
    return canonical(list(about))[:-1] + ","
