"""Explain why Redis refuses a command, and how its operator corrects that."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import Final

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)

log = logging.getLogger(__name__)

LEAST_RIGHTS: Final = "~PREFIX:* &PREFIX:* +@all -@admin -@dangerous +info"
"""The ACL rules of a user that processes connect as; PREFIX is HEADSTART_PREFIX."""
FULL: Final = (
    "Redis' memory is full: raise its maxmemory, or lower HEADSTART_MAX_CACHED_RESULTS and "
    "HEADSTART_MAX_MEMOS"
)
_BUSY: Final = "BUSY"
_SCRIPT_DENIED: Final = "ACL failure in script: "
_PASSING: Final = (_BUSY, _SCRIPT_DENIED, "TRYAGAIN", "CLUSTERDOWN", "MISCONF", "NOREPLICAS")
"""How plain errors begin that pass, or that an operator ends, while callers retry."""
_WHERE: Final = re.compile(r" script: [^:]*@user_script:\d+\.?$")
_ARGUMENTS: Final = re.compile(r",? with args beginning with.*", re.DOTALL)
"""A server without AUTH repeats these: the password."""
_QUIET: Final = 10.0
"""Seconds for which the same reason is logged once."""


def passes(error: BaseException | None) -> bool:
    """Return whether the same command may succeed later: false if the command is wrong."""
    # redis-py has its own exception class for each of the other transient errors.
    return type(error) is not ResponseError or _text(error).startswith(_PASSING)


def reason_of(error: BaseException) -> str:
    """Return one line with the reason for a missing reply, and its cure.

    `error` is one of `connect.AWAY`. The line holds no address, password or key of a caller.
    """
    text = _text(error)
    match error:
        case OutOfMemoryError():
            reason = FULL
        case AuthenticationError():
            reason = _unauthenticated(text)
        case NoPermissionError():
            reason = _denied(text)
        case ReadOnlyError():
            reason = (
                "Redis is a read-only replica (READONLY): HEADSTART_REDIS_URL must name the master"
            )
        case BusyLoadingError():
            reason = "Redis loads its data (LOADING): wait"
        case ResponseError() if text.startswith(_SCRIPT_DENIED):
            reason = _denied(text.removeprefix(_SCRIPT_DENIED))
        case ResponseError() if text.startswith(_BUSY):
            reason = "Redis runs somebody's long script (BUSY): SCRIPT KILL ends it"
        case ResponseError():
            reason = f"Redis refuses: {text}"
        case _:
            reason = f"Redis does not answer: {type(error).__name__}"
    return reason


class RefusalLog:
    """Logs why Redis refuses commands, each reason at most once in ten seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Measure seconds by `clock`."""
        self._clock = clock
        self._logged: dict[str, float] = {}

    def report(self, error: BaseException) -> str:
        """Log the reason of a refusal, unless it was logged lately; return it."""
        reason = reason_of(error)
        if isinstance(error, (ResponseError, AuthenticationError)):
            now = self._clock()
            if now - self._logged.get(reason, -_QUIET) >= _QUIET:
                self._logged[reason] = now
                log.warning("%s", reason)
        return reason

    def clear(self) -> None:
        """Log each reason anew."""
        self._logged.clear()


PROCESS_LOG: Final = RefusalLog()
"""The process's log of refusals."""


def report(error: BaseException) -> str:
    """Log the reason of a refusal in the process's log; return it."""
    return PROCESS_LOG.report(error)


def _text(error: BaseException) -> str:
    """Return the server's message without arguments, place in a script and code."""
    return _WHERE.sub("", _ARGUMENTS.sub("", str(error))).removeprefix("ERR ")


def _denied(text: str) -> str:
    return (
        f"Redis denies a right (NOPERM): {text}; give the user of HEADSTART_REDIS_URL "
        f"{LEAST_RIGHTS} with ACL SETUSER, where PREFIX is HEADSTART_PREFIX"
    )


def _unauthenticated(text: str) -> str:
    if text.startswith("Authentication required"):
        return "Redis asks for a password (NOAUTH): write it into HEADSTART_REDIS_URL"
    return (
        "Redis refuses the user or the password (WRONGPASS): correct HEADSTART_REDIS_URL, or set "
        "the password with ACL SETUSER"
    )
