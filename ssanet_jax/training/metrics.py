"""Metrics as sums over examples, which add up exactly over batches and devices."""

import math
from collections.abc import Callable, Mapping

import flax.struct
import jax
import jax.numpy as jnp

MetricFn = Callable[[jax.Array, jax.Array], jax.Array]


def label_rank(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Number of classes ranked before the label, [N]; 0 if it is the prediction.

    Equal logits rank the lower class first, as argmax does. NaN logits rank before all others,
    so a diverged network is never correct. No prediction is correct for a negative label.
    """
    own = jnp.take_along_axis(logits, jnp.maximum(label, 0)[:, None], axis=1)  # [N, 1]
    later = jnp.arange(logits.shape[1], dtype=label.dtype) >= label[:, None]  # [N, K]
    behind = (logits < own) | ((logits == own) & later)
    return jnp.where(label < 0, jnp.iinfo(jnp.int32).max, jnp.sum(~behind, axis=1))


def top1(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Whether the label is the prediction, bool [N]."""
    return label_rank(logits, label) < 1


def top5(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Whether the label is among the five highest logits, bool [N]."""
    return label_rank(logits, label) < 5


#: Computed in training and evaluation: logits [N, K] and labels int [N] to values [N].
METRICS: dict[str, MetricFn] = {'top1': top1, 'top5': top5}


@flax.struct.dataclass
class Metrics:
    """Sums over unmasked examples; `means` divides once at the end.

    Attributes:
      sums: float32 scalars: 'loss', 'num_examples' and each metric. Counts are exact up to 2**24.
      bad_step: int32, the first diverged training step, or 0.
      percentages: metrics of booleans, whose means are percentages.
    """

    sums: dict[str, jax.Array]
    bad_step: jax.Array
    percentages: tuple[str, ...] = flax.struct.field(pytree_node=False)

    @classmethod
    def of(
        cls,
        logits: jax.Array,
        label: jax.Array,
        loss: jax.Array,
        mask: jax.Array,
        metrics: Mapping[str, MetricFn] | None = None,
    ) -> 'Metrics':
        """Sums over a batch: logits [N, K], label int [N], loss [N], mask bool [N].

        Args:
          metrics: per-example functions of logits and label; by default those of `METRICS`.
        """
        metrics = METRICS if metrics is None else metrics
        values = {name: metric(logits, label) for name, metric in metrics.items()}
        sums = {'loss': loss, **values, 'num_examples': jnp.ones_like(mask)}
        return cls(
            {name: jnp.sum(v.astype(jnp.float32), where=mask) for name, v in sums.items()},
            jnp.zeros((), jnp.int32),
            tuple(name for name, v in values.items() if v.dtype == jnp.bool_),
        )

    @classmethod
    def zero(
        cls, metrics: Mapping[str, MetricFn] | None = None, *, num_classes: int = 1000
    ) -> 'Metrics':
        """Sums over no examples."""
        logits = jnp.zeros((1, num_classes))
        batch = logits, jnp.zeros(1, jnp.int32), jnp.zeros(1), jnp.ones(1, bool)
        shapes = jax.eval_shape(lambda: cls.of(*batch, metrics))
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    @property
    def loss(self) -> jax.Array:
        return self.sums['loss']

    @property
    def num_examples(self) -> jax.Array:
        return self.sums['num_examples']

    def __add__(self, other: 'Metrics') -> 'Metrics':
        return Metrics(
            jax.tree.map(jnp.add, self.sums, other.sums),
            jnp.where(self.bad_step > 0, self.bad_step, other.bad_step),
            self.percentages,
        )

    def means(self) -> dict[str, float]:
        """{'loss', 'top1', 'top5', ...} as means or percentages, and 'num_examples'."""
        count = float(self.num_examples) or math.nan  # 0 where all steps were skipped
        scale = dict.fromkeys(self.percentages, 100)
        means = {
            name: scale.get(name, 1) * float(total) / count
            for name, total in self.sums.items()
            if name != 'num_examples'
        }
        return {**means, 'num_examples': int(self.num_examples)}
