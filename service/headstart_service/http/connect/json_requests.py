"""Requests as JSON: every violation at once, by the path of its field as over gRPC.

protobuf's own parser stops at the first one, often without its path, and takes some wrong types.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from typing import Any, Final, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from headstart._for_service import NotJson, parse_json

from ...api.request_rules import MAX_REPEATED
from ...domain.errors import InvalidRequest, Violation

M = TypeVar("M", bound=Message)

_MOST: Final = 100
"""Violations after which a request is read no further."""
_SHOWN: Final = 60
_WHOLE: Final = re.compile(r"-?[0-9]{1,20}")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]*={0,2}")
_UNICODE: Final = "must be text without lone surrogates"
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?|NaN|-?Infinity")
_RANGES: Final = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_FLOATS: Final = {
    FieldDescriptor.CPPTYPE_FLOAT: (float.fromhex("0x1.fffffep+127"), "a float"),
    FieldDescriptor.CPPTYPE_DOUBLE: (sys.float_info.max, "a double"),
}
"""The greatest number of a kind, and the kind's name."""
_NUMBERS: Final = {*_RANGES, *_FLOATS}
"""Lists of these have limits of their own, such as those of a report's samples."""
_DURATION: Final = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,9})?s")
_DEPTH: Final = 100
"""Objects and lists inside each other in a Struct: protobuf reads none that nests as deep."""


def request_from_json(kind: type[M], data: bytes) -> M:
    """Return the request that `data` holds. Raises InvalidRequest with every violation."""
    value = _parsed(data)
    violations: list[Violation] = []
    descriptor: Any = kind.DESCRIPTOR
    _check_message(value, descriptor, "", violations)
    if violations:
        raise InvalidRequest(violations)
    try:
        return ParseDict(value, kind())
    except (ParseError, ValueError, TypeError, OverflowError, RecursionError) as error:
        # Its message may quote the whole request.
        reason = "nests too deep" if _is_deep(error) else "is not what its fields take"
        raise _invalid(f"must be the JSON of {kind.DESCRIPTOR.full_name}: {reason}") from error


def _parsed(data: bytes) -> Any:
    try:
        # Of a number beyond all doubles the field reports the rule, by its path.
        return parse_json(data.decode("utf-8"), any_double=True)
    except UnicodeDecodeError as error:
        raise _invalid(f"must be UTF-8, is not at byte {error.start}") from error
    except NotJson as error:
        raise _invalid(str(error)) from error


def _is_deep(error: Exception) -> bool:
    return isinstance(error, RecursionError) or "too deep" in str(error)


def _invalid(rule: str) -> InvalidRequest:
    return InvalidRequest([Violation("request", rule)])


def _check_message(value: Any, kind: Descriptor, path: str, into: list[Violation]) -> None:
    if not isinstance(value, dict):
        into.append(Violation(path or "request", f"must be a JSON object, is {_shown(value)}"))
        return
    names = kind.fields_by_camelcase_name
    seen: dict[str, str] = {}
    for name, given in value.items():
        if len(into) >= _MOST:
            return
        # The descriptor's maps encode what they look up.
        named = _SURROGATE.search(name) is None
        field = (names.get(name) or kind.fields_by_name.get(name)) if named else None
        if field is None:
            known = ", ".join(names) or "none"
            rule = f"is no field of {kind.full_name}, which has: {known}"
            into.append(Violation(_joined(path, _clipped(name)), rule))
            continue
        if given is None and _full_name(field) != "google.protobuf.Value":
            continue
        group = field.containing_oneof
        slot = group.name if group is not None else field.name
        if slot in seen:
            rule = f"must be given once, has {seen[slot]} and {_clipped(name)}"
            into.append(Violation(_joined(path, slot), rule))
        seen[slot] = name
        _check_field(given, field, _joined(path, field.name), into)


def _check_field(value: Any, field: FieldDescriptor, path: str, into: list[Violation]) -> None:
    if _is_map(field):
        pair: Any = field.message_type
        entry = pair.fields_by_name["value"]
        _check_map(value, entry, path, into)
    elif field.is_repeated:
        if not isinstance(value, list):
            into.append(Violation(path, f"must be a list, is {_shown(value)}"))
            return
        if field.cpp_type not in _NUMBERS and len(value) > MAX_REPEATED:
            # Before its entries are read: each takes a microsecond from all other calls.
            into.append(Violation(path, f"must be at most {MAX_REPEATED}, are {len(value)}"))
            return
        for i, each in enumerate(value):
            if len(into) >= _MOST:
                return
            _check_value(each, field, f"{path}[{i}]", into)
    else:
        _check_value(value, field, path, into)


def _check_map(value: Any, entry: FieldDescriptor, path: str, into: list[Violation]) -> None:
    if not isinstance(value, dict):
        into.append(Violation(path, f"must be a JSON object, is {_shown(value)}"))
        return
    for name, each in value.items():
        if len(into) >= _MOST:
            return
        _check_value(each, entry, f"{path}[{_clipped(name)}]", into)


def _check_value(value: Any, field: FieldDescriptor, path: str, into: list[Violation]) -> None:
    if field.message_type is not None and _full_name(field) not in _WELL_KNOWN:
        _check_message(value, field.message_type, path, into)
        return
    rule = _broken_rule(value, field)
    if rule is not None:
        into.append(Violation(path, f"{rule}, is {_shown(value)}"))
    elif _full_name(field) in _PLAIN:
        _check_plain(value, path, 0, into)


