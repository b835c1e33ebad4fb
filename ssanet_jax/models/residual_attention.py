"""Residual Attention Networks (Wang et al. 2017, https://arxiv.org/abs/1704.06904).

The structure and parameter counts are those of the authors' Caffe definitions of Attention-56 and
-92 (github.com/fwang91/residual-attention-network). The networks contain soft masks; every
residual unit outside the masks has an attention slot, as in a pre-activation ResNet.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssanet_jax import layers
from ssanet_jax.models.network import AttentionPosition, ModuleFn, ResidualNetwork
from ssanet_jax.models.preact_resnet import PreActBlock

_TRUNK = 3  # units of a trunk, the paper's p + t


class AttentionModule(nn.Module):
    """Residual unit after (1 + mask) * trunk, where the mask is a small hourglass network.

    Attributes:
      width: inner channels of the units, a quarter of x's.
      depth: number of times the mask halves its size.
      slots: attention of the units of the trunk and of the last unit.
      drop_rates: of the same units, see `PreActBlock`.
      attention_position: see `ResidualNetwork`.
      norm: makes each BatchNorm.
    """

    width: int
    depth: int
    slots: Sequence[ModuleFn | None]
    drop_rates: Sequence[float]
    attention_position: AttentionPosition = 'pre_residual'
    norm: ModuleFn = layers.BatchNorm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        trunk = x
        units = list(zip(self.slots, self.drop_rates, strict=True))
        for number, unit in enumerate(units[:-1], start=1):
            trunk = self._unit(trunk, f'trunk_res{number}', *unit, train=train)
            if number == 1:
                first = trunk
        mask = self._mask(first, 1, train=train)
        for number in (1, 2):
            mask = nn.relu(
                layers.batch_norm(mask, train=train, name=f'mask_norm{number}', norm=self.norm)
            )
            mask = layers.conv(4 * self.width, 1, dtype=x.dtype, name=f'mask_linear{number}')(mask)
        fused = trunk * (1 + nn.sigmoid(mask))
        return self._unit(fused, 'last', *units[-1], train=train)

    def _mask(self, x: jax.Array, level: int, *, train: bool) -> jax.Array:
        """The hourglass from `level` down, [N, H, W, C] to the same shape."""
        y = self._unit(layers.max_pool_ceil(x, 3), f'mask_down{level}', train=train)
        if level == self.depth:
            y = self._unit(y, f'mask_down{level}_2', train=train)
        else:
            skip = self._unit(y, f'mask_skip{level}', train=train)
            y = skip + self._mask(y, level + 1, train=train)
            y = self._unit(y, f'mask_up{level}', train=train)
        return resize(y, *x.shape[1:3])

    def _unit(
        self,
        x: jax.Array,
        name: str,
        slot: ModuleFn | None = None,
        drop_rate: float = 0.0,
        *,
        train: bool,
    ) -> jax.Array:
        unit = PreActBlock(
            self.width,
            bottleneck=True,
            attention=slot,
            attention_position=self.attention_position,
            norm=self.norm,
            drop_rate=drop_rate,
            name=name,
        )
        return unit(x, train=train)


class ResidualAttentionNetwork(ResidualNetwork, kw_only=True):
    """See `Network`; a stage is a residual unit and attention modules, the last one units alone.

    Stochastic depth applies to units with an attention slot, not to those of masks.

    Attributes:
      modules: attention modules of every stage before the last.
      width: inner channels of the first stage.
      last_units: units of the last stage.
    """

    modules: Sequence[int]
    width: int = 64
    last_units: int = 3

    @property
    def blocks(self) -> tuple[int, ...]:
        return (*(1 + (_TRUNK + 1) * count for count in self.modules), self.last_units)

    def features(self, x: jax.Array, *, train: bool) -> jax.Array:
        size, stride = {'imagenet': (7, 2), 'cifar': (3, 1)}[self.stem]
        x = layers.conv(64, size, stride=stride, dtype=self.dtype, name='conv1')(x)
        x = nn.relu(layers.batch_norm(x, train=train, name='bn1', norm=self.norm))
        if self.stem == 'imagenet':
            x = layers.max_pool_ceil(x, 3)
        for stage, count in enumerate(self.modules, start=1):
            x = self._unit(x, stage, 0, train=train)
            for number in range(count):
                first = 1 + number * (_TRUNK + 1)
                units = range(first, first + _TRUNK + 1)
                block = AttentionModule(
                    self.width * 2 ** (stage - 1),
                    depth=len(self.modules) + 1 - stage,
                    slots=[self.attention_at(stage, unit) for unit in units],
                    drop_rates=[self.drop_rate_at(stage, unit) for unit in units],
                    attention_position=self.attention_position,
                    norm=self.norm,
                    name=f'attention{stage}_{number}',
                )
                x = self.block_at(stage, block, train=train)(x)
        for index in range(self.last_units):
            x = self._unit(x, len(self.modules) + 1, index, train=train)
        return nn.relu(layers.batch_norm(x, train=train, name='norm', norm=self.norm))

    def _unit(self, x: jax.Array, stage: int, index: int, *, train: bool) -> jax.Array:
        unit = PreActBlock(
            self.width * 2 ** (stage - 1),
            bottleneck=True,
            stride=2 if stage > 1 and index == 0 else 1,
            attention=self.attention_at(stage, index),
            attention_position=self.attention_position,
            norm=self.norm,
            drop_rate=self.drop_rate_at(stage, index),
            name=f'layer{stage}_{index}',
        )
        return self.block_at(stage, unit, train=train)(x)


def resize(x: jax.Array, height: int, width: int) -> jax.Array:
    """Bilinear resize of x [N, h, w, C] to [N, H, W, C] with aligned corners."""
    n, h, w, c = x.shape
    scales, shifts = zip(_corners(h, height), _corners(w, width), strict=True)
    stats = layers.reduction_dtype(x.dtype)  # bfloat16 is too coarse for positions
    y = jax.image.scale_and_translate(
        x.astype(stats),
        (n, height, width, c),
        spatial_dims=(1, 2),
        scale=jnp.array(scales, stats),
        translation=jnp.array(shifts, stats),
        method='linear',
        antialias=False,
    )
    return y.astype(x.dtype)


def _corners(before: int, after: int) -> tuple[float, float]:
    """Scale and translation that map the centers of the outer pixels onto each other."""
    if before == 1:
        return after, 0.0
    scale = (after - 1) / (before - 1)
    return scale, 0.5 - 0.5 * scale
