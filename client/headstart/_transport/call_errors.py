"""Errors of calls: of gRPC's, translated, and of a fork that comes between."""

from __future__ import annotations

import time

import grpc

from headstart._errors import DeadlineExceeded, HeadstartError, cause_of, from_rpc_error


class Rested(HeadstartError):
    """The channel was closed for a fork during this call, or may not be opened now: call again."""


def check_time(ends: float) -> None:
    """Raise DeadlineExceeded once `ends` has come, in seconds of the monotonic clock."""
    if time.monotonic() >= ends:
        raise DeadlineExceeded("this process forked, and no time was left to call again")


def translated(error: grpc.RpcError) -> HeadstartError:
    """Return our error for gRPC's, with its cause."""
    ours = from_rpc_error(error)
    ours.__cause__ = cause_of(ours, error)
    ours.__suppress_context__ = True
    return ours
