"""A pipeline: named steps, the model of their inputs, and how their values become wire fragments.

Declaring one imports nothing heavy, so that the API process can validate and plan without numpy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from hashlib import sha256
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from ..config.model_names import is_model_name
from ..domain import DEFAULT_POOL, RunPlan, digest, in_pool, pool_violation, runs_class
from ..domain.errors import InvalidRequest, Violation
from ..values.artifacts import ArtifactCodec
from ..values.codec import ResultCodec
from . import signatures
from .each import ItemDigests
from .input_violations import input_violations
from .inputs import unkept, written
from .mistakes import Mistake, caller, line_of, refuse
from .named_models import LANGUAGE_MODEL, model_key
from .plan_digests import PlanDigests, StepPart
from .soft_needs import soft_needs
from .step import DIGEST_PARAMETER, VISIBLE_OPTIONS, Step

NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""What a pipeline may be called: records and lists of the store have names between blanks."""


_SHORT: Final = 8
"""Characters of a definition's digest, 48 bits: it is compared with those of one pipeline alone."""


@dataclass(frozen=True)
class Pipeline:
    """A DAG of steps over validated inputs.

    Raises DeclarationError, with the line of each mistake. Two steps must not share a name, nor a
    step and an input, nor may steps need each other in a circle. Each step needs a return type that
    can be kept. A parameter's type must be that of the step or input that it names.
    """

    name: str
    version: str
    """Raise it when the same inputs would give other results: old results are then replaced."""
    description: str
    inputs: type[BaseModel]
    steps: Sequence[Step]
    codec: ResultCodec = field(default_factory=ArtifactCodec)
    """How steps' values are kept: by their annotations, unless the pipeline has its own message."""
    pool: str = field(default=DEFAULT_POOL, kw_only=True)
    """Which workers run it: those that serve this pool. A step may name another one for itself."""
    language_model: str = field(default="", kw_only=True)
    """What its steps get as `language_model`, such as "openai:NAME"; empty: what settings name."""
    by_name: Mapping[str, Step] = field(init=False)
    order: Sequence[str] = field(init=False)
    """The steps' names, each after what it needs."""
    definition: str = field(init=False)
    """A digest of the name, the version, the inputs' names and each step's name, version and needs.

    Steps of other pools are part of it. A pool other than the default one stands behind it.
    Processes whose definitions differ do not compute each other's runs."""
    _needs: Mapping[str, tuple[str, ...]] = field(init=False, repr=False, compare=False)
    _soft: Mapping[str, frozenset[str]] = field(init=False, repr=False, compare=False)
    where: str = field(init=False, repr=False, compare=False)
    """The line that declares it, as file:line."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", caller())
        by_name: dict[str, Step] = {}
        mistakes = [Mistake(self.where, text) for text in self._misnamed()]
        mistakes += [Mistake(self.where, text) for text in unkept(self.name, self.inputs)]
        mistakes += self._undecorated()
        for step in self.steps:
            name = step.name
            if name in by_name:
                first = line_of(by_name[name].function)
                text = f"pipeline {self.name}: two steps are named {name}, the first at {first}"
                mistakes.append(Mistake(line_of(step.function), text))
            elif name in self.inputs.model_fields:
                text = f"pipeline {self.name}: {name} is both an input and a step"
                mistakes.append(Mistake(line_of(step.function), text))
            by_name[name] = step
        object.__setattr__(self, "by_name", by_name)
        needs = {n: tuple(p for p in s.parameters if p in by_name) for n, s in by_name.items()}
        object.__setattr__(self, "_needs", needs)
        object.__setattr__(self, "_soft", soft_needs(by_name))
        object.__setattr__(self, "order", self._ordered(mistakes))
        object.__setattr__(self, "definition", self._defined())
        self._read_types(mistakes)
        refuse(mistakes)

    def _defined(self) -> str:
        in_order = (self.by_name[name] for name in self.order)
        steps = [
            (step.name, step.version, self.needs(step), *self._unlike_others(step))
            for step in in_order
        ]
        about: list[Any] = [self.name, self.version, sorted(self.inputs.model_fields), steps]
        # A pipeline without a model, or steps elsewhere, keeps the definition that it had before.
        if self.language_model:
            about.append(self.language_model)
        if elsewhere := self.steps_elsewhere:
            about.append([self.pool, elsewhere])
        return in_pool(digest(about)[:_SHORT], self.pool)

    def _unlike_others(self, step: Step) -> list[Any]:
        """Return what only some steps have: those of others keep their digests."""
        soft, each = sorted(self.soft_needs(step)), step.each
        return [soft, each] if each else [soft] if soft else []

    @property
    def runs_class(self) -> str:
        """What a worker must offer to compute its runs."""
        return runs_class(self.name, self.definition)

    def pool_of(self, step: Step) -> str:
        """Return the pool whose workers compute this step."""
        return step.pool or self.pool

    def visible(self, step: Step) -> Mapping[str, Any]:
        """Return the options of a step that callers and operators see."""
        return {name: getattr(step, name) for name in VISIBLE_OPTIONS} | {
            "pool": self.pool_of(step)
        }

    @cached_property
    def steps_elsewhere(self) -> Mapping[str, str]:
        """The pool of each step that is in another one than the pipeline."""
        pools = {name: self.pool_of(step) for name, step in self.by_name.items()}
        return {name: pool for name, pool in pools.items() if pool != self.pool}

    def definition_in(self, pool: str) -> str:
        """Return what workers of this pool offer: its own runs, or its steps of that pool."""
        return in_pool(self.definition.partition("/")[0], pool)

    def _misnamed(self) -> list[str]:
        found = []
        if not NAME.fullmatch(self.name):
            rule = "a name is 1 to 64 of letters, digits, '.', '_' and '-'"
            found.append(f"pipeline {self.name!r}: {rule}")
        if rule := pool_violation(self.pool):
            found.append(f"pipeline {self.name}: pool = {self.pool!r} {rule}")
        try:
            is_model_name(self.language_model or None)
        except ValueError as error:
            found.append(f"pipeline {self.name}: language_model = {self.language_model!r} {error}")
        return found

    def _undecorated(self) -> list[Mistake]:
        """Remove what is no step from `steps`, and return a mistake for each."""
        given: tuple[Any, ...] = tuple(self.steps)
        others = [each for each in given if not isinstance(each, Step)]
        steps = tuple(each for each in given if isinstance(each, Step))
        object.__setattr__(self, "steps", steps)
        return [
            Mistake(
                line_of(each) if callable(each) else self.where,
                f"pipeline {self.name}: {getattr(each, '__name__', repr(each))} is no step: "
                "decorate the function with @step()",
            )
            for each in others
        ]

    def _ordered(self, mistakes: list[Mistake]) -> tuple[str, ...]:
        graph = {step.name: self.needs(step) for step in self.steps}
        try:
            return tuple(TopologicalSorter(graph).static_order())
        except CycleError as error:
            circle = error.args[1]
            lines = ", ".join(f"{n} at {line_of(self.by_name[n].function)}" for n in circle[1:])
            mistakes.append(
                Mistake(
                    line_of(self.by_name[circle[0]].function, circle[-2]),
                    f"pipeline {self.name}: steps need each other in a circle: "
                    f"{' -> '.join(circle)} ({lines})",
                )
            )
            return tuple(self.by_name)

    def _read_types(self, mistakes: list[Mistake]) -> None:
        """Find what each step returns; a pipeline's own codec knows that by itself."""
        if isinstance(self.codec, ArtifactCodec) and not self.codec.kinds:
            found, wrong = signatures.kinds(self.steps)
            mistakes += wrong
            object.__setattr__(self, "codec", ArtifactCodec(found))
        elif not isinstance(self.codec, ArtifactCodec):
            mistakes += [
                Mistake(line_of(step.function), f"step {step.name}: each needs an ArtifactCodec")
                for step in self.steps
                if step.each
            ]
        given = {name: field.annotation for name, field in self.inputs.model_fields.items()}
        mistakes += signatures.misfits(self.by_name, given)

    def needs(self, step: Step) -> tuple[str, ...]:
        """The steps whose values `step` takes."""
        return self._needs[step.name]

    def soft_needs(self, step: Step) -> frozenset[str]:
        """Of `needs` those that `step` can do without."""
        return self._soft[step.name]

    def marked_needs(self, step: Step) -> tuple[str, ...]:
        """Return `needs` as the store takes them: '?' before each that `step` can do without."""
        soft = self._soft[step.name]
        return tuple(f"?{need}" if need in soft else need for need in self._needs[step.name])

    def hard_needs(self, step: Step) -> tuple[str, ...]:
        """Of `needs` those without which `step` is skipped."""
        soft = self._soft[step.name]
        return tuple(need for need in self._needs[step.name] if need not in soft)

    def dependants(self, names: Iterable[str]) -> set[str]:
        """The steps that take what these give, directly or through others."""
        found: set[str] = set()
        sources = set(names)
        for name in self.order:
            if not found.union(sources).isdisjoint(self.needs(self.by_name[name])):
                found.add(name)
        return found

    def providers(self, steps: Iterable[Step] | None = None) -> set[str]:
        """The names of everything that a worker must provide for this pipeline, or these steps."""
        known = {*self.by_name, *self.inputs.model_fields, DIGEST_PARAMETER}
        used = self.steps if steps is None else steps
        return {p for step in used for p in step.parameters} - known

    def provider_key(self, parameter: str) -> str:
        """Return under which name a worker has the provider of this parameter."""
        named = parameter == LANGUAGE_MODEL and self.language_model
        return model_key(self.language_model) if named else parameter

    def provider(self, parameter: str, providers: Mapping[str, Any]) -> Any:
        """Return the provider of this parameter; what a test gives stands for a named model."""
        key = self.provider_key(parameter)
        return providers[key if key in providers else parameter]

    def plan(self, raw: Mapping[str, Any], path: str) -> RunPlan:
        """Validate `raw` inputs and plan the run.

        Raises InvalidRequest with every violation; each field's path starts with `path`.
        """
        try:
            values = self.inputs.model_validate(raw)
        except ValidationError as error:
            raise InvalidRequest(input_violations(error, self.inputs, path)) from error
        wire = written(values)
        if wire is None:
            rule = f"is not the same when kept as JSON and read again: {self.name} needs others"
            raise InvalidRequest([Violation(path, rule)])
        plain = values.model_dump(mode="json", round_trip=True)
        run, steps = self._digests.of_run(values, plain)
        if not steps:
            raise InvalidRequest([Violation(path, "leaves this pipeline no step to run")])
        return RunPlan(
            pipeline=self.name,
            inputs=wire,
            definition=self.definition,
            digest=run,
            steps=steps,
            pools={name: pool for name, pool in self.steps_elsewhere.items() if name in steps},
            settling=tuple(name for name in self._settling if name in steps),
        )

    def step_digests(self, values: BaseModel) -> dict[str, str]:
        """The steps of a run with these inputs, in order, each with its own digest."""
        return self._digests.of_run(values, values.model_dump(mode="json", round_trip=True))[1]

    @cached_property
    def _digests(self) -> PlanDigests:
        about = self.name, self.version
        return PlanDigests(
            about,
            [
                StepPart(
                    name,
                    step.when,
                    frozenset(self.hard_needs(step)),
                    self.needs(step),
                    step.parameters,
                    (*about, name, step.version),
                    step.each,
                )
                for name, step in ((name, self.by_name[name]) for name in self.order)
            ],
        )

    @cached_property
    def _settling(self) -> tuple[str, ...]:
        return tuple(name for name in self.order if self.by_name[name].settle)

    def memo_digest(
        self, step: Step, values: BaseModel, own: str, maker: str, needed: Mapping[str, bytes]
    ) -> str:
        """The fingerprint of all that `step` is given: equal ones in two runs, equal results.

        `own` is its digest in this run, and `maker` that of its providers. `needed` are the
        results that there are of the steps that it needs, as fragments. Their digests would not
        do: a step that is not pure may give each run another result, and later steps must fit that.
        """
        plain = values.model_dump(mode="json", round_trip=True, include=set(step.parameters))
        contents = {name: sha256(result).hexdigest() for name, result in needed.items()}
        seed = (own,) if DIGEST_PARAMETER in step.parameters else ()
        about = [self.name, self.version, step.name, step.version, maker]
        return digest([*about, plain, contents, *seed])

    def item_digests(
        self, step: Step, values: BaseModel, maker: str, needed: Mapping[str, bytes]
    ) -> ItemDigests:
        """The same for the items of a step that runs for each item of a list."""
        about = [self.name, self.version, step.name, step.version, maker]
        return ItemDigests(about, step.each, step.parameters, values, needed)
