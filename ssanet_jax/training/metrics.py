"""Metrics as sums over examples, so that they add up exactly over batches and devices."""

import dataclasses
import math

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Metrics:
    """Sums over unmasked examples, float32 scalars; `means` divides once at the end.

    Counts are exact up to 2**24.

    Attributes:
      bad_step: of training steps, the first that should not have been; 0: none.
    """

    loss: jax.Array
    top1: jax.Array
    top5: jax.Array
    num_examples: jax.Array
    bad_step: jax.Array

    @classmethod
    def zero(cls) -> 'Metrics':
        # A buffer each: they are donated.
        return cls(*(jnp.zeros((), jnp.float32) for _ in range(5)))

    @classmethod
    def of(cls, logits: jax.Array, label: jax.Array, loss: jax.Array, mask: jax.Array) -> 'Metrics':
        """Sums over a batch: logits [N, K], label [N], loss [N], mask bool [N]."""
        rank = label_rank(logits, label)

        def total(values: jax.Array) -> jax.Array:
            return jnp.sum(values.astype(jnp.float32), where=mask)

        return cls(
            total(loss),
            total(rank < 1),
            total(rank < 5),
            total(jnp.ones_like(mask)),
            jnp.zeros((), jnp.float32),
        )

    def __add__(self, other: 'Metrics') -> 'Metrics':
        both = jax.tree.map(jnp.add, self, other)
        first = jnp.where(self.bad_step > 0, self.bad_step, other.bad_step)
        return dataclasses.replace(both, bad_step=first)

    def sums(self) -> dict[str, jax.Array]:
        """What a checkpoint holds of them, taken between steps that were all good."""
        return {name: getattr(self, name) for name in ('loss', 'top1', 'top5', 'num_examples')}

    def means(self) -> dict[str, float]:
        """{'loss', 'top1', 'top5'} as means, accuracies in percent, and 'num_examples'."""
        count = float(self.num_examples) or math.nan  # where all steps were skipped
        return {
            'loss': float(self.loss) / count,
            'top1': 100 * float(self.top1) / count,
            'top5': 100 * float(self.top5) / count,
            'num_examples': int(self.num_examples),
        }


def label_rank(logits: jax.Array, label: jax.Array) -> jax.Array:
    """How many classes come before the label, [N]; 0 where it is the prediction.

    Of equal logits the lower class comes first, as in argmax. A class whose logit is not
    a number comes before every other, so that a diverged network is never right. Nothing is
    right for a negative label.
    """
    own = jnp.take_along_axis(logits, jnp.maximum(label, 0)[:, None], axis=1)  # [N, 1]
    later = jnp.arange(logits.shape[1]) >= label[:, None]  # [N, K]
    behind = (logits < own) | ((logits == own) & later)
    return jnp.where(label < 0, jnp.iinfo(jnp.int32).max, jnp.sum(~behind, axis=1))
