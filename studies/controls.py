"""Gates that cannot do what SSA's gate does, for comparison with it.

The third control is `SpatialBlock`: a learned direction in place of the channel means.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ssanet_jax import layers
from ssanet_jax.attention import SSABlock, gating


class ConstantGate(gating.AttentionBlock):
    """Scales x by one learned number: a gate that does not depend on x.

        y = gate_scale * sigmoid(b) * x                      [N, H, W, C], dtype of x

    b starts at 0, which halves x if gate_scale is 1. `gate` is sown, [N, 1, 1, 1].

    Raises:
      ValueError: x is not 4-D.
      TypeError: x is not floating-point.
    """

    gate_scale: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool | None = None) -> jax.Array:
        del train  # no BatchNorm
        layers.require_feature_map(x, 'ConstantGate')
        b = self.param('b', nn.initializers.zeros, ())
        gate = self.gate_scale * nn.sigmoid(b.astype(layers.reduction_dtype(x.dtype)))
        return gating.apply_gate(self, jnp.broadcast_to(gate, (len(x), 1, 1, 1)), x)


class FixedGate(gating.AttentionBlock):
    """Scales x by `factor`, without parameters; `gate` is sown, [N, 1, 1, 1].

    Raises:
      ValueError: x is not 4-D.
      TypeError: x is not floating-point.
    """

    factor: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool | None = None) -> jax.Array:
        del train  # no BatchNorm
        layers.require_feature_map(x, 'FixedGate')
        gate = jnp.full((len(x), 1, 1, 1), self.factor, layers.reduction_dtype(x.dtype))
        return gating.apply_gate(self, gate, x)


class ShuffledSSA(SSABlock):
    """`SSABlock` with each pixel's saliency moved to another pixel.

    The gate keeps its values, and their distribution in each image, but not their places. The
    permutation is one cycle through all pixels, so that none keeps its own saliency. It is the
    same for all images and steps, and for all blocks with `seed` and H * W pixels.

    Attributes:
      seed: of the permutation.
      others: see `SSABlock`.
    """

    seed: int = 0

    def logit(self, s: jax.Array, *, train: bool) -> jax.Array:
        """BatchNorm of the permuted s [N, H, W, G]; sows `saliency`, permuted too, and `gate`."""
        n, h, w, g = s.shape
        order = np.random.default_rng(self.seed).permutation(h * w)
        source = np.empty_like(order)
        source[order] = np.roll(order, 1)  # each pixel takes from the one before it in the cycle
        shuffled = s.reshape(n, h * w, g)[:, source].reshape(s.shape)
        return super().logit(shuffled, train=train)
