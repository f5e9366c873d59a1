"""A step: one function of a pipeline, with how it may be run.

What a step needs is read off its parameters' names. Each is an input of the pipeline, another
step, whose value it gets, a provider of the worker (`embedder`, `vocabulary`, …), or `step_digest`.
That is the fingerprint of the inputs and versions that the step depends on.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic

from typing_extensions import ParamSpec, TypeVar

from .each import MAX_ITEMS, PARALLEL
from .mistakes import Mistake, line_of, refuse_one
from .ray_options import RayOptions
from .runs_on import ACTOR_PARAMETER, check_function
from .step_options import check_options

DIGEST_PARAMETER = "step_digest"
VISIBLE_OPTIONS: Final = (
    *("required", "timeout", "max_attempts", "runs_on", "version", "memo"),
    *("each", "parallel", "max_items", "pool"),
)
"""The options that callers and operators see. StepDescription has a field of each name."""


P = ParamSpec("P", default=...)
R = TypeVar("R", default=Any)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Generic[P, R]):
    """A step's function and rules. Make one with the `step` decorator.

    Calling it calls the function, so that a test can: `await words("a text")`.
    """

    name: str
    function: Callable[P, R]
    parameters: tuple[str, ...]
    required: bool
    """Whether the run fails when this step fails."""
    timeout: float
    """Seconds that one attempt may take."""
    max_attempts: int
    backoff: float
    """Seconds before the second attempt; doubled before each later one."""
    when: Callable[[Any], bool] | None
    """Whether a run with these inputs has this step at all; None means always."""
    version: str = ""
    """Part of its digest: a change invalidates it and what needs it, and no other step."""
    memo: bool = False
    """Whether its result serves other runs of the namespace that give it the same to work on."""
    nearby: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """What annotations may name beside the module's own: names of the function it stands in."""
    runs_on: str = "loop"
    """Where the function runs: on the worker's "loop", in a "thread" or "process", or on "ray"."""
    ray: RayOptions | None = None
    """What it needs of Ray, of a step that runs there."""
    defaults: frozenset[str] = frozenset()
    """The parameters that have a default."""
    each: str = ""
    """The parameter that is one item of the list of its name; empty if it runs once."""
    parallel: int = 0
    """How many items it computes at a time, at most; 0 without `each`."""
    max_items: int = 0
    """How many items the list may have; 0 without `each`."""
    pool: str = ""
    """Which workers compute it: those that serve this pool; empty means the pipeline's."""
    settle: float = 0.0
    """Seconds for which its digest must have been the same before it begins."""
    retry_on: tuple[type[Exception], ...] | None = None
    """What allows another try: see `retry_kinds`."""
    ttl: float | None = None
    """Seconds that its memos live; None for the worker's setting."""
    memo_failures: float | None = None
    """Seconds for which a failure is remembered as a result is; None for none."""
    max_bytes: int | None = None
    """The most bytes that its result may have, below the worker's own limit."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function here, without its rules: no timeout, no further try, no executor."""
        return self.function(*args, **kwargs)

    @property
    def streams(self) -> bool:
        """Whether it is an async generator, whose callers read what it gives before it ends."""
        return inspect.isasyncgenfunction(self.function)


