"""Errors of one item of a batch, whose other items may succeed."""

from __future__ import annotations

from google.rpc import code_pb2

from headstart.v1 import precompute_pb2 as pb

from ..domain.errors import HeadstartError
from .status import internal_status, status_of


def error_of(error: Exception) -> pb.Error:
    """Return what a call about this item alone would answer."""
    status = status_of(error) if isinstance(error, HeadstartError) else internal_status(error)
    return pb.Error.FromString(status.SerializeToString())


def late() -> pb.Error:
    """Return the error of an item for which the caller's deadline left no time."""
    text = "the deadline of the call left no time to read this key"
    return pb.Error(code=code_pb2.DEADLINE_EXCEEDED, message=text)
