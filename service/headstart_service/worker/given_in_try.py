"""What a step that streams has given, kept in memory for runs without a store."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from ..domain import PartialForm


@dataclass(slots=True)
class GivenInTry:
    """What a step's present try has given."""

    form: PartialForm
    trial: int
    data: bytearray = field(default_factory=bytearray)

    @property
    def value(self) -> str | list[Any]:
        """Its text or its items."""
        text = self.data.decode(errors="replace")
        if self.form is PartialForm.TEXT:
            return text
        return [json.loads(line) for line in text.split("\n")[:-1]]
