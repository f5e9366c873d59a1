"""Ids of runs."""

from __future__ import annotations

import re
from itertools import islice

from headstart_service.store.run_ids import run_ids


def test_ids_are_of_one_form_and_all_different() -> None:
    ids = [*islice(run_ids(), 1000), *islice(run_ids(), 1000)]
    assert len(set(ids)) == 2000
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{12}", each) for each in ids)
