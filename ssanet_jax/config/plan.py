"""The numbers of a run that follow from its config and the size of its training split."""

from fractions import Fraction
from typing import NamedTuple

from ml_collections import ConfigDict

from ssanet_jax.errors import ConfigError


class TrainPlan(NamedTuple):
    """When a run trains, evaluates and saves, in steps.

    Training examples are one endless stream, so an epoch, and the interval of whatever happens
    once per epoch, need not be an integer number of steps.
    """

    steps_per_epoch: Fraction
    num_train_steps: int
    eval_every_steps: int | Fraction
    checkpoint_every_steps: int | Fraction
    peak_learning_rate: float
    warmup_steps: int
    cooldown_steps: int

    def evaluates_at(self, step: int) -> bool:
        """Whether to evaluate after this step; the last one always is."""
        due = is_due(step, self.eval_every_steps) or step == self.num_train_steps
        return step > 0 and due

    def saves_at(self, step: int) -> bool:
        """Each evaluation is preceded by a checkpoint; there may be others."""
        return self.evaluates_at(step) or is_due(step, self.checkpoint_every_steps)


def make_plan(config: ConfigDict, num_train_examples: int) -> TrainPlan:
    """Computes the plan of a config; call it after the overrides.

    Raises:
      ConfigError: the warm-up and the cool-down fill the run, or the profile starts after it.
    """
    epoch = Fraction(num_train_examples, config.batch_size)
    steps = config.num_train_steps
    if steps < 0:
        steps = max(1, round(config.num_epochs * epoch))
    warmup = round(config.optimizer.warmup_epochs * epoch)
    if warmup >= steps:
        raise ConfigError(
            f'config.optimizer.warmup_epochs={config.optimizer.warmup_epochs} are {warmup} steps, '
            f'but the run has {steps}; shorten the warm-up or lengthen the run.'
        )
    cooldown = round(config.optimizer.cooldown_epochs * epoch)
    if warmup + cooldown >= steps:
        raise ConfigError(
            f'config.optimizer.cooldown_epochs={config.optimizer.cooldown_epochs} are {cooldown} '
            f'steps, but the run has {steps - warmup} after its warm-up; shorten the cool-down or '
            'lengthen the run.'
        )
    every = config.eval_every_steps if config.eval_every_steps > 0 else epoch
    save = config.checkpoint_every_steps if config.checkpoint_every_steps > 0 else every
    if config.profile_start_step > steps:
        raise ConfigError(
            f'config.profile_start_step={config.profile_start_step} comes after the last step, '
            f'{steps}; choose an earlier one.'
        )
    scale = config.batch_size / config.optimizer.reference_batch_size
    return TrainPlan(
        steps_per_epoch=epoch,
        num_train_steps=steps,
        eval_every_steps=every,
        checkpoint_every_steps=save,
        peak_learning_rate=config.optimizer.learning_rate * scale,
        warmup_steps=warmup,
        cooldown_steps=cooldown,
    )


def is_due(step: int, every: int | Fraction) -> bool:
    """True at the first step at or after each multiple of `every`.

    >>> [step for step in range(1, 10) if is_due(step, Fraction(5, 2))]
    [3, 5, 8]
    """
    return step // every > (step - 1) // every
