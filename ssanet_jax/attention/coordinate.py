"""Coordinate Attention (Hou et al. 2021, https://arxiv.org/abs/2103.02907)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssanet_jax import layers
from ssanet_jax.attention import gating


class CoordinateBlock(gating.BatchNormBlock):
    """Gates each value by its row and its column::

        f = hardswish(BatchNorm(W1 [mean_w x; mean_h x]))    [N, H + W, C']
        a = sigmoid(Wh f[rows]),  b = sigmoid(Ww f[columns]) [N, H, 1, C], [N, 1, W, C]
        y = a * b * x                                        [N, H, W, C], dtype of x

    C' = max(8, C // ratio). The authors' code also gives W1 a bias, which BatchNorm cancels;
    `bias=False` drops those of Wh and Ww, as timm does. `gate` (a b) is sown.

    Attributes:
      ratio: reduction, to max(8, C // ratio) hidden channels.
      bias: whether Wh and Ww have biases.
      norm, axis_name, momentum, epsilon, train: see `gating.BatchNormBlock`.

    Raises:
      ValueError: x is not 4-D, or `ratio` is not above 0.
      TypeError: x is not floating-point.
    """

    ratio: int = 32
    bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool | None = None) -> jax.Array:
        train = nn.merge_param('train', self.train, train)
        layers.require_feature_map(x, 'CoordinateBlock')
        height, channels = x.shape[1], x.shape[3]
        hidden = gating.hidden_width('CoordinateBlock', channels, self.ratio, at_least=8)
        wide = x.astype(layers.reduction_dtype(x.dtype))
        z = jnp.concatenate([jnp.mean(wide, axis=2), jnp.mean(wide, axis=1)], axis=1)  # [N, H+W, C]
        f = gating.dense(z, hidden, 'conv1', bias=False)
        f = nn.hard_swish(layers.batch_norm(f, train=train, name='bn1', norm=self.norm_factory))
        a = nn.sigmoid(gating.dense(f[:, :height], channels, 'conv_h', bias=self.bias))
        b = nn.sigmoid(gating.dense(f[:, height:], channels, 'conv_w', bias=self.bias))
        return gating.apply_gate(self, a[:, :, None] * b[:, None], x)
