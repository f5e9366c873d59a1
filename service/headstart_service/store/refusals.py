"""Explains why Redis refuses a command, and what its operator does about it."""

from __future__ import annotations

import logging
import re
import time
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
"""How those plain errors begin that pass, or that an operator ends, while callers try again."""
_WHERE: Final = re.compile(r" script: [^:]*@user_script:\d+\.?$")
_ARGUMENTS: Final = re.compile(r",? with args beginning with.*", re.DOTALL)
"""What a server that does not know AUTH repeats: the password."""
_QUIET: Final = 10.0
"""Seconds for which the same reason is logged once."""
_logged: dict[str, float] = {}


def passes(error: BaseException | None) -> bool:
    """Whether the same command may be accepted later: false for a command that is itself wrong."""
    # redis-py has a class of its own for each of the others that pass.
    return type(error) is not ResponseError or _text(error).startswith(_PASSING)


def reason_of(error: BaseException) -> str:
    """Why there is no reply, in one line with the cure, for the log, readiness and the doctor.

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


def report(error: BaseException) -> str:
    """Log the reason of a refusal, at most once in ten seconds; return it."""
    reason = reason_of(error)
    if isinstance(error, (ResponseError, AuthenticationError)):
        now = time.monotonic()
        if now - _logged.get(reason, -_QUIET) >= _QUIET:
            _logged[reason] = now
            log.warning("%s", reason)
    return reason


def _text(error: BaseException) -> str:
    """The server's words, without a command's arguments, the place in a script and the code."""
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
