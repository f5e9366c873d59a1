"""What `headstart stats` prints of the ledger."""

from __future__ import annotations

from typing import Any, Final

from ...base.output import spoken, table

_SHORT, _MINUTE, _HOUR = 0.05, 60, 3600


def accounting_text(ledger: Any) -> str:
    """Return a sentence, and a table of the fates. `ledger` is the client's."""
    rows = [("WHAT BECAME OF RUNS", "RUNS", "STEPS", "COMPUTED", "CPU", "TOKENS")]
    rows += [
        (
            *(_NAMES.get(fate, fate), f"{work.runs}", f"{work.steps}"),
            *(duration(work.compute.total_seconds()), duration(work.cpu.total_seconds())),
            f"{work.llm_tokens}",
        )
        for fate, work in sorted(ledger.fates.items(), key=_place)
        if work.runs
    ]
    rows.append(("not known yet", f"{ledger.unsettled}", "", "", "", ""))
    rows.append(("all starts", f"{ledger.starts}", "", "", "", ""))
    sentence = f"{_verdict(ledger)} (since {ledger.since:%Y-%m-%d %H:%M} UTC)"
    more = f"{ledger.joined} more starts joined a run, {ledger.reused} found its result"
    if ledger.llm_cached_tokens:
        more += f"; {ledger.llm_cached_tokens} more tokens came from prompt caches"
    return f"{sentence}\n{more}\n\n{table(rows)}"


def _verdict(ledger: Any) -> str:
    used = any(work.runs for fate, work in ledger.fates.items() if fate.startswith("used_"))
    if ledger.unsettled and not used:
        # While few runs are settled, a share would count all of them as never read.
        return f"no result was read yet; {ledger.unsettled} of {ledger.starts} runs may still be"
    saved = duration(ledger.hidden.total_seconds())
    unread = f"{100 * ledger.unread_share:.0f} % of the work was never read"
    return f"saved {saved} of user waiting; {unread}" if ledger.starts else "nothing was started"


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
    """As people say it, in two units where there are: 3 h 12 min, 4 min 5 s, 12.3 s, 35 ms."""
    if seconds < _SHORT:
        return spoken(seconds) if seconds else "0 s"
    if seconds < _MINUTE - 0.05:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
