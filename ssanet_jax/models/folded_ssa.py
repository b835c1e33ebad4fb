"""SSA computed from an affine map, for the folded tail of a residual block."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssanet_jax.attention.ssa import SSABlock
from ssanet_jax.layers.affine_map import AffineMap, dot_highest, gated_affine, pixelwise_dot


class FoldedSSA(SSABlock):
    """`SSABlock` with squeeze='mean' applied to an `AffineMap`, whose pixels are never computed.

    For x = h W + b: s = <h, W z> + <b, z>, a map for each group. Variables and sown values are
    those of `SSABlock`.
    """

    @nn.compact
    def __call__(self, x: AffineMap, train: bool | None = None) -> jax.Array:  # type: ignore[override]
        """Returns [N, H, W, C] from x with h [N, H, W, K]."""
        train = nn.merge_param('train', self.train, train)
        maps = x.split(self.count_groups(x.weight.shape[1]))
        saliencies = []
        for part in maps:
            z = dot_highest(part.mean, part.weight) + part.bias  # [N, C/G]
            s = pixelwise_dot(part.h, dot_highest(z, part.weight.T))  # [N, H, W]
            s += dot_highest(z, part.bias)[:, None, None]
            saliencies.append(s / z.shape[-1] if self.combine == 'mean' else s)
        logit = self.logit(jnp.stack(saliencies, axis=-1), train=train)  # [N, H, W, G]
        factor = self.gate_scale
        gated = [
            gated_affine(part.h, logit[..., g, None], factor * part.weight, factor * part.bias)
            for g, part in enumerate(maps)
        ]
        return jnp.concatenate(gated, axis=-1)


def folded_ssa(attention: Callable[..., nn.Module]) -> FoldedSSA:
    """The folded form of the block that `attention` makes; call inside a compact method."""
    block = unbound(attention)
    options = {f.name: getattr(block, f.name) for f in dataclasses.fields(block) if f.init}
    options |= {'name': block.name or f'{SSABlock.__name__}_0'}  # as flax would name it
    del options['parent']
    return FoldedSSA(**options)


def unbound(attention: Callable[..., nn.Module]) -> SSABlock:
    """The block that `attention` makes, outside any module, to read its options."""
    block: Any = attention(parent=None)
    return block
