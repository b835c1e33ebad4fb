"""BatchNorm with float32 statistics, and what remains of it once folded into a kernel."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssanet_jax.layers.feature_map import reduction_dtype


class BatchNorm(nn.Module):
    """`nn.BatchNorm` over the last axis, computed as x * factor + offset.

        factor = scale / sqrt(var + epsilon)        offset = bias - mean * factor       [C]

    The same parameters, statistics and updates as flax's, whose form (x - mean) * factor + bias
    keeps x - mean for the gradient, one more array as large as x. (Ioffe and Szegedy 2015,
    https://arxiv.org/abs/1502.03167; the running variance is the biased one, as in flax.)

    Attributes:
      use_running_average: normalise by the running statistics, and leave them unchanged.
      momentum: share of the old running statistics that an update keeps.
      epsilon: added to the variance.
      dtype: of the statistics and the result.
      scale_init: of the scale.
      axis_name: mapped axis of the devices that share statistics.
      axis_index_groups: groups of those devices, as in `jax.lax.pmean`.
      use_fast_variance: E[x^2] - E[x]^2 in one pass over x, and one exchange between devices,
        instead of E[(x - E[x])^2] in two.
    """

    use_running_average: bool
    momentum: float = 0.9  # what torch calls 0.1
    epsilon: float = 1e-5
    dtype: jax.typing.DTypeLike = jnp.float32
    scale_init: nn.initializers.Initializer = nn.initializers.ones
    axis_name: str | None = None
    axis_index_groups: Sequence[Sequence[int]] | None = None
    use_fast_variance: bool = True

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises x [..., C]."""
        x = x.astype(self.dtype)
        moments = None
        if not self.use_running_average:
            axes = tuple(range(x.ndim - 1))
            mean = jnp.mean(x, axes)
            if self.use_fast_variance:
                var = jnp.mean(jax.lax.square(x), axes) - mean**2
            else:
                var = jnp.mean(jax.lax.square(x - mean), axes)
            moments = mean, jnp.maximum(var, 0)
        factor, offset = self.affine(x.shape[-1], moments)
        return x * factor + offset

    @nn.compact
    def affine(
        self,
        channels: int,
        moments: tuple[jax.Array, jax.Array] | None,
        shift: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """The factor and offset, [C] each, and an update of the running statistics.

        Args:
          channels: C.
          moments: this device's mean and variance of x, [C] each; None with the running ones.
          shift: the mean, and the x that the offset is for, are relative to this, [C].
        """
        scale = self.param('scale', self.scale_init, (channels,)).astype(self.dtype)
        bias = self.param('bias', nn.initializers.zeros, (channels,)).astype(self.dtype)
        running_mean = self.variable('batch_stats', 'mean', jnp.zeros, (channels,))
        running_var = self.variable('batch_stats', 'var', jnp.ones, (channels,))
        if moments is None:
            mean, var = running_mean.value.astype(self.dtype), running_var.value.astype(self.dtype)
        else:
            shift = jnp.zeros_like(bias) if shift is None else shift
            mean, var = self._over_devices(*moments, shift, running_mean.value)
            if not self.is_initializing():
                for running, new in ((running_mean, mean + shift), (running_var, var)):
                    running.value = self.momentum * running.value + (1 - self.momentum) * new
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        return factor, bias - mean * factor

    def _over_devices(
        self, mean: jax.Array, var: jax.Array, shift: jax.Array, origin: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """The moments over all devices that share them, taken around `origin`.

        Means are relative to `shift`, which is each device's own.
        """
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
    """What remains of a BatchNorm whose factor is in the kernel before it: x + bias.

    For inference with what `inference.fold_batch_norm` makes.

    Attributes:
      use_running_average: must be true.
      dtype: of the result.
    """

    use_running_average: bool
    dtype: jax.typing.DTypeLike = jnp.float32

    def __call__(self, x: jax.Array) -> jax.Array:
        """Adds the bias to x [..., C]."""
        return x.astype(self.dtype) + self.affine(x.shape[-1])[1]

    @nn.compact
    def affine(
        self,
        channels: int,
        moments: tuple[jax.Array, jax.Array] | None = None,
        shift: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Like `BatchNorm.affine`, with the factor 1; raises ValueError for batch moments."""
        if not self.use_running_average or moments is not None or shift is not None:
            raise ValueError(
                'A network with folded BatchNorms has no statistics to train; call it with '
                'train=False, or train the one that it was made from.'
            )
        bias = self.param('bias', nn.initializers.zeros, (channels,)).astype(self.dtype)
        return jnp.ones((), self.dtype), bias


def batch_norm(
    x: jax.Array,
    *,
    train: bool,
    name: str,
    norm: Callable[..., nn.Module] = BatchNorm,
    **options: Any,
) -> jax.Array:
    """Batch-normalises x [..., C] over all other axes in `reduction_dtype`; returns x's dtype.

    Call inside a compact method: `norm`, given `options` too, becomes a submodule called `name`.
    """
    stats = reduction_dtype(x.dtype)
    layer = norm(use_running_average=not train, dtype=stats, name=name, **options)
    return layer(x.astype(stats)).astype(x.dtype)
