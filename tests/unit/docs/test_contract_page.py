"""The contract tells all of itself: a team with protoc and nothing else must find it there."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2 as descriptors
from grpc_tools import protoc

from headstart._transport.endpoint import service_config

ROOT = Path(__file__).parents[3]
PROTO = "headstart/v1/precompute.proto"

# The numbers of descriptor.proto's fields, which source locations are made of.
_MESSAGES, _ENUMS, _SERVICES = 4, 5, 6
_FIELDS, _NESTED, _ONEOFS, _VALUES, _METHODS = 2, 3, 8, 2, 2
_LONG_ENOUGH = 10


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> descriptors.FileDescriptorProto:
    """The file with its comments."""
    path = tmp_path_factory.mktemp("contract") / "set"
    well_known = Path(protoc.__file__).parent / "_proto"
    arguments = ["protoc", f"-I{ROOT / 'protos'}", f"-I{well_known}", "--include_source_info"]
    assert protoc.main([*arguments, f"--descriptor_set_out={path}", PROTO]) == 0, sys.stderr
    (file,) = descriptors.FileDescriptorSet.FromString(path.read_bytes()).file
    return file


Element = tuple[str, tuple[int, ...]]


def elements(file: descriptors.FileDescriptorProto) -> Iterator[Element]:
    """Everything that has a name, and where it stands."""
    for i, service in enumerate(file.service):
        yield service.name, (_SERVICES, i)
        for j, method in enumerate(service.method):
            yield f"{service.name}.{method.name}", (_SERVICES, i, _METHODS, j)
    for i, enum in enumerate(file.enum_type):
        yield enum.name, (_ENUMS, i)
        for j, value in enumerate(enum.value):
            yield f"{enum.name}.{value.name}", (_ENUMS, i, _VALUES, j)
    for i, message in enumerate(file.message_type):
        yield from within(message, (_MESSAGES, i), "")


def within(
    message: descriptors.DescriptorProto, path: tuple[int, ...], outer: str
) -> Iterator[Element]:
    if message.options.map_entry:
        return
    name = f"{outer}{message.name}"
    yield name, path
    for i, field in enumerate(message.field):
        yield f"{name}.{field.name}", (*path, _FIELDS, i)
    for i, oneof in enumerate(message.oneof_decl):
        if not oneof.name.startswith("_"):  # made by protoc for an optional field
            yield f"{name}.{oneof.name}", (*path, _ONEOFS, i)
    for i, nested in enumerate(message.nested_type):
        yield from within(nested, (*path, _NESTED, i), f"{name}.")


def comments(file: descriptors.FileDescriptorProto) -> dict[tuple[int, ...], str]:
    return {tuple(at.path): at.leading_comments.strip() for at in file.source_code_info.location}


def test_every_element_has_a_comment(contract: descriptors.FileDescriptorProto) -> None:
    said = comments(contract)
    found = list(elements(contract))
    assert len(found) > 150
    assert [name for name, path in found if len(said.get(path, "")) < _LONG_ENOUGH] == []


def test_every_method_states_its_callers_and_what_a_repetition_does(
    contract: descriptors.FileDescriptorProto,
) -> None:
    said = comments(contract)
    for name, path in elements(contract):
        if path[0] == _SERVICES and len(path) > 2:
            text = " ".join(said[path].split())
            assert "Verb:" in text or "token" in text, name
            assert "Idempotent" in text or "resumed" in text, name
            about_one_run = "ist" not in name and "Stats" not in name and "Start" not in name
            assert not about_one_run or "NOT_FOUND" in text, name


def test_generated_code_has_a_package_in_every_language(
    contract: descriptors.FileDescriptorProto,
) -> None:
    options = contract.options
    assert options.go_package == "headstart/v1;headstartv1"
    assert (options.java_package, options.java_multiple_files) == ("headstart.v1", True)
    assert options.csharp_namespace == "Headstart.V1"
    assert (options.ruby_package, options.php_namespace) == ("Headstart::V1", r"Headstart\V1")


def test_the_documented_service_config_is_the_clients_own() -> None:
    config = (ROOT / "examples" / "service-config.json").read_text()
    assert json.loads(config) == json.loads(service_config(4))
    assert "(../examples/service-config.json)" in (ROOT / "docs" / "clients.md").read_text()
