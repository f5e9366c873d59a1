"""Writes a module in Python, as ruff formats it."""

from __future__ import annotations

import keyword
from typing import Final

from .json_schema import Parameter
from .module import Module, TypedPipeline
from .names import RESERVED, identifier
from .types import (
    ANY,
    NULL,
    Basic,
    Choice,
    Either,
    Field,
    Items,
    Keyed,
    Named,
    Places,
    Plain,
    Record,
    Type,
    either,
    named_in,
)

_WIDTH: Final = 88
_INDENT: Final = "    "
_BASIC: Final = {
    Basic.ANY: "Any",
    Basic.NULL: "None",
    Basic.TEXT: "str",
    Basic.INTEGER: "int",
    Basic.NUMBER: "float",
    Basic.BOOLEAN: "bool",
    Basic.BYTES: "bytes",
    Basic.TENSOR: "Tensor",
}
_DURATION: Final = "float | timedelta"
_OPTIONS: Final = {
    "ttl": f"{_DURATION} | None = None",
    "restart": "bool = False",
    "request_id": "str | None = None",
    "expected_need_in": f"{_DURATION} | None = None",
    "namespace": "str | None = None",
    "timeout": f"{_DURATION} | None = None",
}
_TAKEN: Final = {*_OPTIONS, "client", "key", "inputs", "dict", "Any"}


def python_module(module: Module, *, blocking: bool) -> str:
    """Return the text of a module for PrecomputeClient, or for BlockingClient."""
    return _PythonModule(module, blocking=blocking).text()


