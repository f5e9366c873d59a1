"""The OpenAPI document describes every method and what it answers; `make docs` writes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from google.protobuf.json_format import MessageToDict

from deploy.openapi import PATH
from headstart.v1 import precompute_pb2 as pb
from headstart_service.api.method_table import METHOD_TABLE

DOCUMENT = json.loads(PATH.read_text())
SCHEMAS = DOCUMENT["components"]["schemas"]


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"]
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from references(each)


def undescribed(value: Any, schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """The parts of a value that a schema does not name."""
    schema = SCHEMAS[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    if isinstance(value, dict) and "type" in schema:
        for name, each in value.items():
            known = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
            if known is None:
                yield f"{path}.{name}"
            else:
                yield from undescribed(each, known, f"{path}.{name}")
    elif isinstance(value, list):
        for each in value:
            yield from undescribed(each, schema["items"], f"{path}[]")


def test_every_method_has_a_description_and_reads_have_get_too() -> None:
    paths = DOCUMENT["paths"]
    assert [path.rpartition("/")[2] for path in paths] == list(METHOD_TABLE)
    for operations, method in zip(paths.values(), METHOD_TABLE.values(), strict=True):
        assert set(operations) == ({"post", "get"} if method.reads else {"post"})
        for operation in operations.values():
            assert len(operation["description"]) > 20
            assert operation["summary"]
    names = [operation["operationId"] for each in paths.values() for operation in each.values()]
    assert len(set(names)) == len(names)


def test_every_reference_resolves_and_every_field_is_described() -> None:
    named = {reference.rpartition("/")[2] for reference in references(DOCUMENT)}
    assert named <= set(SCHEMAS)
    for name, schema in SCHEMAS.items():
        if name != "Error":
            assert schema["description"], name
            for field, each in schema.get("properties", {}).items():
                assert each.get("description", "$ref" in each), field


def test_an_answer_has_only_what_the_document_names() -> None:
    answer = pb.GetResultsResponse(key="k", revision=3, status=pb.PRECOMPUTE_STATUS_COMPLETED)
    answer.steps["one"].estimate.p50.seconds = 1
    answer.custom.artifacts["one"].data = b"x"
    answer.custom.artifacts["two"].tensor.shape.append(2)
    value = MessageToDict(answer)
    schema = {"$ref": "#/components/schemas/GetResultsResponse"}
    assert list(undescribed(value, schema)) == []
    assert list(undescribed({**value, "more": 1}, schema)) == [".more"]
