"""Steps that should not have been: a loss or a gradient that is not finite, or too large."""

from ml_collections import ConfigDict

from ssanet_jax.errors import DivergedError
from ssanet_jax.training.checkpoint import Checkpoints
from ssanet_jax.training.metrics import Metrics


def check_good(total: Metrics, config: ConfigDict, checkpoints: Checkpoints) -> None:
    """Raises DivergedError if a step of `total` was bad."""
    if bad := int(total.bad_step):
        saved = checkpoints.written()
        last = f'that of step {saved[-1]:,}' if saved else 'none'
        raise DivergedError(
            f'At step {bad:,} the loss or the gradient is not finite, or the loss is above '
            f'config.max_loss={config.max_loss:g}. The last good checkpoint in '
            f'{checkpoints.directory} is {last}. Lower config.optimizer.learning_rate, or '
            'begin in a new workdir with --config.max_bad_steps=10, which skips steps that are not '
            'finite; to see which module is first: '
            f'python -m ssanet_jax.tools.nonfinite --workdir={checkpoints.directory.parent}'
        )
