"""Convolutional Block Attention Module (Woo et al. 2018, https://arxiv.org/abs/1807.06521)."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssanet_jax import layers
from ssanet_jax.attention import gating


class CBAMBlock(gating.BatchNormBlock):
    """Gates channels by their means and maxima, then pixels by theirs::

        g = sigmoid(MLP(mean_{h,w} x) + MLP(max_{h,w} x))              [N, 1, 1, C]
        u = g * x                                                      [N, H, W, C]
        m = sigmoid(BatchNorm(conv7x7([mean_c u, max_c u])))           [N, H, W, 1]
        y = m * u                                                      [N, H, W, C], dtype of x

    Both terms share one MLP, SE's, with biases as in the authors' code; `mlp_bias=False` drops
    them, as timm does. Parameters: 2 C^2 / ratio + C + C / ratio + 2 kernel_size^2 + 2.
    `channel/gate` and `spatial/gate` are sown.

    Attributes:
      ratio: the MLP's hidden layer has C // ratio units.
      kernel_size: height and width of the convolution, odd.
      mlp_bias: whether the MLP has biases.
      norm, axis_name, momentum, epsilon, train: see `gating.BatchNormBlock`.

    Raises:
      ValueError: x is not 4-D, has fewer channels than `ratio`, or kernel_size is even.
      TypeError: x is not floating-point.
    """

    ratio: int = 16
    kernel_size: int = 7
    mlp_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool | None = None) -> jax.Array:
        train = nn.merge_param('train', self.train, train)
        layers.require_feature_map(x, 'CBAMBlock')
        wide = x.astype(layers.reduction_dtype(x.dtype))  # so that the result is rounded once
        u = ChannelGate(self.ratio, self.mlp_bias, name='channel')(wide)
        y = SpatialGate(self.kernel_size, self.norm_factory, name='spatial')(u, train=train)
        return y.astype(x.dtype)


class ChannelGate(nn.Module):
    """The channel gate of `CBAMBlock`."""

    ratio: int
    bias: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        hidden = gating.hidden_width('CBAMBlock', x.shape[-1], self.ratio)
        z = jnp.stack([jnp.mean(x, axis=(1, 2)), gating.largest(x, (1, 2))])  # [2, N, C]
        gate = nn.sigmoid(jnp.sum(gating.excite(z, hidden, bias=self.bias), axis=0))  # [N, C]
        return gating.apply_gate(self, gate[:, None, None], x)


class SpatialGate(nn.Module):
    """The spatial gate of `CBAMBlock`."""

    kernel_size: int
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise ValueError(
                f'CBAMBlock(kernel_size={self.kernel_size}) has no center; choose an odd one.'
            )
        z = jnp.stack([jnp.mean(x, axis=-1), gating.largest(x, -1)], axis=-1)  # [N, H, W, 2]
        size, pad = self.kernel_size, self.kernel_size // 2
        conv = nn.Conv(1, (size, size), padding=pad, use_bias=False, dtype=z.dtype, name='conv')
        logit = layers.batch_norm(conv(z), train=train, name='bn', norm=self.norm)  # [N, H, W, 1]
        return gating.apply_gate(self, nn.sigmoid(logit), x)
