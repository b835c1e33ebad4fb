"""Initial weights of a run from the file of `config.init`."""

import jax
import numpy as np
from ml_collections import ConfigDict

from ssanet_jax import weights
from ssanet_jax.errors import ConfigError
from ssanet_jax.training.steps import TrainState
from ssanet_jax.training.trainer_setup import TrainerSetup
from ssanet_jax.weights.checkpoint_parts import Say, log


def load_weights(
    config: ConfigDict,
    setup: TrainerSetup,
    state: TrainState,
    say: Say = log,
) -> TrainState:
    """Replaces the variables of `state`, of step 0, by those of `config.init.weights`.

    Layers that are not loaded, such as the last with `config.init.head='new'`, keep their values.

    `say` is called with sentences on what was taken from the file, stripped and ignored.

    Raises:
      ConfigError: there is no such file, or its arrays do not fit the model.
    """
    path, insert = config.init.weights, config.init.attention == 'insert'
    model = weights.without_attention(setup.model) if insert else setup.model
    try:
        variables = weights.from_torch(
            weights.load(path, part=config.init.part, say=say),
            model,
            image_size=setup.image_size,
            head=config.init.head == 'load',
            say=say,
        )
        for name in state.params.keys() - variables['params'].keys():
            variables['params'][name] = jax.device_get(state.params[name])
        if insert:
            variables = weights.insert_attention(
                variables, setup.model, image_size=setup.image_size
            )
    except (ImportError, OSError, ValueError) as error:
        raise ConfigError(f'config.init: {error}') from error
    new = {'batch_stats': {}, **variables}
    return state.map_variables(lambda old: jax.tree.map(_like, old, new))


def _like(old: jax.Array, new: np.ndarray) -> jax.Array:
    """Places `new` as `old`; unlike device_put, which raises, hosts may have different values."""
    return jax.make_array_from_callback(new.shape, old.sharding, new.__getitem__)
