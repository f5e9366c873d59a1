"""Jobs that a worker leaves to their leases, because the store is away."""

from __future__ import annotations

import logging

from ..domain import Job
from ..domain.errors import StoreUnavailable
from ..domain.log_fields import fields

log = logging.getLogger(__name__)


def log_left_alone(job: Job, error: StoreUnavailable) -> None:
    """Log a job whose lease will run out. The next worker keeps the steps that were committed."""
    log.warning("%s left alone: %s", job.key, error, extra=fields("run.left", job.key, run=job.run))
