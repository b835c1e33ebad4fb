"""Checkpoint retention: the newest few and the best."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from orbax.checkpoint import checkpoint_managers


def quality(metrics: Mapping[str, Any]) -> tuple[float, float]:
    """Sort key of evaluations: top-1, then the lower loss; a non-finite loss is the worst."""
    loss = metrics['loss']
    return metrics['top1'], -loss if math.isfinite(loss) else -math.inf


class Retention(checkpoint_managers.PreservationPolicy):
    """Keeps the newest `max_to_keep` checkpoints and the best.

    Attributes:
      evaluations: metrics by step; add those of each evaluation.
    """

    def __init__(self, max_to_keep: int):
        self._max_to_keep = max_to_keep
        self.evaluations: dict[int, Mapping[str, Any]] = {}

    def best(self, steps: Sequence[int]) -> int | None:
        """The best evaluated step, the latest of equals; None if none was evaluated."""
        scored = [step for step in steps if step in self.evaluations]
        return max(scored, key=lambda step: (quality(self.evaluations[step]), step), default=None)

    def kept(self, steps: Sequence[int]) -> set[int]:
        """The steps to keep of `steps`."""
        best = self.best(steps)
        return {*sorted(steps)[-self._max_to_keep :], *([] if best is None else [best])}

    def should_preserve(
        self,
        checkpoints: Sequence[checkpoint_managers.PolicyCheckpointInfo],
        *,
        context: checkpoint_managers.PreservationContext,
    ) -> Sequence[bool]:
        """Called by Orbax after each save."""
        kept = self.kept([checkpoint.step for checkpoint in checkpoints])
        return [checkpoint.step in kept for checkpoint in checkpoints]
