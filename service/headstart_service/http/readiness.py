"""Whether a process is ready, and in one line what is wrong."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Readiness:
    """What `GET /readyz` answers. A process that is ready may still have something to report."""

    ready: bool
    reason: str = ""
    """What is wrong and what to do, in one line without secrets; empty when all is well."""

    @classmethod
    def without(cls, *problems: str, ready: bool = True) -> Readiness:
        """Ready if `ready` is true and every problem is empty; the first one is the reason."""
        reason = next(filter(None, problems), "")
        return cls(ready and not reason, reason)

    @property
    def line(self) -> str:
        """The answer's text."""
        if self.ready:
            return f"ready, but {self.reason}" if self.reason else "ready"
        return f"not ready: {self.reason}" if self.reason else "not ready"
