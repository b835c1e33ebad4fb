"""Learning rate schedules and optimizers, all of them optax's."""

from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from ssanet_jax.config import Plan


def make_schedule(config: ConfigDict, plan: Plan) -> optax.Schedule:
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
    mask = {'all': None, 'kernels': kernels}[config.decay_parameters]
    if config.name == 'adamw':
        return optax.adamw(
            schedule, config.b1, config.b2, weight_decay=config.weight_decay, mask=mask
        )
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay, mask),
        optax.sgd(schedule, momentum=config.momentum, nesterov=config.nesterov),
    )


def kernels(params: Any) -> Any:
    """True for the weights of convolutions and dense layers, False for biases and BatchNorm."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == 'kernel', params)
