"""`headstart pipelines generate`: types of every schema, names, formatting, and its errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headstart import PipelineDescription, StepDescription
from headstart._for_service import pipeline_from
from headstart_service.api.messages import pipeline_description
from headstart_service.base import exit_codes
from headstart_service.commands.cli import main
from headstart_service.commands.generate.module import module_of
from headstart_service.commands.generate.python_module import python_module
from headstart_service.commands.generate.typescript_module import typescript_module
from tests.support.schema_pipelines import OTHER, REFERENCES, SCHEMAS

TEXT = {"type": "string"}
WHOLE = {"type": "integer"}
DESCRIPTIONS = [pipeline_from(pipeline_description(each)) for each in (SCHEMAS, OTHER)]


def described(name: str = "text", **options: Any) -> PipelineDescription:
    """A pipeline with one step `value` of this schema, or with these steps and inputs."""
    schemas = options.get("steps") or {"value": options.get("schema")}
    steps = tuple(
        StepDescription(
            name=step,
            needs=(),
            required=True,
            timeout=None,
            max_attempts=1,
            output_schema=schema,
            output_type=options.get("output_type", ""),
        )
        for step, schema in schemas.items()
    )
    inputs = options.get("inputs") or {"type": "object", "properties": {}}
    return PipelineDescription(
        name=name,
        version="1",
        description=options.get("description", ""),
        steps=steps,
        input_schema=inputs,
    )


def in_python(*pipelines: PipelineDescription, blocking: bool = False) -> str:
    return python_module(module_of(pipelines, "headstart"), blocking=blocking)


def in_typescript(*pipelines: PipelineDescription) -> str:
    return typescript_module(module_of(pipelines, "headstart"))


def line_with(text: str, start: str) -> str:
    return next(line.strip() for line in text.splitlines() if line.strip().startswith(start))


@pytest.mark.parametrize(
    ("schema", "python", "typescript"),
    [
        (TEXT, "str | None", "string"),
        ({"type": "string", "format": "date-time"}, "str | None", "string"),
        (WHOLE, "int | None", "number"),
        ({"type": "number"}, "float | None", "number"),
        ({"type": "boolean"}, "bool | None", "boolean"),
        ({"type": "null"}, "None", "null"),
        ({"type": "array", "items": TEXT}, "list[str] | None", "string[]"),
        ({"type": "array"}, "list[Any] | None", "unknown[]"),
        (
            {"type": "array", "prefixItems": [TEXT, WHOLE], "minItems": 2, "maxItems": 2},
            "list[str | int] | None",
            "[string, number]",
        ),
        (
            {"type": "array", "prefixItems": [TEXT], "items": WHOLE},
            "list[str | int] | None",
            "(string | number)[]",
        ),
        ({"enum": ["a", 1, None]}, 'Literal["a", 1] | None', '"a" | 1 | null'),
        ({"enum": [1, True]}, "Literal[1, True] | None", "1 | true"),
        ({"const": 1.5}, "float | None", "number"),
        ({"anyOf": [TEXT, {"type": "null"}]}, "str | None", "string | null"),
        ({"oneOf": [TEXT, TEXT]}, "str | None", "string"),
        ({"type": ["string", "null"]}, "str | None", "string | null"),
        ({"allOf": [TEXT]}, "str | None", "string"),
        (
            {"type": "object", "additionalProperties": WHOLE},
            "dict[str, int] | None",
            "{ [name: string]: number }",
        ),
        (
            {
                "type": "object",
                "patternProperties": {"^a": WHOLE},
                "additionalProperties": False,
            },
            "dict[str, int] | None",
            "{ [name: string]: number }",
        ),
        ({"type": "object"}, "dict[str, Any] | None", "{ [name: string]: unknown }"),
        ({}, "Any", "unknown"),
        ({"allOf": [TEXT, WHOLE]}, "Any", "unknown"),
        ({"anyOf": [TEXT, {}]}, "Any", "unknown"),
        ({"type": "colour"}, "Any", "unknown"),
        ({"$ref": "#/$defs/Gone"}, "Any", "unknown"),
        ({"$ref": "elsewhere.json"}, "Any", "unknown"),
        ({"$defs": {"A": {"$ref": "#/$defs/A"}}, "$ref": "#/$defs/A"}, "A | None", "A"),
    ],
)
def test_a_schema_becomes_a_type_of_each_language(
    schema: Any, python: str, typescript: str
) -> None:
    pipeline = described(schema=schema)
    assert line_with(in_python(pipeline), "value:") == f"value: {python} = None"
    assert line_with(in_typescript(pipeline), "value?:") == f"value?: {typescript};"


@pytest.mark.parametrize(
    ("output_type", "python", "typescript"),
    [
        ("bytes", "bytes | None", "Uint8Array"),
        ("ndarray[float32]", "Tensor | None", "Tensor"),
        ("ndarray", "Tensor | None", "Tensor"),
        ("Any", "Any", "unknown"),
        ("", "Any", "unknown"),
    ],
)
def test_a_step_without_a_schema_has_the_type_of_its_artifact(
    output_type: str, python: str, typescript: str
) -> None:
    pipeline = described(output_type=output_type)
    assert line_with(in_python(pipeline), "value:") == f"value: {python} = None"
    assert line_with(in_typescript(pipeline), "value?:") == f"value?: {typescript};"
    assert ("Started, Tensor\n" in in_python(pipeline)) == (python == "Tensor | None")


def test_types_that_are_nothing_but_themselves_are_unknown() -> None:
    either = {"anyOf": [{"$ref": "#/$defs/A"}, TEXT]}
    text = in_python(
        described(schema={"$defs": {"A": {"$ref": "#/$defs/B"}, "B": either}, **either})
    )
    assert line_with(text, "A:") == "A: TypeAlias = Any"
    assert "B:" not in text


def record(*required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "title": "Card", "properties": properties, "required": required}


def test_equal_types_of_several_steps_are_one_and_others_of_their_name_get_another() -> None:
    one, other = record("word", word=TEXT), record("word", word=WHOLE)
    text = in_python(described("b", steps={"x": one, "y": one}), described("c", steps={"z": other}))
    assert text.count("class Card(TypedDict):\n    word: str\n") == 1
    assert text.count("class CCard(TypedDict):\n    word: int\n") == 1
    assert line_with(text, "y:") == "y: Card | None = None"
    assert line_with(text, "z:") == "z: CCard | None = None"


def test_names_that_no_class_can_have_stand_as_text() -> None:
    schema = record("class", **{"class": TEXT, "a-b": TEXT, "__x": TEXT, "ok": TEXT})
    text = in_python(described(schema=schema))
    assert 'Card = TypedDict(\n    "Card",\n    {\n        "class": "str",\n' in text
    assert '        "a-b": "NotRequired[str]",\n' in text
    assert "  class: string;\n" in in_typescript(described(schema=schema))
    assert '  "a-b"?: string;\n' in in_typescript(described(schema=schema))


def test_pipelines_of_similar_names_get_functions_of_their_own() -> None:
    text = in_python(described("a-b"), described("a_b"), described("2"), described("..."))
    for function in ("start_a_b", "start_a_b_2", "start_2", "start_pipeline"):
        assert f"async def {function}(\n" in text
    for kind in ("ABResults", "AB2Results", "T2Results", "ValueResults"):
        assert f"class {kind}:\n" in text


def test_inputs_are_parameters_and_none_leaves_one_out_unless_it_is_a_value() -> None:
    nullable = {"anyOf": [WHOLE, {"type": "null"}]}
    properties = {
        "text": TEXT,
        "key": TEXT,
        "limit": {**WHOLE, "default": 3},
        "none": {**nullable, "default": None},
        "depth": {**nullable, "default": 3},
    }
    text = in_python(described(inputs=record("key", "text", **properties)))
    assert "    text: str,\n    key_: str,\n    limit: int | None = None,\n" in text
    assert "    none: int | None = None,\n    depth: int | None | EllipsisType = ...,\n" in text
    assert (
        'inputs: dict[str, Any] = {"text": text, "key": key_}\n    if limit is not None:\n' in text
    )
    assert '    if depth is not ...:\n        inputs["depth"] = depth\n' in text
    assert "from types import EllipsisType\n" in text


def test_names_and_descriptions_cannot_leave_their_comment() -> None:
    evil = 'x"""\nimport os\\ */ alert() \u2028'
    for text in (in_python(described(evil, description=evil)),):
        compile(text, "generated", "exec")
        assert "\nimport os" not in text
    assert "*/ alert" not in in_typescript(described(evil, description=evil)).replace(
        json.dumps(evil), ""
    )


