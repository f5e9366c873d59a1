"""Requests out of the contract's descriptors: any field, any value, likely ones more often."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from headstart.v1 import precompute_pb2 as pb
from headstart_service.api.page_token import page_token
from headstart_service.domain import RunKey
from tests.fuzz.victim import METHODS, Call

_DEPTH = 4
"""How deep messages are nested: JSON values may hold each other for ever."""
_WHOLE = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_ENUM: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_SFIXED64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_FIXED64: (0, 2**64 - 1),
}
_TEXTS = [
    *("", " ", "k", "a" * 64, "a" * 65, "a" * 257, "é" * 128, "a" * 5000, "x\n", "\u200b"),
    *("ocean", "Ocean ", "forest", "a\u0300" * 64, "ß" * 64, "İ" * 64, "\x00", "{}", "default:k"),
    *("e" + "\u0301\u0323" * 3000, "\U0010ffff", "\ud7ff", "ﷺ" * 64, "0", "-", "=", ",", "a b"),
    "a\u202eb",
]
_LIKELY: dict[str, list[Any]] = {
    "key": [f"k{number}" for number in range(12)],
    "namespace": ["", "default", "games"],
    "pipeline": ["noop", "chain", "bridging"],
    "anchor": ["ocean", "forest", "castle"],
    "target": ["forest", "river"],
    "recipient_type": [0, 1, 2],
    "statuses": [1, 2, 3, 4, 5],
    "required_steps": ["nothing", "one", "three", "lexical_bridge"],
    "page_token": [
        page_token(RunKey("default", "k3"), 1),
        page_token(RunKey("a", ""), 1),
        "====",
        "AA==",
    ],
    "clue_count": [1, 50, 51, 0],
    "min_revision": [0, 1, 2],
    "seconds": [0, 1, 600, 601, 604800, 2**63 - 1, -(2**63), 315576000001],
    "nanos": [0, 1, 999_999_999, 1_000_000_000, -1, -(2**31)],
    "fields": ["value", "directory"],
    "inputs_json": [
        "",
        '{"value":9007199254740993}',
        '{"value":1e400}',
        '{"value":1,"value":2}',
        '{"value":-0.0,"more":[1.0,NaN]}',
        r'{"value":3,"more":"\ud83c\udf0a\ud800"}',
        '{"value":1,"more":' + "[" * 150 + "]" * 150 + "}",
        '{"value":' + "9" * 700 + "}",
    ],
    "step": ["nothing", "one", "three"],
    "json": ["3", "1.0", '{"a":1,"a":2}', "[NaN]", r'"\udfff"', "[" * 150, "9" * 700, "1 2"],
    "dtype": ["bool", "uint8", "float32", "complex128", "float"],
    "shape": [0, 1, 2, 2**62, -1],
}


def requests() -> SearchStrategy[Call]:
    """A method and a serialized request of it."""
    return st.one_of(
        [
            _message(method.input_type, _DEPTH).map(
                lambda message, name=name: (name, message.SerializeToString())
            )
            for name, method in METHODS.items()
        ]
    )


def _message(descriptor: Descriptor, depth: int) -> SearchStrategy[Message]:
    fields = {
        field.name: _field(field, depth)
        for field in descriptor.fields
        if field.message_type is None or depth > 0
    }

    def build(values: dict[str, Any]) -> Message:
        message: Message = GetMessageClass(descriptor)()
        for name, value in values.items():
            _set(message, name, value)
        return message

    return st.fixed_dictionaries({}, optional=fields).map(build)


def _set(message: Message, name: str, value: Any) -> None:
    if isinstance(value, Message):
        getattr(message, name).CopyFrom(value)
    elif isinstance(value, dict):
        for key, entry in value.items():
            if isinstance(entry, Message):
                getattr(message, name)[key].CopyFrom(entry)
            else:
                getattr(message, name)[key] = entry
    elif isinstance(value, list):
        getattr(message, name).extend(value)
    else:
        setattr(message, name, value)


def _field(field: FieldDescriptor, depth: int) -> SearchStrategy[Any]:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        value, key = kind.fields_by_name["value"], kind.fields_by_name["key"]
        whole = _WHOLE.get(key.type)
        named = st.integers(*whole) if whole else _text(field.name)
        return st.dictionaries(named, _field(value, depth), max_size=3)
    one = _message(kind, depth - 1) if kind is not None else _scalar(field)
    return st.lists(one, max_size=4) if field.is_repeated else one


def _scalar(field: FieldDescriptor) -> SearchStrategy[Any]:
    if field.type == FieldDescriptor.TYPE_STRING:
        return _text(field.name)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=64)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if field.type in _WHOLE:
        low, high = _WHOLE[field.type]
        extreme = st.sampled_from([low, high, max(low, -1), 0, 1])
        return _likely(field.name, extreme | st.integers(low, high))
    return st.floats()


def _text(name: str) -> SearchStrategy[str]:
    return _likely(name, st.sampled_from(_TEXTS) | st.text(max_size=12))


def _likely(name: str, any_value: SearchStrategy[Any]) -> SearchStrategy[Any]:
    likely = _LIKELY.get(name)
    if likely is None:
        return any_value
    # Most must be right, or no request would ever get past its validation.
    return st.integers(0, 9).flatmap(
        lambda number: any_value if number == 0 else st.sampled_from(likely)
    )


def _report() -> pb.ReportStepRequest:
    report = pb.ReportStepRequest(namespace="games", key="k1", revision=1, step="nothing")
    report.artifact.tensor.CopyFrom(pb.Tensor(dtype="float32", shape=[2], data=bytes(8)))
    report.elapsed.nanos = 1_000_000
    return report


def seeds() -> list[Call]:
    """Good requests of every method, to be mutated."""
    start = pb.StartPrecomputeRequest(key="k1", namespace="games", restart=True)
    start.custom.pipeline = "noop"
    start.custom.inputs.update({"value": 3, "more": [1, None, {"deep": "er"}]})
    start.ttl.seconds = 60
    exact = pb.StartPrecomputeRequest(key="k3")
    exact.custom.pipeline = "noop"
    exact.custom.inputs_json = '{"value":9007199254740993,"more":[1.5e3,null,{"d\\u00e9ep":"er"}]}'
    game = pb.StartPrecomputeRequest(key="k2")
    game.bridging.CopyFrom(
        pb.BridgingSpec(anchor="ocean", target="forest", recipient_type=1, clue_count=3)
    )
    get = pb.GetResultsRequest(key="k1", required_steps=["nothing", "one"], min_revision=1)
    get.wait.nanos = 1_000_000
    token = page_token(RunKey("default", "k1"), 1)
    messages: list[tuple[str, Message]] = [
        ("StartPrecompute", start),
        ("StartPrecompute", exact),
        ("StartPrecompute", game),
        ("GetResults", get),
        ("WatchResults", pb.WatchResultsRequest(key="k1")),
        ("GetStatus", pb.GetStatusRequest(namespace="games", key="k1")),
        ("CancelPrecompute", pb.CancelPrecomputeRequest(key="k2")),
        ("DeletePrecompute", pb.DeletePrecomputeRequest(key="k3", revision=1)),
        ("TouchPrecompute", pb.TouchPrecomputeRequest(key="k1", ttl={"seconds": 60})),
        ("ReportStep", _report()),
        (
            "ListPrecomputes",
            pb.ListPrecomputesRequest(page_size=3, page_token=token, statuses=[3, 4]),
        ),
        ("ListPipelines", pb.ListPipelinesRequest()),
        ("GetStats", pb.GetStatsRequest(namespace="games")),
    ]
    return [(name, message.SerializeToString()) for name, message in messages]
