"""Steps on a Ray cluster. Ray is an extra: nothing else of the worker imports it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...errors import StartupError, StepFailed
from .perform import Performed, perform

if TYPE_CHECKING:
    from ..meter import Meter
    from ..step import Step

log = logging.getLogger(__name__)


class RayCluster:
    """A connection to Ray, whose nodes must be able to import the pipelines and this package."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        # Tries are counted by the worker, which knows how many the step may have.
        self._perform = ray.remote(max_retries=0)(perform)

    @classmethod
    async def connect(cls, address: str | None) -> RayCluster:
        """Connect to the cluster at `address`; None for what Ray finds itself, or starts here.

        Raises StartupError when Ray is not installed or cannot be reached.
        """
        try:
            import ray  # type: ignore[import-not-found,unused-ignore]  # an extra
        except ImportError as error:
            raise StartupError(
                "a step has runs_on='ray', and Ray is not installed: pip install 'headstart[ray]'"
            ) from error
        try:
            # In a thread: it blocks, and in the main one it would take the signals for itself.
            own: dict[str, Any] = {} if address else {"include_dashboard": False}
            await asyncio.to_thread(
                ray.init,
                address=address,
                configure_logging=False,
                log_to_driver=False,
                **own,
            )
        except Exception as error:
            raise StartupError(f"HEADSTART_RAY_ADDRESS: cannot connect to Ray: {error}") from error
        return cls(ray)

    async def call(self, step: Step, arguments: Mapping[str, Any], meter: Meter) -> Any:
        """Run the step as a task of Ray's. Cancelled, it cancels that task by force.

        Raises StepFailed when Ray loses the task.
        """
        function = step.function
        named = self._perform.options(name=step.name)
        ref = named.remote(function.__module__, function.__qualname__, dict(arguments))
        try:
            done: Performed = await asyncio.wrap_future(ref.future())
        except asyncio.CancelledError:
            log.warning("%s is cancelled on Ray", step.name)
            self._ray.cancel(ref, force=True)
            raise
        except self._ray.exceptions.RayTaskError:
            raise  # what its node cannot import or unpickle: for the log
        except self._ray.exceptions.RayError as error:
            raise StepFailed(f"Ray lost it: {type(error).__name__}") from error
        meter.cpu_seconds += done.cpu_seconds
        return done.result()

    async def aclose(self) -> None:
        """Leave the cluster; one that was started here ends."""
        await asyncio.to_thread(self._ray.shutdown)
