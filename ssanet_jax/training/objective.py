"""What a training step minimizes: losses of a batch, with dropout and mixing by seed and step."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from ssanet_jax.training.losses import LossFn
from ssanet_jax.training.mixing import MixFn, Targets, mix

DATA_AXIS = 'data'

DeviceBatch = Mapping[str, jax.Array]
Preprocess = Callable[[jax.Array], jax.Array]

_MIXING = 2**31 - 1  # takes the place of the step in keys of dropout; no step is as large


def dropout_key(seed: int, step: jax.Array, part: jax.Array | None = None) -> jax.Array:
    """The dropout key of a step, or of a part of its batch, another on each device.

    Call it inside shard_map over 'data'.
    """
    key = jax.random.fold_in(jax.random.key(seed), step)
    key = jax.random.fold_in(key, jax.lax.axis_index(DATA_AXIS))
    return key if part is None else jax.random.fold_in(key, part)


def mixing_key(seed: int, step: jax.Array) -> jax.Array:
    """The key of a step's mixing, the same on all devices."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _MIXING), step)


class Objective(NamedTuple):
    """What training minimizes; a function of the variables, the batch, the seed and the step.

    Attributes:
      model: maps preprocessed images to logits [N, K].
      loss: per example, of logits and label; with `mixing` also of the other label and the weight.
      preprocess: maps the uint8 images to the model's input.
      mixing: draws how images are mixed; by default they are not.
      seed: of dropout and mixing.
    """

    model: nn.Module
    loss: LossFn
    preprocess: Preprocess
    mixing: MixFn | None = None
    seed: int = 0

    def with_partners(self, batch: DeviceBatch) -> dict[str, Any]:
        """Adds to a device's batch what each example is mixed with: the batch in reverse."""
        if self.mixing is None:
            return dict(batch)
        return {**batch, 'partner': {name: array[::-1] for name, array in batch.items()}}

    def __call__(
        self,
        params: Any,
        batch_stats: Any,
        batch: Mapping[str, Any],
        step: jax.Array,
        part: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array, jax.Array, Any]:
        """Applies the model in training mode to a batch of `with_partners`, or to a part of it.

        Returns:
          Losses [N], logits [N, K], labels [N], and the next running statistics.
        """
        key = dropout_key(self.seed, step, part)
        images, label = self.preprocess(batch['image']), batch['label']
        targets: tuple[jax.Array, ...] = (label,)
        if self.mixing is not None:
            partner = batch['partner']
            share, weight = self.mixing(mixing_key(self.seed, step), *images.shape[1:3])
            others = self.preprocess(partner['image'])
            images, weight = mix(share, weight, images, others, partner['mask'])
            targets = mixed = Targets(label, partner['label'], weight)
            label = mixed.dominant_label
        logits: Any
        logits, updates = self.model.apply(
            {'params': params, 'batch_stats': batch_stats},
            images,
            train=True,
            mutable=['batch_stats'],
            rngs={'dropout': key},
        )
        return self.loss(logits, *targets), logits, label, updates.get('batch_stats', {})
