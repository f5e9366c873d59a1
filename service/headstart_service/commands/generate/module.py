"""What a generated module has, whatever its language: pipelines, and the types that they name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from headstart import PipelineDescription, StepDescription

from .json_schema import Parameter, Value, inputs_of, reachable, value_of
from .names import Names
from .types import ANY, Basic, Field, Plain, Type, renamed


@dataclass(frozen=True, slots=True)
class TypedPipeline:
    """A pipeline with the types of its inputs and steps."""

    name: str
    shown: str
    """The name, for comments."""
    about: str
    """The name and the description, for comments."""
    function_word: str
    """Behind `start_` and `get_`."""
    type_word: str
    """Before `Results` and `Step`."""
    inputs: tuple[Parameter, ...]
    steps: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Module:
    """All that a module has."""

    pipelines: tuple[TypedPipeline, ...]
    definitions: Mapping[str, Type]
    command: str
    """What it was made by."""


def module_of(descriptions: Sequence[PipelineDescription], command: str) -> Module:
    """Return the module of these pipelines. Equal types of several pipelines become one."""
    names = Names()
    ordered = sorted(descriptions, key=lambda each: each.name)
    spelled = [names.pipeline(each.name) for each in ordered]
    definitions = _Definitions(names)
    pipelines = []
    for description, (function_word, type_word) in zip(ordered, spelled, strict=True):
        inputs = inputs_of(description.input_schema)
        parameters = tuple(
            replace(each, type=definitions.add(each.type, inputs.definitions, type_word))
            for each in inputs.parameters
        )
        steps = []
        for step in description.steps:
            value = _value(step)
            kind = definitions.add(value.type, value.definitions, type_word)
            steps.append(Field(step.name, kind, required=False))
        pipelines.append(
            TypedPipeline(
                name=description.name,
                shown=_line(description.name),
                about=_line(": ".join(filter(None, (description.name, description.description)))),
                function_word=function_word,
                type_word=type_word,
                inputs=parameters,
                steps=tuple(steps),
            )
        )
    return Module(tuple(pipelines), definitions.all, _line(command))


class _Definitions:
    """Gives the named types of all schemas names that are unique in the module."""

    def __init__(self, names: Names) -> None:
        self.all: dict[str, Type] = {}
        self._names = names
        self._known: dict[str, str] = {}

    def add(self, kind: Type, local: Mapping[str, Type], owner: str) -> Type:
        """Return a type by the module's names, after defining what it names."""
        names: dict[str, str] = {}
        new: list[str] = []
        for name in reachable(kind, local):
            key = _key(name, local)
            if key not in self._known:
                self._known[key] = self._names.type(name, owner)
                new.append(name)
            names[name] = self._known[key]
        for name in new:
            self.all[names[name]] = renamed(local[name], names)
        return renamed(kind, names)


def _key(name: str, local: Mapping[str, Type]) -> str:
    """Return what is the same for types of the same name and content alone."""
    content = [(each, local[each]) for each in reachable(local[name], local)]
    return repr((name, local[name], content))


def _value(step: StepDescription) -> Value:
    if step.output_schema is not None:
        return value_of(step.output_schema, step.name)
    if step.output_type == "bytes":
        return Value(Plain(Basic.BYTES), {})
    if step.output_type.partition("[")[0] == "ndarray":
        return Value(Plain(Basic.TENSOR), {})
    return Value(ANY, {})


def _line(text: str) -> str:
    """Return a text that cannot end a comment or docstring: one line, without quotes."""
    clean = "".join(each if each.isprintable() else " " for each in text)
    clean = clean.replace("\\", "/").replace('"', "'").replace("*/", "* /")
    return " ".join(clean.split()).rstrip(".")
