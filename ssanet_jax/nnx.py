"""The SSA block as a `flax.nnx` module."""

from typing import Literal

import jax
from flax import nnx

from ssanet_jax import layers
from ssanet_jax.attention import gating, ssa


class SSABlock(nnx.Module):
    """`attention.SSABlock` for NNX models; the formula and the options are explained there.

    Its parameters `bn.scale`, `bn.bias` and statistics `bn.mean`, `bn.var`, [num_groups] each, are
    named as in the linen block. `bn` is an `nnx.BatchNorm`, so `model.train()` and `model.eval()`
    choose batch or running statistics.

    Args:
      squeeze, combine, num_groups, gate_scale, zero_init, axis_name, momentum, epsilon: as in
        `attention.SSABlock`, with the same defaults.
      rngs: whose stream `params` initializes the parameters.

    Raises:
      ValueError: x is not 4-D, `num_groups` does not divide C, or an option is unknown.
      TypeError: x is not floating-point.

    >>> block = SSABlock(rngs=nnx.Rngs(0))
    >>> block(jax.numpy.ones((2, 8, 8, 64))).shape
    (2, 8, 8, 64)
    """

    def __init__(
        self,
        *,
        squeeze: Literal['mean', 'max'] = 'mean',
        combine: Literal['sum', 'mean'] = 'sum',
        num_groups: int = 1,
        gate_scale: float = 1.0,
        zero_init: bool = False,
        axis_name: str | None = None,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        rngs: nnx.Rngs,
    ) -> None:
        ssa.require_choices(squeeze, combine)
        self.squeeze, self.combine = squeeze, combine
        self.num_groups, self.gate_scale = num_groups, gate_scale
        self.bn = nnx.BatchNorm(
            num_groups,
            momentum=momentum,
            epsilon=epsilon,
            scale_init=nnx.initializers.zeros if zero_init else nnx.initializers.ones,
            axis_name=axis_name,
            use_fast_variance=False,  # see `attention.SSABlock.logit`
            rngs=rngs,
        )

    def saliency(self, x: jax.Array) -> jax.Array:
        """The map s [N, H, W, G] that the gate is computed from."""
        return ssa.saliency(self._split(x), self.squeeze, self.combine)

    def gate(self, x: jax.Array) -> jax.Array:
        """The factor of x, [N, H, W, G]; updates the running statistics in training mode."""
        return self.gate_scale * nnx.sigmoid(self.bn(self.saliency(x)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Multiplies x [N, H, W, C] by its gate; the result has the dtype of x."""
        grouped = self._split(x)
        # From the cast values, so that gradients of a bfloat16 x add up in float32.
        gate = self.gate(grouped.reshape(x.shape))
        return ssa.scale_groups(grouped, gate).astype(x.dtype)

    def _split(self, x: jax.Array) -> jax.Array:
        layers.require_feature_map(x, 'SSABlock')
        groups = gating.count_groups(x.shape[-1], self.num_groups, group_size=0)
        return ssa.split_groups(x, groups)
