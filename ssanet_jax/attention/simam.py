"""SimAM, a parameter-free attention module (Yang et al. 2021, ICML, PMLR 139)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssanet_jax import layers
from ssanet_jax.attention import gating


class SimAMBlock(gating.AttentionBlock):
    """Gates each value by its squared deviation from the mean of its channel::

        d = (x - mean_{h,w} x)^2                             [N, H, W, C]
        v = sum_{h,w} d / (H W - 1)                          [N, 1, 1, C]
        g = sigmoid(d / (4 (v + lambda)) + 1/2)              [N, H, W, C]
        y = g * x                                            [N, H, W, C], dtype of x

    No parameters. Equation 5 of the paper and its listing, except that v is 0 for a map of one
    pixel, where the listing divides by 0. `gate` is sown.

    Attributes:
      regularizer: the paper's lambda.

    Raises:
      ValueError: x is not 4-D.
      TypeError: x is not floating-point.
    """

    regularizer: float = 1e-4

    @nn.compact
    def __call__(self, x: jax.Array, train: bool | None = None) -> jax.Array:
        del train
        layers.require_feature_map(x, 'SimAMBlock')
        wide = x.astype(layers.reduction_dtype(x.dtype))
        d = jnp.square(wide - jnp.mean(wide, axis=(1, 2), keepdims=True))
        others = max(x.shape[1] * x.shape[2] - 1, 1)
        v = jnp.sum(d, axis=(1, 2), keepdims=True) / others  # [N, 1, 1, C]
        return gating.apply_gate(self, nn.sigmoid(d / (4 * (v + self.regularizer)) + 0.5), x)