def test_a_module_for_the_blocking_client_awaits_nothing() -> None:
    text = in_python(*DESCRIPTIONS, blocking=True)
    assert "client: BlockingClient,\n" in text
    assert "await " not in text
    assert "async " not in text


@pytest.mark.parametrize("width", [88, 100])
def test_ruff_leaves_a_module_as_it_is(width: int) -> None:
    for blocking in (False, True):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", "format", "--isolated", f"--line-length={width}", "-"],
            input=in_python(*DESCRIPTIONS, blocking=blocking),
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == in_python(*DESCRIPTIONS, blocking=blocking)


def test_a_module_is_the_same_whatever_the_order_of_pipelines() -> None:
    for written in (in_python, in_typescript):
        assert written(*DESCRIPTIONS) == written(*reversed(DESCRIPTIONS))


def test_a_module_can_be_imported() -> None:
    found: dict[str, Any] = {"__name__": "generated"}
    sys.modules["generated"] = type(sys)("generated")
    try:
        exec(compile(in_python(*DESCRIPTIONS), "generated", "exec"), found)
    finally:
        del sys.modules["generated"]
    assert found["SchemasAll2Step"].__args__[0] == "pets"


def generate(capsys: Any, *arguments: str) -> tuple[int, str, str]:
    code = main(["pipelines", "generate", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


FROM = ("--from", REFERENCES[0], "--from", REFERENCES[1])


def test_a_package_is_read_without_a_server_and_the_head_names_the_command(
    capsys, tmp_path: Path
) -> None:
    code, out, err = generate(capsys, "--python", *FROM)
    assert (code, err) == (exit_codes.DONE, "")
    assert f"Made by: headstart pipelines generate --python {' '.join(FROM)}\n" in out
    path = tmp_path / "found.py"
    assert generate(capsys, "--python", *FROM, "--out", str(path)) == (exit_codes.DONE, "", "")
    assert path.read_text() == out


def test_named_pipelines_alone_are_written(capsys) -> None:
    _, out, _ = generate(capsys, "schemas_all_2", "--typescript", *FROM)
    assert f"// Made by: headstart pipelines generate schemas_all_2 --typescript {FROM[0]}" in out
    assert '"schemas_all_2"' in out
    assert '"schemas.all-2"' not in out


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--python", "gone", *FROM), 2, "there is no pipeline gone: there are schemas.all-2, "),
        (("--python", "bridging", *FROM), 2, "typed methods for bridging"),
        (("--python", "--from", "no-such-distribution"), 2, "is no MODULE:NAME"),
        (("--python", "--from", "no_such_module:X"), 1, "No module named 'no_such_module'"),
        (("--typescript", "--blocking", *FROM), 2, "--blocking is for --python alone"),
        (("--python", *FROM, "--out", "/no/such/place.py"), 1, "cannot write /no/such/place.py"),
    ],
)
def test_what_cannot_be_generated_is_one_line_on_standard_error(
    capsys, arguments: tuple[str, ...], code: int, text: str
) -> None:
    found, out, err = generate(capsys, *arguments)
    assert (found, out) == (code, "")
    assert text in err
    assert len(err.splitlines()) == 1


def test_a_language_must_be_chosen(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["pipelines", "generate", *FROM])
    assert "one of the arguments --python --typescript is required" in capsys.readouterr().err