def _check_plain(value: Any, path: str, depth: int, into: list[Violation]) -> None:
    """Check a value of a Struct; names and places continue its path."""
    if len(into) >= _MOST or depth > _DEPTH:
        return
    if isinstance(value, str):
        if _SURROGATE.search(value):
            into.append(Violation(path, f"{_UNICODE}, is {_shown(value)}"))
    elif isinstance(value, dict):
        for name, each in value.items():
            if _SURROGATE.search(name):
                into.append(Violation(path, f"must have names in Unicode text, has {_shown(name)}"))
            else:
                _check_plain(each, _joined(path, _clipped(name)), depth + 1, into)
    elif isinstance(value, list):
        for place, each in enumerate(value):
            _check_plain(each, f"{path}.{place}", depth + 1, into)
    elif _is_number(value) and (rule := _float_rule(value, FieldDescriptor.CPPTYPE_DOUBLE)):
        into.append(Violation(path, f"{rule}, is {_shown(value)}"))


def _broken_rule(value: Any, field: FieldDescriptor) -> str | None:  # noqa: PLR0911  # one kind a line
    """Return the rule of the field's type that a value breaks; None if it breaks none."""
    if field.message_type is not None:
        return _WELL_KNOWN[_full_name(field)](value)
    kind = field.cpp_type
    if kind in _RANGES:
        return _whole_rule(value, *_RANGES[kind])
    if kind in _FLOATS:
        return _float_rule(value, kind)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return None if isinstance(value, bool) else "must be true or false"
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return _enum_rule(value, field)
    if field.type == FieldDescriptor.TYPE_BYTES:
        valid = isinstance(value, str) and _BASE64.fullmatch(value)
        whole = valid and len(value.rstrip("=")) % 4 != 1
        return None if whole else "must be text in base 64"
    if isinstance(value, str):
        return _UNICODE if _SURROGATE.search(value) else None
    return "must be text"


def _float_rule(value: Any, kind: int) -> str | None:
    if isinstance(value, str):
        if not _NUMBER.fullmatch(value):
            return "must be a number"
        if value.lstrip("-") in ("NaN", "Infinity"):
            return None  # as JSON for protobuf has them; the method decides
    elif not _is_number(value):
        return "must be a number"
    greatest, name = _FLOATS[kind]
    try:
        within = abs(float(value)) <= greatest
    except OverflowError:  # an integer of hundreds of digits
        within = False
    return None if within else f"must be a number within the range of {name}"


def _whole_rule(value: Any, low: int, high: int) -> str | None:
    if isinstance(value, str):
        whole = _WHOLE.fullmatch(value) is not None
    else:
        whole = _is_number(value) and value == value // 1
    if whole and low <= int(value) <= high:
        return None
    return f"must be a whole number from {low} to {high}"


def _enum_rule(value: Any, field: FieldDescriptor) -> str | None:
    kind: Any = field.enum_type
    if isinstance(value, str):
        valid = _SURROGATE.search(value) is None and value in kind.values_by_name
    else:
        valid = _is_number(value) and isinstance(value, int) and value in kind.values_by_number
    return None if valid else f"must be one of {', '.join(kind.values_by_name)}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _parses(kind: type[Any], rule: str) -> Callable[[Any], str | None]:
    def check(value: Any) -> str | None:
        if not isinstance(value, str):
            return rule
        try:
            kind().FromJsonString(value)
        except (ValueError, OverflowError):
            return rule
        return None

    return check


def _struct_rule(value: Any) -> str | None:
    return None if isinstance(value, dict) else "must be a JSON object"


def _list_rule(value: Any) -> str | None:
    return None if isinstance(value, list) else "must be a list"


def _duration_rule(value: Any) -> str | None:
    # Python's own parser also takes spaces, underscores and digits of other scripts.
    if isinstance(value, str) and not _DURATION.fullmatch(value):
        return _SECONDS
    return _parses(Duration, _SECONDS)(value)


_SECONDS: Final = 'must be seconds as text, such as "1.5s"'
_PLAIN: Final = ("google.protobuf.Struct", "google.protobuf.ListValue", "google.protobuf.Value")
"""Kinds that hold any JSON."""
_WELL_KNOWN: Final[dict[str, Callable[[Any], str | None]]] = {
    "google.protobuf.Duration": _duration_rule,
    "google.protobuf.Timestamp": _parses(
        Timestamp, 'must be a time as text, such as "2026-01-31T12:00:00Z"'
    ),
    "google.protobuf.Struct": _struct_rule,
    "google.protobuf.ListValue": _list_rule,
    "google.protobuf.Value": lambda _: None,
}


def _full_name(field: FieldDescriptor) -> str:
    name: str = "" if field.message_type is None else field.message_type.full_name
    return name


def _is_map(field: FieldDescriptor) -> bool:
    kind = field.message_type
    return kind is not None and kind.has_options and bool(kind.GetOptions().map_entry)


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _shown(value: Any) -> str:
    """Return the beginning of a value, as JSON."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        value = _clipped(value)
    return json.dumps(value)[: _SHOWN + 2]


def _clipped(text: str) -> str:
    text = _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text[: _SHOWN + 1])
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
