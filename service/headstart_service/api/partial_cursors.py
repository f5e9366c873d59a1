"""Up to where a caller has partial results, as requests name it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ..domain import Cursor, Cursors
from ..domain.errors import Violation
from .request_rules import MAX_REPEATED, repeated_violations

_FIELD: Final = "partial_cursors"


def cursors_by_key(
    request: Any, into: list[Violation], *, many: bool = False
) -> Mapping[str, Cursors]:
    """Return the cursors of each key of a request; append the rules that they break to `into`.

    Those of a request about one key are under the empty key.
    """
    given = request.partial_cursors
    into += repeated_violations(_FIELD, given)
    if given and not request.partial_results:
        into.append(Violation(_FIELD, "must be empty without partial_results"))
    found: dict[str, dict[str, Cursor]] = {}
    for place, each in enumerate(given[:MAX_REPEATED]):
        where = f"{_FIELD}[{place}]"
        if not each.step:
            into.append(Violation(f"{where}.step", "must be given"))
        for name in ("generation", "offset"):
            if (value := getattr(each, name)) < 0:
                into.append(Violation(f"{where}.{name}", f"must be 0 or more, is {value}"))
        if many and each.key not in request.keys:
            into.append(Violation(f"{where}.key", "must be one of keys"))
        elif not many and each.key:
            into.append(Violation(f"{where}.key", "must be empty without keys"))
        found.setdefault(each.key, {})[each.step] = Cursor(each.generation, each.offset)
    return found
