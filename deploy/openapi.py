"""Writes the OpenAPI document of the API over HTTP, from the contract and its comments."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from headstart.v1 import precompute_pb2 as pb
from headstart_service.api.method_table import METHOD_TABLE, Method
from headstart_service.base.service_methods import SERVICE
from headstart_service.http.connect.errors import CODES

from .pins import ROOT

PATH: Final = ROOT / "service" / "headstart_service" / "http" / "connect" / "openapi.json"
_PROTO: Final = "headstart/v1/precompute.proto"
_SERVICES, _MESSAGES, _ENUMS, _MEMBERS = 6, 4, 5, 2
"""Field numbers of descriptors, of which paths to comments are made."""
_WHOLE: Final = {"type": ["integer", "string"], "format": "int64"}
_TYPES: Final[dict[int, dict[str, Any]]] = {
    FieldDescriptor.CPPTYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.CPPTYPE_UINT32: {"type": "integer", "minimum": 0},
    FieldDescriptor.CPPTYPE_INT64: _WHOLE,
    FieldDescriptor.CPPTYPE_UINT64: _WHOLE,
    FieldDescriptor.CPPTYPE_FLOAT: {"type": "number"},
    FieldDescriptor.CPPTYPE_DOUBLE: {"type": "number"},
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.CPPTYPE_STRING: {"type": "string"},
}
_WELL_KNOWN: Final[dict[str, dict[str, Any]]] = {
    "google.protobuf.Duration": {"type": "string", "examples": ["1.5s"]},
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.ListValue": {"type": "array"},
    "google.protobuf.Value": {},
}
_HEADERS: Final = [
    {
        "name": "Connect-Timeout-Ms",
        "in": "header",
        "description": "The caller's deadline in milliseconds.",
        "schema": {"type": "integer", "minimum": 0, "maximum": 9_999_999_999},
    }
]
_QUERY: Final = [
    {"name": "connect", "in": "query", "schema": {"const": "v1"}},
    {"name": "encoding", "in": "query", "schema": {"enum": ["json", "proto"]}},
    {"name": "base64", "in": "query", "schema": {"const": "1"}},
]
_ERROR: Final = {
    "type": "object",
    "required": ["code", "message"],
    "properties": {
        "code": {"enum": [name for name, _ in CODES.values()]},
        "message": {"type": "string", "description": "For people: branch on the code."},
        "details": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["type", "value"],
                "properties": {
                    "type": {"type": "string", "examples": ["google.rpc.BadRequest"]},
                    "value": {"type": "string", "contentEncoding": "base64"},
                    "debug": {"description": "The detail as JSON."},
                },
            },
        },
    },
}


class _Comments:
    """The contract's comments, by the names of what they stand before."""

    def __init__(self, file: FileDescriptorProto) -> None:
        places = {tuple(each.path): each for each in file.source_code_info.location}
        self._by_name: dict[str, str] = {}

        def note(name: str, *path: int) -> None:
            if path in places:
                text = re.sub(r"^ ", "", places[path].leading_comments, flags=re.MULTILINE)
                self._by_name[name] = text.strip()

        for s, service in enumerate(file.service):
            note(service.name, _SERVICES, s)
            for i, method in enumerate(service.method):
                note(method.name, _SERVICES, s, _MEMBERS, i)
        for kind, number in ((file.message_type, _MESSAGES), (file.enum_type, _ENUMS)):
            for m, each in enumerate(kind):
                note(each.name, number, m)
                members = each.value if number == _ENUMS else each.field
                for i, member in enumerate(members):
                    note(f"{each.name}.{member.name}", number, m, _MEMBERS, i)

    def of(self, name: str) -> str:
        """Return a comment, its lines joined to paragraphs."""
        paragraphs = self._by_name.get(name, "").split("\n\n")
        return "\n\n".join(re.sub(r"\n(?!- )", " ", each) for each in paragraphs)


