"""BatchNorm with float32 statistics, and its form folded into the preceding kernel."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ssanet_jax.layers.by_value import ValueModule
from ssanet_jax.layers.feature_map import reduction_dtype, require_examples


class BatchNorm(ValueModule):
    """`nn.BatchNorm` over the last axis, computed as x * factor + offset::

        factor = scale / sqrt(var + epsilon)        offset = bias - mean * factor       [C]

    Parameters, statistics, updates and the attributes below are flax's, whose form
    (x - mean) * factor + bias keeps x - mean for the gradient, one more array as large as x.
    Statistics are computed in float32, or in float64 where x is float64. (Ioffe and Szegedy 2015,
    https://arxiv.org/abs/1502.03167; the running variance is the biased one, as in flax.)

    Attributes:
      use_running_average: normalize by the running statistics, and leave them unchanged; either
        this or the argument of `__call__` is given.
      momentum: share of the old running statistics kept in an update. 0.9 is torch's 0.1, with
        which the networks here were published; flax's default is 0.99.
      epsilon: added to the variance.
      dtype: of the result; None: promoted from x and `param_dtype`.
      param_dtype: of scale and bias; statistics are float32.
      scale_init: of the scale.
      axis_name: mapped axis of the devices that share statistics.
      axis_index_groups: groups of those devices, as in `jax.lax.pmean`.
      use_fast_variance: E[x^2] - E[x]^2 in one pass over x, and one all-reduce,
        instead of E[(x - E[x])^2] in two.

    One pass loses precision where means exceed deviations. The largest error of a normalized value,
    x float32 [32, 16, 16, 64] against float64, by jax 0.10 and torch on a CPU::

        mean / deviation      1        10       100      1,000    10,000
        one pass              1e-6     6e-5     6e-3     0.5      1e3
        two passes            5e-7     1e-6     2e-5     9e-5     2e-3
        torch 2.13            9e-6     4e-5     3e-4     3e-3     4e-2

    Two passes make a BatchNorm between two ReLUs and its gradient move 17 arrays of the size of x,
    not 12, and take 1.6 times as long on a CPU; one pass over x less its running mean moves 14. So
    one pass is the default, and `create_model(..., norm_options={'use_fast_variance': False})`
    asks for two.

    >>> x = jnp.ones((2, 8, 8, 3))
    >>> variables = BatchNorm().init(jax.random.key(0), x, use_running_average=True)
    >>> BatchNorm(use_running_average=True).apply(variables, x).shape
    (2, 8, 8, 3)
    """

    use_running_average: bool | None = None
    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: jax.typing.DTypeLike | None = None
    param_dtype: jax.typing.DTypeLike = jnp.float32
    scale_init: nn.initializers.Initializer = nn.initializers.ones
    axis_name: str | None = None
    axis_index_groups: Sequence[Sequence[int]] | None = None
    use_fast_variance: bool = True

    def __call__(self, x: jax.Array, use_running_average: bool | None = None) -> jax.Array:
        """Normalizes x [..., C]; raises ValueError for statistics of an empty batch."""
        running = nn.merge_param(
            'use_running_average', self.use_running_average, use_running_average
        )
        dtype = self.dtype or np.promote_types(x.dtype, self.param_dtype)
        x = x.astype(reduction_dtype(x.dtype))
        moments = None
        if not running:
            require_examples(x)
            axes = tuple(range(x.ndim - 1))
            mean = jnp.mean(x, axes)
            if self.use_fast_variance:
                var = jnp.mean(jax.lax.square(x), axes) - mean**2
            else:
                var = jnp.mean(jax.lax.square(x - mean), axes)
            moments = mean, jnp.maximum(var, 0)
        factor, offset = self.affine(x.shape[-1], moments)
        return (x * factor.astype(x.dtype) + offset.astype(x.dtype)).astype(dtype)

    @nn.compact
    def affine(
        self,
        channels: int,
        moments: tuple[jax.Array, jax.Array] | None,
        shift: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Factor and offset, [C] each; updates the running statistics if `moments` are given.

        Args:
          channels: C.
          moments: this device's mean and variance of x, [C] each; None: the running statistics.
          shift: constant [C] subtracted from x before `moments` were taken, and before the offset
            is added.
        """
        scale = self.param('scale', self.scale_init, (channels,), self.param_dtype)
        bias = self.param('bias', nn.initializers.zeros, (channels,), self.param_dtype)
        stats = moments[0].dtype if moments else reduction_dtype(self.dtype or scale.dtype)
        scale, bias = scale.astype(stats), bias.astype(stats)
        running_mean = self.variable('batch_stats', 'mean', jnp.zeros, (channels,), jnp.float32)
        running_var = self.variable('batch_stats', 'var', jnp.ones, (channels,), jnp.float32)
        if moments is None:
            mean, var = running_mean.value.astype(stats), running_var.value.astype(stats)
        else:
            shift = jnp.zeros_like(bias) if shift is None else shift
            mean, var = self._over_devices(*moments, shift, running_mean.value)
            if not self.is_initializing():
                for running, new in ((running_mean, mean + shift), (running_var, var)):
                    new = self.momentum * running.value + (1 - self.momentum) * new
                    running.value = new.astype(running.value.dtype)
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        return factor, bias - mean * factor

    def _over_devices(
        self, mean: jax.Array, var: jax.Array, shift: jax.Array, origin: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Averages the moments over the devices, around `origin`; `shift` may differ by device."""
        if self.axis_name is None or self.is_initializing():
            return mean, var
        groups = self.axis_index_groups
        if not self.use_fast_variance:
            origin = jax.lax.pmean(mean + shift, self.axis_name, axis_index_groups=groups)
        offset = mean + shift - origin
        both = jnp.stack([offset, var + offset**2])
        common, second = jax.lax.pmean(both, self.axis_name, axis_index_groups=groups)
        return mean + (common - offset), jnp.maximum(second - common**2, 0)


class FoldedBatchNorm(nn.Module):
    """A BatchNorm whose factor has been multiplied into the preceding kernel: x + bias.

    For inference; `models.batch_norm_folding.fold_batch_norm` makes its variables.

    Attributes:
      use_running_average: must be true; either this or the argument of `__call__` is given.
      dtype: of the result; None: promoted from x and the bias.
    """

    use_running_average: bool | None = None
    dtype: jax.typing.DTypeLike | None = None

    def __call__(self, x: jax.Array, use_running_average: bool | None = None) -> jax.Array:
        """Adds the bias to x [..., C]."""
        running = nn.merge_param(
            'use_running_average', self.use_running_average, use_running_average
        )
        if not running:
            raise ValueError(_CANNOT_TRAIN)
        _, bias = self.affine(x.shape[-1])
        dtype = self.dtype or np.promote_types(x.dtype, bias.dtype)
        return x.astype(dtype) + bias.astype(dtype)

    @nn.compact
    def affine(
        self,
        channels: int,
        moments: tuple[jax.Array, jax.Array] | None = None,
        shift: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Like `BatchNorm.affine`, with the factor 1; raises ValueError for batch moments."""
        if moments is not None or shift is not None:
            raise ValueError(_CANNOT_TRAIN)
        bias = self.param('bias', nn.initializers.zeros, (channels,), jnp.float32)
        bias = bias.astype(reduction_dtype(self.dtype or bias.dtype))
        return jnp.ones((), bias.dtype), bias


_CANNOT_TRAIN = (
    'A network with folded BatchNorms has no statistics to train; call it with train=False, or '
    'train the network that it was made from.'
)


def batch_norm(
    x: jax.Array,
    *,
    train: bool,
    name: str,
    norm: Callable[..., nn.Module] = BatchNorm,
    **options: Any,
) -> jax.Array:
    """Applies BatchNorm to x [..., C] in `reduction_dtype` and returns the dtype of x.

    Call inside a compact method: `norm`, given `options` too, becomes a submodule called `name`.
    """
    stats = reduction_dtype(x.dtype)
    layer = norm(use_running_average=not train, dtype=stats, name=name, **options)
    return layer(x.astype(stats)).astype(x.dtype)
