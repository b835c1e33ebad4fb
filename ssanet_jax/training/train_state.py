"""What changes during training."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax


@flax.struct.dataclass
class TrainState:
    """Arrays only: parameters, BatchNorm's running statistics and the optimizer's state.

    Attributes:
      step: int32, optimizer steps taken.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState

    @property
    def variables(self) -> dict[str, Any]:
        """What `model.apply` takes."""
        return {'params': self.params, 'batch_stats': self.batch_stats}


def init_state(
    seed: int, *, model: nn.Module, tx: optax.GradientTransformation, image_size: int
) -> TrainState:
    """The state before the first step; a pure function of the seed."""
    image = jnp.zeros((1, image_size, image_size, 3), jnp.float32)
    variables = model.init(jax.random.key(seed), image, train=False)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables['params'],
        batch_stats=variables.get('batch_stats', {}),
        opt_state=tx.init(variables['params']),
    )
