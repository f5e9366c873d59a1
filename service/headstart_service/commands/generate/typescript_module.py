"""Writes a module in TypeScript. It imports nothing, so that it serves any client."""

from __future__ import annotations

import json
import re
from typing import Final

from .module import Module, TypedPipeline
from .types import Basic, Choice, Either, Field, Items, Keyed, Named, Places, Plain, Record, Type

_BASIC: Final = {
    Basic.ANY: "unknown",
    Basic.NULL: "null",
    Basic.TEXT: "string",
    Basic.INTEGER: "number",
    Basic.NUMBER: "number",
    Basic.BOOLEAN: "boolean",
    Basic.BYTES: "Uint8Array",
    Basic.TENSOR: "Tensor",
}
_CLIENT: Final = """\
/** A client that starts runs; its own type gives `Options` and `Started`. */
export interface Starter<Options, Started> {
  start(
    key: string,
    pipeline: string,
    inputs: { [name: string]: any },
    options?: Options,
  ): Promise<Started>;
}

/** What a client reads of a run: the value of each completed step, by name. */
export interface AnyRun {
  values: object;
}

/** A client that reads results; its own type gives `Options` and `Run`. */
export interface Reader<Options, Run extends AnyRun> {
  getResults(key: string, options?: Options): Promise<Run>;
}

/** A client's options, of which these name the steps of one pipeline. */
export type ReadOptions<Options, Step> = Omit<
  NonNullable<Options>,
  "requiredSteps" | "resultSteps"
> & {
  requiredSteps?: readonly Step[];
  resultSteps?: readonly Step[];
};"""
_TENSOR: Final = """\
/** A dense array of numbers in row-major order; `dtype` is numpy's name of their type. */
export interface Tensor {
  dtype: string;
  shape: readonly number[];
  data: ArrayLike<number> | ArrayLike<bigint>;
}"""


def typescript_module(module: Module) -> str:
    """Return the text of a module."""
    head = (
        "// Starts and reads pipelines of Headstart, with types for inputs and results.\n"
        f"// Made by: {module.command}\n"
        "// Do not edit: run the command again.\n"
        "/* eslint-disable */"
    )
    definitions = [_definition(*each) for each in module.definitions.items()]
    pipelines = [_pipeline(each) for each in module.pipelines]
    blocks = [*definitions, *pipelines]
    if any(re.search(r"\bTensor\b", block) for block in blocks):
        blocks.insert(0, _TENSOR)
    return "\n\n".join([head, _CLIENT, *blocks]) + "\n"


def _definition(name: str, kind: Type) -> str:
    if isinstance(kind, Record):
        return f"export interface {name} {_properties(kind.fields)}"
    return f"export type {name} = {_text(kind)};"


def _properties(fields: tuple[Field, ...]) -> str:
    if not fields:
        return "{}"
    lines = [
        f"  {_name(each.name)}{'' if each.required else '?'}: {_text(each.type)};"
        for each in fields
    ]
    return "\n".join(["{", *lines, "}"])


def _pipeline(pipeline: TypedPipeline) -> str:
    word, name = pipeline.type_word, json.dumps(pipeline.name)
    steps = " | ".join(json.dumps(each.name) for each in pipeline.steps)
    values = tuple(each for each in pipeline.steps if each.name != "run")
    inputs = "" if any(each.required for each in pipeline.inputs) else " = {}"
    return f"""\
/** The inputs of {pipeline.about}. */
export interface {word}Inputs {_properties(pipeline.inputs)}

export type {word}Step = {steps or "never"};

/** The values of {pipeline.shown}; undefined where a step has none (yet). */
export interface {word}Results {_properties(values)}

/** Starts {pipeline.about}. */
export function start{word}<Options, Started>(
  client: Starter<Options, Started>,
  key: string,
  inputs: {word}Inputs{inputs},
  options?: Options,
): Promise<Started> {{
  return client.start(key, {name}, {{ ...inputs }}, options);
}}

/** Returns whatever exists of a run of {pipeline.shown}, and the run itself. */
export async function get{word}<Options, Run extends AnyRun>(
  client: Reader<Options, Run>,
  key: string,
  options?: ReadOptions<Options, {word}Step>,
): Promise<{word}Results & {{ run: Run }}> {{
  return resultsOf{word}(await client.getResults(key, options as Options));
}}

/** Returns what a run of {pipeline.shown} has, as of a watch. */
export function resultsOf{word}<Run extends AnyRun>(run: Run): {word}Results & {{ run: Run }} {{
  return {{ ...(run.values as {word}Results), run }};
}}"""


def _text(kind: Type) -> str:  # noqa: PLR0911  # one type a line
    match kind:
        case Plain(basic):
            return _BASIC[basic]
        case Choice(values):
            return " | ".join(map(_literal, values))
        case Items(item):
            inner = _text(item)
            return f"({inner})[]" if " | " in inner else f"{inner}[]"
        case Places(items):
            return f"[{', '.join(map(_text, items))}]"
        case Keyed(value):
            return f"{{ [name: string]: {_text(value)} }}"
        case Either(members):
            return " | ".join(map(_text, members))
        case Named(name):
            return name
    raise AssertionError(kind)


def _literal(value: str | int) -> str:
    return json.dumps(value)


def _name(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z_$][A-Za-z0-9_$]*", text) else json.dumps(text)
