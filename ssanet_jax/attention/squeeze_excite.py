"""Squeeze-and-Excitation (Hu et al. 2018, https://arxiv.org/abs/1709.01507)."""

import flax.linen as nn
import jax

from ssanet_jax.attention import gating


class SEBlock(gating.ChannelGateBlock):
    """Gates each channel by the means of all channels::

        z = mean_{h,w} x[h, w, :]                            [N, C]
        g = sigmoid(W2 relu(W1 z + b1) + b2)                 [N, C]
        y = g * x                                            [N, H, W, C], dtype of x

    2 C^2 / ratio + C + C / ratio parameters, biases as in timm and the published counts.
    Everything up to the gate runs in float32, or in float64 where x is float64. `gate` is sown,
    [N, 1, 1, C]: apply with mutable=['intermediates'].

    Attributes:
      ratio: C over the number of hidden units, which is C // ratio.

    Raises:
      ValueError: x is not 4-D, or has fewer channels than `ratio`.
      TypeError: x is not floating-point.

    >>> x = jax.numpy.ones((2, 8, 8, 64))
    >>> variables = SEBlock(ratio=16).init(jax.random.key(0), x, train=False)
    >>> sum(p.size for p in jax.tree.leaves(variables))
    580
    """

    ratio: int = 16

    def gate(self, z: jax.Array) -> jax.Array:
        hidden = gating.hidden_width('SEBlock', z.shape[-1], self.ratio)
        return nn.sigmoid(gating.excite(z, hidden))
