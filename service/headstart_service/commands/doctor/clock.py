"""How far a server's clock is from this machine's, by the Date that its HTTP port tells."""

from __future__ import annotations

import http.client
import time
from email.utils import parsedate_to_datetime
from typing import Final

from .report import Check, ok, skip, warn

_NAME: Final = "clock"
_TOO_FAR: Final = 3.0
"""Seconds, one of which is the header's own precision."""


def check_clock(http_address: str, timeout: float) -> Check:
    """Compare the clocks. A server without a Date header is no fault."""
    connection = http.client.HTTPConnection(http_address, timeout=timeout)
    try:
        sent = time.time()
        connection.request("GET", "/livez")
        date = connection.getresponse().getheader("Date")
        received = time.time()
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        return skip(
            _NAME, f"{http_address} tells no time: {why}", "--http HOST:PORT is its HTTP port"
        )
    finally:
        connection.close()
    try:
        # The header has whole seconds, rounded down: half a second later is the best guess.
        server = parsedate_to_datetime(date or "").timestamp() + 0.5
    except ValueError:
        return skip(_NAME, f"{http_address} tells no time")
    return judged(_NAME, server - (sent + received) / 2, "the server's", 0.5 + received - sent)


def judged(name: str, ahead: float, whose: str, error: float) -> Check:
    """A finding about a clock that is `ahead` by so many seconds, give or take `error`."""
    if abs(ahead) > max(_TOO_FAR, error):
        where = "ahead of" if ahead > 0 else "behind"
        return warn(
            name,
            f"{whose} is {abs(ahead):.1f} s {where} this machine's",
            "set both by NTP: ages are shown wrong, and certificates may be refused",
        )
    return ok(name, f"{whose} agrees with this machine's to {max(abs(ahead), error, 0.001):.2g} s")
