"""An exponential moving average of the parameters and of BatchNorm's running statistics."""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, Self

import flax.struct
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from ssanet_jax.config import TrainPlan
from ssanet_jax.training.steps import AverageFn, TrainState, VariablesFn


@flax.struct.dataclass
class AveragedState(TrainState):
    """A training state with averages beside the variables.

    Attributes:
      ema: the averages of `variables`, float32.
    """

    ema: dict[str, Any]

    @classmethod
    def start(cls, state: TrainState) -> Self:
        """Begins averaging at the variables of `state`."""
        parts = {name: getattr(state, name) for name in TrainState.__dataclass_fields__}
        return cls(**parts, ema=jax.tree.map(jnp.copy, state.variables))

    @property
    def eval_states(self) -> Mapping[str, TrainState]:
        raw = TrainState(self.step, self.params, self.batch_stats, self.opt_state)
        return {'': dataclasses.replace(raw, **self.ema), 'raw/': raw}

    def map_variables(self, function: VariablesFn) -> Self:
        return dataclasses.replace(self, **function(self.variables), ema=function(self.ema))


def average(
    state: AveragedState, applied: jax.Array | None = None, *, decay: optax.Schedule
) -> AveragedState:
    """Moves the averages toward the variables after a step, unless `applied` is False::

        ema = ema + (1 - decay(step)) * (variables - ema)

    Equals timm's ModelEmaV3.
    """
    rate = 1 - jnp.asarray(decay(state.step - 1))
    rate = rate if applied is None else jnp.where(applied, rate, 0)
    ema = optax.incremental_update(state.variables, state.ema, rate)
    return dataclasses.replace(state, ema=ema)


def ema_decay(config: ConfigDict, plan: TrainPlan) -> optax.Schedule:
    """Maps a step to the decay of its average: 1 - 1 / h, where h is the horizon in steps.

    It is 0, so that averages equal the variables, until the step after the learning rate's warm-up,
    as with torchvision's recipes, and with `update_after_step` in timm.
    """
    horizon = max(config.ema.horizon * plan.num_train_steps, 1.0)
    return lambda step: jnp.where(step <= plan.warmup_steps, 0.0, 1 - 1 / horizon)


def make_average(config: ConfigDict, plan: TrainPlan) -> AverageFn | None:
    """The averaging of `config.ema`, or None if it is off."""
    if not config.ema.horizon:
        return None
    return partial(average, decay=ema_decay(config, plan))