def step(
    *undecorated: Callable[..., Any],
    required: bool = False,
    timeout: float = 30.0,
    max_attempts: int = 1,
    backoff: float = 0.2,
    when: Callable[[Any], bool] | None = None,
    version: str = "",
    memo: bool = False,
    runs_on: str = "loop",
    ray: RayOptions | None = None,
    each: str = "",
    parallel: int = PARALLEL,
    max_items: int = MAX_ITEMS,
    pool: str = "",
    settle: float = 0.0,
    retry_on: tuple[type[Exception], ...] | None = None,
    ttl: float | None = None,
    memo_failures: float | None = None,
    max_bytes: int | None = None,
) -> Callable[[Callable[P, R]], Step[P, R]]:
    """Make a function a step of its own name: an async one, or a plain one to run elsewhere.

    An async generator streams: callers read what it yields before it ends.

    Args:
        *undecorated: Nothing; refuses a decorator without parentheses.
        required: The run fails when this step fails.
        timeout: Seconds for a try.
        max_attempts: Tries, when a step raises or times out.
        backoff: Most seconds before the second try, doubled before each later one. The pause is
            random up to that.
        when: A function of the inputs that returns whether a run has this step. None means always.
        version: A change invalidates this step and its dependents alone.
        memo: Its result serves other runs of the namespace with the same parameters.
        runs_on: Where it runs: on the worker's event "loop", in a "thread" or "process", or on
            "ray".
        ray: A `RayOptions`, for a step on Ray alone.
        each: The parameter that is one item of the list of this name, an input or another step: it
            runs once for each item. Rules of tries and memos count for each, `max_bytes` for all.
        parallel: Items at a time, 1 to 100.
        max_items: Items that the list may have, 1 to 10,000.
        pool: The pool of workers that compute it, if that is not the pipeline's.
        settle: Seconds for which its inputs must be stable before it begins, at most 60. It begins
            at once when a caller waits for it.
        retry_on: Exceptions after which it is tried again; `TimeoutError` is its timeout, too.
            None means all but mistakes, such as `ValueError` and `TypeError`.
        ttl: Seconds that its memos live. None means `HEADSTART_MEMO_TTL`.
        memo_failures: Seconds for which its failure serves as a memo, too. None means not at all.
        max_bytes: Most bytes of its result, below `HEADSTART_MAX_ARTIFACT_BYTES`.

    Raises:
        TypeError: The function cannot run there, or takes *args, **kwargs or positional-only
            parameters; or the decorator is written without parentheses.
        ValueError: Options are out of their ranges, or do not fit the function.
    """
    for function in undecorated:
        name = getattr(function, "__name__", repr(function))
        text = f"step {name}: @step needs parentheses: write @step()"
        refuse_one(Mistake(line_of(function), text), TypeError)
    options: dict[str, Any] = {
        "timeout": timeout,
        "max_attempts": max_attempts,
        "backoff": backoff,
        "memo": memo,
        "settle": settle,
        "retry_on": retry_on,
        "ttl": ttl,
        "memo_failures": memo_failures,
        "max_bytes": max_bytes,
        "pool": pool,
        "each": each,
        "parallel": parallel,
        "max_items": max_items,
    }

    def make(function: Callable[..., Any]) -> Step:
        check_function(function, runs_on, ray)
        parameters = tuple(inspect.signature(function).parameters.values())
        check_options(function, options, parameters)
        rules = options if each else options | {"parallel": 0, "max_items": 0}
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        for parameter in parameters:
            if parameter.kind not in named:
                text = (
                    f"step {function.__name__}: parameter {parameter.name} must have a plain name"
                )
                refuse_one(Mistake(line_of(function, parameter.name), text), TypeError)
        return Step(
            name=function.__name__,
            function=function,
            parameters=tuple(
                p.name
                for p in parameters
                if p.kind in named
                and (p.name != ACTOR_PARAMETER or ray is None or ray.actor is None)
            ),
            required=required,
            when=when,
            runs_on=runs_on,
            ray=ray,
            version=version,
            **rules,
            defaults=frozenset(p.name for p in parameters if p.default is not p.empty),
            nearby=_nearby(function, sys._getframe(above).f_locals),  # noqa: SLF001  # as pydantic does
        )

    above = 2 if undecorated else 1
    if undecorated:  # while mistakes are gathered
        return make(undecorated[0])
    return make  # type: ignore[return-value]  # mypy binds P and R to what is returned alone


def _nearby(function: Callable[..., Any], around: Mapping[str, Any]) -> dict[str, Any]:
    """Of the names around a function those that its annotations use."""
    texts = [text for text in function.__annotations__.values() if isinstance(text, str)]
    words = {word for text in texts for word in re.findall(r"\w+", text)}
    return {word: around[word] for word in words if word in around}
