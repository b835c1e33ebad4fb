"""What a run starts from where `config.init` names a file of weights."""

import dataclasses

import jax
from ml_collections import ConfigDict

from ssanet_jax import weights
from ssanet_jax.errors import ConfigError
from ssanet_jax.training.train_state import TrainState
from ssanet_jax.training.trainer_setup import TrainerSetup


def load_weights(config: ConfigDict, run: TrainerSetup, state: TrainState) -> TrainState:
    """`state`, of step 0, with the weights of `config.init.weights`.

    Raises:
      ConfigError: there is no such file, or what it holds does not fit the model.
    """
    path, insert = config.init.weights, config.init.attention == 'insert'
    model = weights.without_attention(run.model) if insert else run.model
    try:
        variables = weights.from_torch(
            weights.load(path),
            model,
            image_size=run.image_size,
            head=config.init.head == 'load',
        )
        variables['params'].setdefault('fc', jax.device_get(state.params['fc']))
        if insert:
            variables = weights.insert_attention(variables, run.model, image_size=run.image_size)
    except (ImportError, OSError, ValueError) as error:
        raise ConfigError(f'config.init: {error}') from error
    loaded = jax.tree.map(
        lambda old, new: jax.device_put(new, old.sharding),
        state.variables,
        {'batch_stats': {}, **variables},
    )
    return dataclasses.replace(state, **loaded)
