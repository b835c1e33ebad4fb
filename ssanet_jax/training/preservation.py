"""Which checkpoints stay when one more is written."""

from collections.abc import Callable, Sequence

from orbax.checkpoint import checkpoint_managers


class NewestAndBest(checkpoint_managers.PreservationPolicy):
    """Which checkpoints Orbax is to keep when it has written one more."""

    def __init__(self, wanted: Callable[[Sequence[int]], set[int]]):
        self._wanted = wanted

    def should_preserve(
        self,
        checkpoints: Sequence[checkpoint_managers.PolicyCheckpointInfo],
        *,
        context: checkpoint_managers.PreservationContext,
    ) -> Sequence[bool]:
        wanted = self._wanted([checkpoint.step for checkpoint in checkpoints])
        return [checkpoint.step in wanted for checkpoint in checkpoints]
