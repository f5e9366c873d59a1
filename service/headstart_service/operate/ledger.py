"""What `headstart stats` says of the ledger."""

from __future__ import annotations

from typing import Any, Final

from ..output import table

_MINUTE, _HOUR = 60, 3600


def told(ledger: Any) -> str:
    """A sentence, and a table of the fates. `ledger` is the client's."""
    rows = [("FATE", "RUNS", "STEPS", "COMPUTED", "CPU", "TOKENS")]
    rows += [
        (
            *(_NAMES.get(fate, fate), f"{work.runs}", f"{work.steps}"),
            *(duration(work.compute.total_seconds()), duration(work.cpu.total_seconds())),
            f"{work.llm_tokens}",
        )
        for fate, work in sorted(ledger.fates.items(), key=_place)
    ]
    rows.append(("not known yet", f"{ledger.unsettled}", "", "", "", ""))
    rows.append(("all starts", f"{ledger.starts}", "", "", "", ""))
    saved = duration(ledger.hidden.total_seconds())
    sentence = (
        f"saved {saved} of user waiting; {100 * ledger.unread_share:.0f} % of the work was never "
        f"read (since {ledger.since:%Y-%m-%d %H:%M} UTC)"
    )
    more = f"{ledger.joined} more starts joined a run, {ledger.reused} found its result"
    return f"{sentence}\n{more}\n\n{table(rows)}"


_NAMES: Final = {
    "used_ready": "used, ready",
    "used_waited": "used after a wait",
    "expired": "unused, expired",
    "evicted": "unused, evicted",
}


def _place(item: tuple[str, Any]) -> tuple[int, str]:
    """The used first, then the unused, then what had no chance."""
    fate = item[0]
    return ([*_NAMES].index(fate) if fate in _NAMES else len(_NAMES), fate)


def duration(seconds: float) -> str:
    """As people say it, in two units where there are: 3 h 12 min, 4 min 5 s, 12.3 s."""
    if seconds < _MINUTE - 0.05:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