def document(_: str) -> str:
    """Return the whole document."""
    made = {
        "openapi": "3.1.0",
        "info": {
            "title": "Headstart",
            "version": "v1",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"token": []}],
    }
    comments = _Comments(_described())
    made["info"]["description"] = comments.of("PrecomputeService")  # type: ignore[index]
    made["paths"] = {
        f"/{SERVICE}/{name}": dict(_operations(method, comments))
        for name, method in METHOD_TABLE.items()
    }
    file = pb.DESCRIPTOR
    schemas = {kind.name: _message(kind, comments) for kind in file.message_types_by_name.values()}
    schemas |= {kind.name: _enum(kind, comments) for kind in file.enum_types_by_name.values()}
    made["components"] = {
        "schemas": schemas | {"Error": _ERROR},
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
    }
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def _described() -> FileDescriptorProto:
    """Return the contract as protoc describes it, with its comments."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "set"
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'protos'}"]
        flags = ["--include_source_info", f"--descriptor_set_out={out}"]
        subprocess.run([*command, *flags, _PROTO], check=True)  # noqa: S603  # our own arguments
        [file] = FileDescriptorSet.FromString(out.read_bytes()).file
        return file


def _operations(method: Method, comments: _Comments) -> Iterator[tuple[str, Any]]:
    text = comments.of(method.name)
    request, response = method.descriptor.input_type, method.descriptor.output_type
    shared = {
        "summary": re.split(r"(?<=[.:])\s", text, maxsplit=1)[0].rstrip(":") or method.name,
        "description": text,
        "responses": {
            "200": {"description": "The response.", "content": _content(response.name, method)},
            "default": {
                "description": "An error.",
                "content": {"application/json": {"schema": _ref("Error")}},
            },
        },
    }
    body = {"required": True, "content": _content(request.name, method)}
    yield (
        "post",
        {
            "operationId": method.name,
            **shared,
            "parameters": _HEADERS,
            "requestBody": body,
        },
    )
    if method.reads:
        message = {"name": "message", "in": "query", "required": True}
        message["content"] = {"application/json": {"schema": _ref(request.name)}}
        query = [*_HEADERS, message, *_QUERY]
        yield "get", {"operationId": f"{method.name}ByGet", **shared, "parameters": query}


def _content(name: str, method: Method) -> dict[str, Any]:
    if not method.streams:
        return {"application/json": {"schema": _ref(name)}}
    text = f"{name} in envelopes of the Connect protocol: 1 byte of flags, 4 of length, the message"
    return {"application/connect+json": {"schema": {"description": text}}}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _message(kind: Descriptor, comments: _Comments) -> dict[str, Any]:
    properties = {}
    for field in kind.fields:
        schema = _field(field)
        text = comments.of(f"{kind.name}.{field.name}")
        properties[field.json_name] = {**schema, "description": text} if text else schema
    made = {"type": "object", "description": comments.of(kind.name), "properties": properties}
    if kind.name.endswith("Request"):
        made["additionalProperties"] = False
    return made


def _field(field: FieldDescriptor) -> dict[str, Any]:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        return {
            "type": "object",
            "additionalProperties": _value(entry.fields_by_name["value"]),
        }
    return {"type": "array", "items": _value(field)} if field.is_repeated else _value(field)


def _value(field: FieldDescriptor) -> dict[str, Any]:
    if field.message_type is not None:
        known = _WELL_KNOWN.get(field.message_type.full_name)
        return _ref(field.message_type.name) if known is None else known
    if field.enum_type is not None:
        return _ref(field.enum_type.name)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return {"type": "string", "contentEncoding": "base64"}
    return _TYPES[field.cpp_type]


def _enum(kind: EnumDescriptor, comments: _Comments) -> dict[str, Any]:
    lines = [f"- {value.name}: {comments.of(f'{kind.name}.{value.name}')}" for value in kind.values]
    text = "\n".join([comments.of(kind.name), "", *lines])
    return {"type": "string", "enum": [value.name for value in kind.values], "description": text}
