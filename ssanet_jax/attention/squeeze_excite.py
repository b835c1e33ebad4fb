"""Squeeze-and-Excitation (Hu et al. 2018, https://arxiv.org/abs/1709.01507)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssanet_jax import layers
from ssanet_jax.attention import gating


class SEBlock(gating.AttentionBlock):
    """Gates each channel by the means of all channels::

        z = mean_{h,w} x[h, w, :]                            [N, 1, 1, C]
        g = sigmoid(W2 relu(W1 z + b1) + b2)                 [N, 1, 1, C]
        y = g * x                                            [N, H, W, C], dtype of x

    2 C^2 / ratio + C + C / ratio parameters, biases as in timm and the published counts.
    Everything up to the gate runs in float32, or in float64 where x is float64. `gate` is sown,
    [N, 1, 1, C]: apply with mutable=['intermediates'].

    Attributes:
      ratio: C over the number of hidden units, which is C // ratio.

    Raises:
      ValueError: x is not 4-D, or has fewer channels than `ratio`.
      TypeError: x is not floating-point.

    >>> x = jnp.ones((2, 8, 8, 64))
    >>> variables = SEBlock(ratio=16).init(jax.random.key(0), x, train=False)
    >>> sum(p.size for p in jax.tree.leaves(variables))
    580
    """

    ratio: int = 16

    @nn.compact
    def __call__(self, x: jax.Array, train: bool | None = None) -> jax.Array:
        del train  # no BatchNorm
        layers.require_feature_map(x, 'SEBlock')
        hidden = gating.hidden_width('SEBlock', x.shape[-1], self.ratio)
        stats = layers.reduction_dtype(x.dtype)
        z = jnp.mean(x.astype(stats), axis=(1, 2), keepdims=True)  # [N, 1, 1, C]
        gate = nn.sigmoid(gating.excite(z, hidden))
        return gating.apply_gate(self, gate, x)