class _PythonModule:
    def __init__(self, module: Module, *, blocking: bool) -> None:
        self._module = module
        self._client = "BlockingClient" if blocking else "PrecomputeClient"
        self._def, self._await = ("def", "") if blocking else ("async def", "await ")
        self._used = {"Any"}
        self._needs_ellipsis = False

    def text(self) -> str:
        blocks = [self._definition(*each) for each in self._module.definitions.items()]
        for pipeline in self._module.pipelines:
            blocks += [
                self._step_names(pipeline),
                self._results(pipeline),
                self._start(pipeline),
                self._get(pipeline),
                self._results_of(pipeline),
            ]
        # An alias is one line, and a class or function has two empty lines on both sides.
        text = self._head()
        alone = True
        for block in filter(None, blocks):
            is_alone = block.startswith(("class", "def", "async", "@"))
            text += ("\n\n\n" if alone or is_alone else "\n") + block
            alone = is_alone
        return f"{text}\n"

    def _head(self) -> str:
        names = sorted(self._used - {"Tensor"})
        imports = ["from collections.abc import Sequence", "from dataclasses import dataclass"]
        imports.append("from datetime import timedelta")
        if self._needs_ellipsis:
            imports.append("from types import EllipsisType")
        imports += [f"from typing import {', '.join(names)}", ""]
        own = [self._client, "Results", "Started"]
        if "Tensor" in self._used:
            own.append("Tensor")
        imports.append(f"from headstart import {', '.join(own)}")
        lines = [
            '"""Starts and reads pipelines of Headstart, with types for inputs and results.',
            "",
            f"Made by: {self._module.command}",
            '"""',
            "",
            "# Do not edit: run the command again.",
            "# ruff: noqa",
            "",
            "from __future__ import annotations",
            "",
            *imports,
        ]
        return "\n".join(lines)

    def _definition(self, name: str, kind: Type) -> str:
        if not isinstance(kind, Record):
            if next(named_in(kind), None) is not None:
                # What it names may be defined further down.
                return f"{name}: {self._use('TypeAlias')} = {_quoted(self._flat(kind))}"
            return self._wide(f"{name}: {self._use('TypeAlias')} = ", kind, "")
        self._use("TypedDict")
        names = [field.name for field in kind.fields]
        if not all(self._is_plain(each) for each in names):
            pairs = [
                f"{_INDENT * 2}{_quoted(each.name)}: {_quoted(self._property(each))},"
                for each in kind.fields
            ]
            call = [f"{name} = TypedDict(", f"{_INDENT}{_quoted(name)},", f"{_INDENT}{{"]
            return "\n".join([*call, *pairs, f"{_INDENT}}},", ")"])
        lines = [f"class {name}(TypedDict):"]
        for field in kind.fields:
            if field.required:
                lines.append(self._wide(f"{_INDENT}{field.name}: ", field.type, _INDENT))
            else:
                self._use("NotRequired")
                head = f"{_INDENT}{field.name}: NotRequired["
                flat = f"{head}{self._flat(field.type)}]"
                if len(flat) > _WIDTH and _can_break(field.type):
                    inner = self._wide(_INDENT * 2, field.type, _INDENT * 2, breaks=True)
                    flat = f"{head}\n{inner}\n{_INDENT}]"
                lines.append(flat)
        return "\n".join(lines)

    def _property(self, field: Field) -> str:
        text = self._flat(field.type)
        return text if field.required else f"{self._use('NotRequired')}[{text}]"

    def _is_plain(self, name: str) -> bool:
        """Return whether this can be a name in a class, beside annotations that name types."""
        return (
            name.isidentifier()
            and not keyword.iskeyword(name)
            and not name.startswith("__")
            and name not in RESERVED
            and name not in self._module.definitions
        )

    def _step_names(self, pipeline: TypedPipeline) -> str:
        choice = Choice(tuple(each.name for each in pipeline.steps)) if pipeline.steps else NULL
        return self._wide(f"{pipeline.type_word}Step: {self._use('TypeAlias')} = ", choice, "")

    def _attributes(self, pipeline: TypedPipeline) -> list[tuple[str, Field]]:
        taken = {"run", *RESERVED, *self._module.definitions}
        found: list[tuple[str, Field]] = []
        for step in pipeline.steps:
            found.append((identifier(step.name, taken), step))
            taken.add(found[-1][0])
        return found

    def _results(self, pipeline: TypedPipeline) -> str:
        lines = [
            "@dataclass(frozen=True, slots=True, kw_only=True)",
            f"class {pipeline.type_word}Results:",
            f'{_INDENT}"""The values of {pipeline.shown}; None where a step has none (yet)."""',
            "",
            f"{_INDENT}run: Results",
        ]
        for attribute, step in self._attributes(pipeline):
            text = self._wide(f"{_INDENT}{attribute}: ", _or_none(step.type), _INDENT)
            lines.append(f"{text} = None")
        return "\n".join(lines)

    def _start(self, pipeline: TypedPipeline) -> str:
        lines = [
            f"{self._def} start_{pipeline.function_word}(",
            f"{_INDENT}client: {self._client},",
            f"{_INDENT}key: str,",
            f"{_INDENT}*,",
        ]
        taken = set(_TAKEN)
        given: list[str] = []
        later: list[str] = []
        for each in pipeline.inputs:
            name = identifier(each.name, taken)
            taken.add(name)
            lines.append(f"{self._parameter(name, each)},")
            if each.required:
                given.append(f"{_quoted(each.name)}: {name}")
            else:
                absent = "None" if self._none_is_absent(each) else "..."
                later += [
                    f"{_INDENT}if {name} is not {absent}:",
                    f"{_INDENT * 2}inputs[{_quoted(each.name)}] = {name}",
                ]
        lines += [f"{_INDENT}{name}: {text}," for name, text in _OPTIONS.items()]
        lines.append(") -> Started:")
        lines.append(f'{_INDENT}"""Start {pipeline.about}."""')
        inputs = f"{_INDENT}inputs: dict[str, Any] = {{{', '.join(given)}}}"
        if len(inputs) > _WIDTH:
            each_alone = [f"{_INDENT * 2}{pair}," for pair in given]
            inputs = "\n".join(
                [f"{_INDENT}inputs: dict[str, Any] = {{", *each_alone, f"{_INDENT}}}"]
            )
        lines += [
            inputs,
            *later,
            f"{_INDENT}return {self._await}client.start(",
            *(f"{_INDENT * 2}{each}," for each in ("key", _quoted(pipeline.name), "inputs")),
            *(f"{_INDENT * 2}{name}={name}," for name in _OPTIONS),
            f"{_INDENT})",
        ]
        return "\n".join(lines)

    def _none_is_absent(self, parameter: Parameter) -> bool:
        members = self._members(parameter.type)
        return parameter.null_is_default or not ({NULL, ANY} & set(members))

    def _members(self, kind: Type, depth: int = 0) -> tuple[Type, ...]:
        """Return what a value may be, behind aliases too."""
        if isinstance(kind, Named) and depth < len(self._module.definitions):
            return self._members(self._module.definitions[kind.name], depth + 1)
        if isinstance(kind, Either):
            return tuple(one for each in kind.members for one in self._members(each, depth))
        return (kind,)

    def _parameter(self, name: str, parameter: Parameter) -> str:
        head = f"{_INDENT}{name}: "
        if parameter.required:
            return self._wide(head, parameter.type, _INDENT)
        if self._none_is_absent(parameter):
            return f"{self._wide(head, _or_none(parameter.type), _INDENT)} = None"
        self._needs_ellipsis = True
        return f"{self._wide(head, either([parameter.type, Named('EllipsisType')]), _INDENT)} = ..."

    def _get(self, pipeline: TypedPipeline) -> str:
        word, steps = pipeline.function_word, f"Sequence[{pipeline.type_word}Step]"
        names = {
            "wait": f"{_DURATION} = 0.0",
            "required_steps": f"{steps} = ()",
            "result_steps": f"{steps} = ()",
            "min_revision": "int = 0",
            "namespace": _OPTIONS["namespace"],
            "timeout": _OPTIONS["timeout"],
        }
        lines = [
            f"{self._def} get_{word}(",
            f"{_INDENT}client: {self._client},",
            f"{_INDENT}key: str,",
            f"{_INDENT}*,",
            *(f"{_INDENT}{name}: {text}," for name, text in names.items()),
            f") -> {pipeline.type_word}Results:",
            f'{_INDENT}"""Return whatever exists of a run of {pipeline.shown}."""',
            f"{_INDENT}run = {self._await}client.get_results(",
            f"{_INDENT * 2}key,",
            *(f"{_INDENT * 2}{name}={name}," for name in names),
            f"{_INDENT})",
            f"{_INDENT}return results_of_{word}(run)",
        ]
        return "\n".join(lines)

    def _results_of(self, pipeline: TypedPipeline) -> str:
        results = f"{pipeline.type_word}Results"
        lines = [
            *self._signature(f"def results_of_{pipeline.function_word}", results),
            f'{_INDENT}"""Return what a run of {pipeline.shown} has, as of a watch."""',
            f"{_INDENT}values: dict[str, Any] = dict(run.custom or {{}})",
            f"{_INDENT}return {results}(",
            f"{_INDENT * 2}run=run,",
        ]
        lines += [
            f"{_INDENT * 2}{attribute}=values.get({_quoted(step.name)}),"
            for attribute, step in self._attributes(pipeline)
        ]
        return "\n".join([*lines, f"{_INDENT})"])

    @staticmethod
    def _signature(head: str, results: str) -> list[str]:
        flat = f"{head}(run: Results) -> {results}:"
        if len(flat) <= _WIDTH:
            return [flat]
        return [f"{head}(", f"{_INDENT}run: Results,", f") -> {results}:"]

    def _use(self, name: str) -> str:
        self._used.add(name)
        return name

    def _flat(self, kind: Type) -> str:  # noqa: PLR0911  # one type a line
        """Return a type on one line."""
        match kind:
            case Plain(basic):
                return (
                    self._use(_BASIC[basic])
                    if basic in {Basic.ANY, Basic.TENSOR}
                    else _BASIC[basic]
                )
            case Choice(values):
                return f"{self._use('Literal')}[{', '.join(map(_literal, values))}]"
            case Items(item):
                return f"list[{self._flat(item)}]"
            case Places(items):
                return f"list[{self._flat(either(list(items)))}]"
            case Keyed(value):
                return f"dict[str, {self._flat(value)}]"
            case Either(members):
                return " | ".join(map(self._flat, members))
            case Named(name):
                return name
        raise AssertionError(kind)

    def _wide(self, head: str, kind: Type, indent: str, *, breaks: bool = False) -> str:
        """Return `head` and a type: on one line if it fits, else over several as ruff does."""
        flat = f"{head}{self._flat(kind)}"
        room = _WIDTH - len(" = None,")
        if (len(flat) <= room and not breaks) or not _can_break(kind):
            return flat
        inside = f"{indent}{_INDENT}"
        match kind:
            case Choice(values):
                name, parts = (
                    self._use("Literal"),
                    [f"{inside}{_literal(each)}," for each in values],
                )
            case Either(members):
                name = self._use("Union")
                parts = [f"{self._wide(inside, each, inside)}," for each in members]
            case Items(item):
                name, parts = "list", [self._wide(inside, item, inside, breaks=True)]
            case Places(items):
                one = either(list(items))
                name, parts = "list", [self._wide(inside, one, inside, breaks=True)]
            case Keyed(value):
                name = "dict"
                parts = [f"{inside}str,", f"{self._wide(inside, value, inside)},"]
        return "\n".join([f"{head}{name}[", *parts, f"{indent}]"])


def _can_break(kind: Type) -> bool:
    """Return whether a type over several lines keeps them: ruff joins what has no last comma."""
    match kind:
        case Choice(values):
            return len(values) > 1
        case Either() | Keyed():
            return True
        case Items(item):
            return _can_break(item)
        case Places(items):
            return _can_break(either(list(items)))
    return False


def _or_none(kind: Type) -> Type:
    return either([kind, NULL])


def _literal(value: str | int) -> str:
    return _quoted(value) if isinstance(value, str) else repr(value)


def _quoted(text: str) -> str:
    """Return a text as Python writes it, with the quotes that ruff prefers."""
    if not text.isprintable() or "'" in text:
        plain = repr(text)
        return plain if plain[0] == '"' or '"' in text else f'"{plain[1:-1]}"'
    escaped = text.replace("\\", "\\\\")
    return f"'{escaped}'" if '"' in text else f'"{escaped}"'
