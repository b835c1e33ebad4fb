"""Learning rate schedules and optimizers, all of them optax's."""

import fnmatch
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from ssanet_jax.config import TrainPlan
from ssanet_jax.errors import ConfigError


def make_schedule(config: ConfigDict, plan: TrainPlan) -> optax.Schedule:
    """Step to learning rate: linear warm-up from 0, then what `config.schedule` says.

    'step' counts its epochs from the start of training, warm-up included; 'cosine' falls
    from the end of the warm-up towards 0, which it would reach one step after the last.

    Args:
      config: `config.optimizer`.
      plan: gives the peak, and epochs in steps.
    """
    peak = plan.peak_learning_rate
    warmup = round(config.warmup_epochs * plan.steps_per_epoch)
    decays = {
        'constant': lambda: optax.constant_schedule(peak),
        'cosine': lambda: optax.cosine_decay_schedule(peak, plan.num_train_steps - warmup),
        'step': lambda: optax.piecewise_constant_schedule(
            peak,
            {
                round(epoch * plan.steps_per_epoch) - warmup: config.decay_factor
                for epoch in config.decay_epochs
            },
        ),
    }
    decay = decays[config.schedule]()
    if not warmup:
        return decay
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), decay], [warmup])


def make_optimizer(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    """`config.optimizer` as optax has it.

    SGD adds weight decay to the gradient before momentum, as torch does and as the
    released recipes assume; AdamW decouples it.
    """
    if config.train_only:
        rest = config.copy_and_resolve_references()
        rest.train_only = ()
        return optax.partition(
            {True: make_optimizer(rest, schedule), False: optax.set_to_zero()},
            partial(trained, patterns=config.train_only),
        )
    mask = {'all': None, 'kernels': kernels}[config.decay_parameters]
    if config.name == 'adamw':
        return optax.adamw(
            schedule, config.b1, config.b2, weight_decay=config.weight_decay, mask=mask
        )
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay, mask),
        optax.sgd(schedule, momentum=config.momentum, nesterov=config.nesterov),
    )


def trained(params: Any, *, patterns: Sequence[str]) -> Any:
    """True for the parameters whose path, as 'layer1_0/ssa/bn/scale', one of `patterns` matches."""

    def matches(path: Any, _: Any) -> bool:
        name = jax.tree_util.keystr(path, simple=True, separator='/')
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

    return jax.tree_util.tree_map_with_path(matches, params)


def check_train_only(config: ConfigDict, params: Any) -> None:
    """Checks that every pattern of `config.train_only` finds a parameter; raises ConfigError."""
    for pattern in config.train_only:
        if not any(jax.tree.leaves(trained(params, patterns=[pattern]))):
            paths = jax.tree_util.tree_leaves_with_path(params)
            names = [jax.tree_util.keystr(path, simple=True, separator='/') for path, _ in paths]
            raise ConfigError(
                f'config.optimizer.train_only has {pattern!r}, which matches no parameter; they '
                f'are called {", ".join(names[-3:])}, ...'
            )


def kernels(params: Any) -> Any:
    """True for the weights of convolutions and dense layers, False for biases and BatchNorm."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == 'kernel', params)
