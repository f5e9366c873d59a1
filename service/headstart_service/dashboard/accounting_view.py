"""What the live page shows of the ledger: the sums of the namespaces that its viewer may see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..domain import Fate, Ledger


def accounting_view(ledgers: Sequence[Ledger]) -> dict[str, Any] | None:
    """Their sums; None without any. Times are seconds, but for `since_us`.

    `unread` is the share of the settled work's duration that no caller has read. It and `hidden`
    are None before the first read while runs may still be read. A share of what little is settled
    would count all of it as never read. Without work `unread` is None too.
    """
    if not ledgers:
        return None
    compute = {fate: sum(each.fates[fate].compute for each in ledgers) for fate in Fate}
    whole = sum(compute.values())
    unread = sum(seconds for fate, seconds in compute.items() if not fate.used)
    read = any(each.fates[fate].runs for each in ledgers for fate in Fate if fate.used)
    early = not read and any(each.open for each in ledgers)
    return {
        "since_us": min(each.since_us for each in ledgers),
        "starts": sum(each.starts for each in ledgers),
        "joined": sum(each.joined for each in ledgers),
        "reused": sum(each.reused for each in ledgers),
        "open": sum(each.open for each in ledgers),
        "hidden": None if early else sum(each.hidden for each in ledgers),
        "unread": None if early or not whole else unread / whole,
        "runs": {fate.value: sum(each.fates[fate].runs for each in ledgers) for fate in Fate},
    }
