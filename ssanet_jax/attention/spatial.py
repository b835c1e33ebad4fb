"""Spatial attention by a 1x1 convolution, the baseline of SSA (the released SSANet code)."""

import flax.linen as nn
import jax

from ssanet_jax import layers
from ssanet_jax.attention import gating


class SpatialBlock(gating.BatchNormBlock):
    """Gates each pixel by its product with a learned direction::

        s[h, w] = <w, x[h, w, :]>                            [N, H, W, 1]
        y       = sigmoid(BatchNorm(s)) * x                  [N, H, W, C], dtype of x

    `SSABlock` with learned weights w instead of the squeeze z of each image: the ablation of the
    squeeze (SSANet, section 2.3). C + 2 parameters; the released code adds a bias, which BatchNorm
    cancels. `gate` is sown.

    Attributes:
      norm, axis_name, momentum, epsilon, train: see `gating.BatchNormBlock`.

    Raises:
      ValueError: x is not 4-D.
      TypeError: x is not floating-point.
    """

    @nn.compact
    def __call__(self, x: jax.Array, train: bool | None = None) -> jax.Array:
        train = nn.merge_param('train', self.train, train)
        layers.require_feature_map(x, 'SpatialBlock')
        s = gating.dense(x.astype(layers.reduction_dtype(x.dtype)), 1, 'conv', bias=False)
        logit = layers.batch_norm(
            s, train=train, name='bn', norm=self.norm_factory, use_fast_variance=False
        )
        return gating.apply_gate(self, nn.sigmoid(logit), x)
