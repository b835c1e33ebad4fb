"""Spatial attention by a 1x1 convolution, which SSA replaces (the released code of SSANet)."""

import flax.linen as nn
import jax

from ssanet_jax import layers
from ssanet_jax.attention import gating


class SpatialBlock(gating.BatchNormBlock):
    """Scales each pixel by how well it agrees with a learned direction.

        s[h, w] = <w, x[h, w, :]>                            [N, H, W, 1]
        y       = sigmoid(BatchNorm(s)) * x                  [N, H, W, C], dtype of x

    `SSABlock` with learned weights w in place of the squeeze z, which differs from image to
    image: the control that shows what the squeeze is worth (SSANet, section 2.3). C + 2
    parameters; the released code adds a bias that BatchNorm cancels. `gate` is sown.

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
