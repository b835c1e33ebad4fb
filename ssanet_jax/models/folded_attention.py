"""Attention computed from an affine map, for the folded tail of a residual block.

Means and saliency of a block's input follow from the narrow h of the map.
"""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssanet_jax import layers
from ssanet_jax.attention import gating
from ssanet_jax.attention.eca import ECABlock
from ssanet_jax.attention.squeeze_excite import SEBlock
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
            gated_affine(
                part.h,
                logit[..., g, None],
                factor * part.weight,
                factor * part.bias,
                train=train,
            )
            for g, part in enumerate(maps)
        ]
        return jnp.concatenate(gated, axis=-1)


class FoldedChannelGate(gating.ChannelGateBlock):
    """A `ChannelGateBlock` applied to an `AffineMap`, whose means follow from those of h."""

    @nn.compact
    def __call__(self, x: AffineMap, train: bool | None = None) -> jax.Array:  # type: ignore[override]
        """Returns [N, H, W, C] from x with h [N, H, W, K]."""
        del train  # no BatchNorm
        gate = self.gate(dot_highest(x.mean, x.weight) + x.bias)  # [N, C]
        return gating.apply_gate(self, gate[:, None, None], x.value())


class FoldedSE(FoldedChannelGate, SEBlock):
    """`SEBlock` applied to an `AffineMap`."""


class FoldedECA(FoldedChannelGate, ECABlock):
    """`ECABlock` applied to an `AffineMap`."""


_FOLDED: dict[type[nn.Module], type[nn.Module]] = {
    SSABlock: FoldedSSA,
    SEBlock: FoldedSE,
    ECABlock: FoldedECA,
}


def can_fold(attention: Callable[..., nn.Module]) -> bool:
    """Whether the block has a folded form: SEBlock, ECABlock, or SSABlock with squeeze='mean'.

    Classes are compared exactly, since a subclass may compute something else.
    """
    kind = layers.unwrap_partial(attention)
    known = any(kind is one for one in _FOLDED)  # kind need not be hashable
    return known and getattr(unbound(attention), 'squeeze', 'mean') == 'mean'


def folded(attention: Callable[..., nn.Module]) -> nn.Module:
    """The folded form of the block that `attention` makes; call inside a compact method."""
    block = unbound(attention)
    options = {f.name: getattr(block, f.name) for f in dataclasses.fields(block) if f.init}
    options |= {'name': block.name or f'{type(block).__name__}_0'}  # as flax would name it
    del options['parent']
    return _FOLDED[type(block)](**options)


def unbound(attention: Callable[..., nn.Module]) -> nn.Module:
    """The block that `attention` makes, outside any module, to read its options."""
    return attention(parent=None)
