"""The two forms of messages, JSON and protobuf's own, and how each is read and written."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.rpc import code_pb2

from ...api.dependencies import LARGE_REQUEST
from ...api.request_rules import request_from
from .errors import Refused
from .json_requests import request_from_json

M = TypeVar("M", bound=Message)

_LARGE_RESPONSE: Final = 8 * 1024
"""Bytes of a message from which on its JSON is written in a thread: that takes milliseconds."""
MAX_JSON: Final = 16 * 1024 * 1024
"""Bytes of a message that JSON is written of: a float of 4 bytes takes 50 on its way."""
_KEPT_BYTES: Final = 16 * 1024 * 1024
_KEPT_ENTRY: Final = 1024 * 1024
_KEPT_FOR: Final = 60.0
"""Seconds: nothing of a run that was deleted may stay for longer."""
_AT_ONCE: Final = 2
"""Large messages that are converted at once: each takes time from all other calls."""


_Response: TypeAlias = tuple[type[Message], bytes]
"""Its class, and it as protobuf serializes it."""


class Codec(Protocol):
    """Reads requests and writes responses in one form."""

    name: str
    """As content types and queries have it."""

    async def decode(self, kind: type[M], data: bytes) -> M:
        """Return the request that `data` holds. Raises InvalidRequest."""
        ...

    async def encode(self, kind: type[Message], data: bytes) -> bytes:
        """Return the form of a serialized message of this kind. Raises Refused if it has none."""
        ...


class ProtoCodec:
    """Messages as protobuf serializes them."""

    name = "proto"

    async def decode(self, kind: type[M], data: bytes) -> M:
        """As `Codec.decode`."""
        return request_from(kind, data)

    async def encode(self, _: type[Message], data: bytes) -> bytes:
        """As `Codec.encode`."""
        return data


class JsonCodec:
    """Messages as JSON; a response that many callers get is converted once."""

    name = "json"

    def __init__(self, kept_bytes: int = _KEPT_BYTES, kept_for: float = _KEPT_FOR) -> None:
        """Keep at most so many bytes of converted responses, each for so many seconds."""
        self._limit, self._kept_for = kept_bytes, kept_for
        self._kept: OrderedDict[_Response, tuple[bytes, asyncio.TimerHandle]] = OrderedDict()
        self.size = 0
        """Bytes that are kept, of both forms."""
        self._large = asyncio.Semaphore(_AT_ONCE)

    async def decode(self, kind: type[M], data: bytes) -> M:
        """As `Codec.decode`."""
        if len(data) <= LARGE_REQUEST:
            return request_from_json(kind, data)
        async with self._large:
            return await asyncio.to_thread(request_from_json, kind, data)

    async def encode(self, kind: type[Message], data: bytes) -> bytes:
        """As `Codec.encode`."""
        if len(data) <= _LARGE_RESPONSE:
            return json_of(kind, data)
        if len(data) > MAX_JSON:
            raise Refused(
                code_pb2.RESOURCE_EXHAUSTED,
                f"the response has {len(data)} bytes, and JSON is written of at most {MAX_JSON}: "
                "ask with application/proto",
                http_status=406,
            )
        if (kept := self._recent(kind, data)) is not None:
            return kept
        async with self._large:
            # A caller before this one may have had the same answer.
            if (kept := self._recent(kind, data)) is not None:
                return kept
            converted = await asyncio.to_thread(json_of, kind, data)
            self._keep(kind, data, converted)
            return converted

    def _recent(self, kind: type[Message], data: bytes) -> bytes | None:
        kept = self._kept.get((kind, data))
        if kept is None:
            return None
        self._kept.move_to_end((kind, data))
        return kept[0]

    def _keep(self, kind: type[Message], data: bytes, converted: bytes) -> None:
        response = (kind, data)
        if len(converted) > _KEPT_ENTRY or response in self._kept:
            return
        timer = asyncio.get_running_loop().call_later(self._kept_for, self._drop, response)
        self._kept[response] = converted, timer
        self.size += len(data) + len(converted)
        while self.size > self._limit:
            self._drop(next(iter(self._kept)))

    def _drop(self, response: _Response) -> None:
        converted, timer = self._kept.pop(response)
        timer.cancel()
        self.size -= len(response[1]) + len(converted)


def json_of(kind: type[Message], data: bytes) -> bytes:
    """Return the JSON of a serialized message."""
    return json_bytes(MessageToDict(kind.FromString(data)))


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """Return compact JSON in UTF-8."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
