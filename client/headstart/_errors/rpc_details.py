"""Reads the google.rpc details that a Headstart error carries.

They come as a serialized `google.rpc.Status` in the trailing metadata. The messages are described
here a second time because googleapis-common-protos is no dependency of this client. They have a
pool and a name of their own, because a caller may well have it installed. The
same file registered twice in protobuf's default pool is an error. Only the wire format must agree.
So an Any is a pair of strings here, a Duration a pair of numbers and a map a list of entries.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

METADATA_KEY: Final = "grpc-status-details-bin"

_PACKAGE: Final = "headstart.client.details"


@dataclass(frozen=True, slots=True)
class Details:
    """Holds an error's details beside its code and message; a part that was not sent is empty."""

    violations: tuple[tuple[str, str], ...] = ()
    """(field, description) pairs, in the server's order."""
    retry_after: float | None = None
    """Seconds, not negative."""
    metadata: dict[str, str] = field(default_factory=dict)
    """ErrorInfo's metadata."""


def read(trailing_metadata: Iterable[tuple[str, str | bytes]] | None) -> Details:
    """Read the details, as far as they can be read: details that are malformed are left out."""
    for name, value in trailing_metadata or ():
        if name == METADATA_KEY and isinstance(value, bytes):
            return parse(value)
    return Details()


def serialized(
    code: int,
    message: str,
    *,
    violations: Iterable[tuple[str, str]] = (),
    retry_after: float | None = None,
    error_id: str | None = None,
) -> bytes:
    """Return the `google.rpc.Status` with these details for `read`; empty without details."""
    status = _STATUS(code=code, message=message)
    packed = []
    if fields := [_VIOLATION(field=name, description=text) for name, text in violations]:
        packed.append(("BadRequest", _BAD_REQUEST(field_violations=fields)))
    if retry_after is not None:
        info = _RETRY_INFO()
        nanos = round(retry_after * 1e9)
        info.retry_delay.seconds, info.retry_delay.nanos = divmod(nanos, 1_000_000_000)
        packed.append(("RetryInfo", info))
    if error_id is not None:
        info = _ERROR_INFO(reason="INTERNAL", domain="headstart")
        info.metadata.add(key="error_id", value=error_id)
        packed.append(("ErrorInfo", info))
    for name, detail in packed:
        url = f"type.googleapis.com/google.rpc.{name}"
        status.details.add(type_url=url, value=detail.SerializeToString())
    result: bytes = status.SerializeToString() if packed else b""
    return result


def parse(serialized: bytes) -> Details:
    """Read the details of a serialized google.rpc.Status, as far as they can be read."""
    status = _decode(_STATUS, serialized)
    violations: tuple[tuple[str, str], ...] = ()
    retry_after: float | None = None
    metadata: dict[str, str] = {}
    for detail in status.details if status is not None else ():
        match detail.type_url.rpartition("/")[2]:
            case "google.rpc.BadRequest":
                if (bad_request := _decode(_BAD_REQUEST, detail.value)) is not None:
                    violations += tuple(
                        (each.field, each.description) for each in bad_request.field_violations
                    )
            case "google.rpc.RetryInfo":
                if (retry_info := _decode(_RETRY_INFO, detail.value)) is not None:
                    delay = retry_info.retry_delay
                    retry_after = max(0.0, delay.seconds + delay.nanos / 1e9)
            case "google.rpc.ErrorInfo":
                if (error_info := _decode(_ERROR_INFO, detail.value)) is not None:
                    metadata |= {entry.key: entry.value for entry in error_info.metadata}
    return Details(violations, retry_after, metadata)


# A type checker does not know the fields of classes that are made at run time: hence Any.
def _decode(message_class: Any, serialized: bytes) -> Any | None:
    try:
        return message_class.FromString(serialized)
    except DecodeError:
        return None


def _describe() -> FileDescriptorProto:
    text = FieldDescriptorProto.TYPE_STRING
    octets = FieldDescriptorProto.TYPE_BYTES
    int32 = FieldDescriptorProto.TYPE_INT32
    int64 = FieldDescriptorProto.TYPE_INT64
    return FileDescriptorProto(
        name="headstart/client/details.proto",
        package=_PACKAGE,
        syntax="proto3",
        message_type=[
            _message("Any", _field("type_url", 1, text), _field("value", 2, octets)),
            _message(
                "Status",
                _field("code", 1, int32),
                _field("message", 2, text),
                _field("details", 3, "Any", repeated=True),
            ),
            _message("FieldViolation", _field("field", 1, text), _field("description", 2, text)),
            _message("BadRequest", _field("field_violations", 1, "FieldViolation", repeated=True)),
            _message("Duration", _field("seconds", 1, int64), _field("nanos", 2, int32)),
            _message("RetryInfo", _field("retry_delay", 1, "Duration")),
            _message("Entry", _field("key", 1, text), _field("value", 2, text)),
            _message(
                "ErrorInfo",
                _field("reason", 1, text),
                _field("domain", 2, text),
                _field("metadata", 3, "Entry", repeated=True),
            ),
        ],
    )


def _message(name: str, *fields: FieldDescriptorProto) -> DescriptorProto:
    return DescriptorProto(name=name, field=fields)


def _field(
    name: str,
    number: int,
    kind: FieldDescriptorProto.Type.ValueType | str,
    *,
    repeated: bool = False,
) -> FieldDescriptorProto:
    described = FieldDescriptorProto(
        name=name,
        number=number,
        label=FieldDescriptorProto.LABEL_REPEATED
        if repeated
        else FieldDescriptorProto.LABEL_OPTIONAL,
    )
    if isinstance(kind, str):
        described.type = FieldDescriptorProto.TYPE_MESSAGE
        described.type_name = f".{_PACKAGE}.{kind}"
    else:
        described.type = kind
    return described


_POOL: Final = DescriptorPool()
_POOL.AddSerializedFile(_describe().SerializeToString())


def _message_class(name: str) -> Any:
    return GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


_VIOLATION: Final = _message_class("FieldViolation")
_STATUS: Final = _message_class("Status")
_BAD_REQUEST: Final = _message_class("BadRequest")
_RETRY_INFO: Final = _message_class("RetryInfo")
_ERROR_INFO: Final = _message_class("ErrorInfo")
