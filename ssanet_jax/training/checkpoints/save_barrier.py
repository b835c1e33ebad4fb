"""Makes Orbax's waits between hosts end."""

import sys
from typing import Any

import jax
import orbax.checkpoint as ocp


class SaveBarrier:
    """Where the background saves of all hosts wait for each other.

    Orbax comes here also on a host whose save has failed, and would wait until a time-out for the
    others, which wait for that save. Here it fails at once instead.

    Attributes:
      error: of this host's save.
    """

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self._everyone = set(range(jax.process_count()))

    def __call__(self, *, key: str, timeout_ms: int) -> None:
        if error := sys.exception():  # Orbax is about to raise it
            self.error = error
            raise error
        wait = ocp.multihost.get_barrier_sync_fn(processes=self._everyone)
        wait(key=key, timeout_ms=timeout_ms)

    def options(self) -> dict[str, Any]:
        """Options of a CheckpointManager: JAX's barriers, as collectives would wait forever."""
        if len(self._everyone) == 1:
            return {}
        return {
            'multiprocessing_options': ocp.options.MultiprocessingOptions(
                active_processes=self._everyone
            ),
            'async_options': ocp.AsyncOptions(barrier_sync_fn=self),
        }
