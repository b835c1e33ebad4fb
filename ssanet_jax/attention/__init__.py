"""Attention blocks: `block(x, train)` maps x [N, H, W, C] to the same shape and dtype."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn

from ssanet_jax.attention.cbam import CBAMBlock
from ssanet_jax.attention.coordinate import CoordinateBlock
from ssanet_jax.attention.eca import ECABlock
from ssanet_jax.attention.gather_excite import GEBlock
from ssanet_jax.attention.scse import SCSEBlock, SSEBlock
from ssanet_jax.attention.simam import SimAMBlock
from ssanet_jax.attention.spatial import SpatialBlock
from ssanet_jax.attention.squeeze_excite import SEBlock
from ssanet_jax.attention.ssa import SSABlock

#: Attention blocks by network-name prefix.
ATTENTION: dict[str, Callable[..., nn.Module]] = {
    'ca': CoordinateBlock,
    'cbam': CBAMBlock,
    'eca': ECABlock,
    'ge': GEBlock,
    'gssa': partial(SSABlock, group_size=32),
    'sa': SpatialBlock,
    'scse': SCSEBlock,
    'se': SEBlock,
    'simam': SimAMBlock,
    'ssa': SSABlock,
    'sse': SSEBlock,
}

__all__ = [
    'ATTENTION',
    'CBAMBlock',
    'CoordinateBlock',
    'ECABlock',
    'GEBlock',
    'SCSEBlock',
    'SEBlock',
    'SSABlock',
    'SSEBlock',
    'SimAMBlock',
    'SpatialBlock',
]
