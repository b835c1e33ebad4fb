"""MobileNets of depthwise separable convolutions, versions 1 and 2.

Howard et al. 2017, https://arxiv.org/abs/1704.04861, with ReLU6 as in the authors' code and timm,
and Sandler et al. 2018, https://arxiv.org/abs/1801.04381. The attention slot of version 1 follows
each pointwise convolution, which gives SE-MobileNet the 4.7 M parameters of the SE paper; that of
version 2 is at the end of the branch, before the sum.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax

from ssanet_jax import layers
from ssanet_jax.models.name_mapping import NameMapping, Replacement
from ssanet_jax.models.network import (
    AttentionPosition,
    ConvNorm,
    ModuleFn,
    Network,
    ResidualNetwork,
    apply_attention,
    by_position,
)

# timm's names
_TIMM: list[tuple[str, Replacement]] = [
    ('^stem/conv/', 'conv_stem/'),
    ('^stem/bn/', 'bn1/'),
    ('^fc/', 'classifier/'),
    (r'^layer(\d+)_(\d+)/', lambda m: f'blocks/{int(m[1]) - 1}/{m[2]}/'),
]
_SEPARABLE = {'depthwise': 'conv_dw', 'project': 'conv_pw'}
_INVERTED = {'expand': 'conv_pw', 'depthwise': 'conv_dw', 'project': 'conv_pwl'}


class SeparableConv(nn.Module):
    """Depthwise 3x3 and pointwise 1x1 convolutions, each with BatchNorm and ReLU6.

    Attributes:
      features: channels of the result.
      stride: of the depthwise convolution.
      attention: makes the block of the slot, or None.
      norm: makes each BatchNorm.
    """

    features: int
    stride: int = 1
    attention: ModuleFn | None = None
    norm: ModuleFn = layers.BatchNorm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = ConvNorm(
            x.shape[-1],
            3,
            self.stride,
            depthwise=True,
            act=nn.relu6,
            norm=self.norm,
            name='depthwise',
        )(x, train=train)
        x = ConvNorm(self.features, 1, act=nn.relu6, norm=self.norm, name='pointwise')(
            x, train=train
        )
        return apply_attention(self.attention, x, train=train)


class MobileNet(Network, kw_only=True):
    """MobileNet, see `Network`; every stage after the first starts with a stride of 2.

    Attributes:
      stage_sizes: separable convolutions per stage.
      width: channels of the stem; stage i, from 1, has width 2^i.
    """

    stage_sizes: Sequence[int] = (1, 2, 2, 6, 2)
    width: int = 32

    def state_dict_rules(self) -> dict[str, NameMapping]:
        convs = [
            ('/depthwise/conv/', '/conv_dw/'),
            ('/depthwise/bn/', '/bn1/'),
            ('/pointwise/conv/', '/conv_pw/'),
            ('/pointwise/bn/', '/bn2/'),
        ]
        return {'timm': NameMapping([*_TIMM, *convs])}

    def features(self, x: jax.Array, *, train: bool) -> jax.Array:
        stride = {'imagenet': 2, 'cifar': 1}[self.stem]
        x = ConvNorm(self.width, 3, stride, act=nn.relu6, norm=self.norm, name='stem')(
            x, train=train
        )
        for stage, size in enumerate(self.stage_sizes, start=1):
            for index in range(size):
                block = SeparableConv(
                    self.width * 2**stage,
                    stride=2 if stage > 1 and index == 0 else 1,
                    attention=self.attention_at(stage, index),
                    norm=self.norm,
                    name=f'layer{stage}_{index}',
                )
                x = self.block_at(stage, block, train=train)(x)
        return x


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise 3x3, 1x1 projection, and a shortcut where shapes allow.

    Attributes:
      features: channels of the result.
      expansion: factor of the channels in between; 1 omits the first convolution.
      stride: of the depthwise convolution.
      attention: makes the block of the slot, or None.
      attention_position: see `ResidualNetwork`.
      norm: makes each BatchNorm.
      drop_rate: probability to drop the branch of an example in training, see `layers.drop_path`;
        of no effect without a shortcut.
    """

    features: int
    expansion: int
    stride: int = 1
    attention: ModuleFn | None = None
    attention_position: AttentionPosition = 'pre_residual'
    norm: ModuleFn = layers.BatchNorm
    drop_rate: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        before, after = by_position(self.attention, self.attention_position)
        hidden, y = x.shape[-1] * self.expansion, x
        conv = partial(ConvNorm, act=nn.relu6, norm=self.norm)
        if self.expansion != 1:
            y = conv(hidden, 1, name='expand')(y, train=train)
        y = conv(hidden, 3, self.stride, depthwise=True, name='depthwise')(y, train=train)
        y = conv(self.features, 1, act=None, attention=before, name='project')(y, train=train)
        if x.shape == y.shape:
            y = x + layers.drop_path(y, self.drop_rate, train=train)
        return apply_attention(after, y, train=train)


class Stage(NamedTuple):
    """Row of table 2 of the MobileNetV2 paper: t, c, n and s."""

    expansion: int
    features: int
    size: int
    stride: int


STAGES = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)


class MobileNetV2(ResidualNetwork, kw_only=True):
    """MobileNetV2, see `Network`; with CIFAR's stem it and the second stage have stride 1.

    Attributes:
      stages: rows of the paper's table.
      head_width: channels of the last convolution.
    """

    stages: Sequence[Stage] = STAGES
    head_width: int = 1280
    dropout: float = 0.2

    @property
    def blocks(self) -> tuple[int, ...]:
        return tuple(stage.size for stage in self.stages)

    def state_dict_rules(self) -> dict[str, NameMapping]:
        before = [1 + sum(self.blocks[:stage]) for stage in range(len(self.blocks))]
        torchvision: list[tuple[str, Replacement]] = []
        timm: list[tuple[str, Replacement]] = []
        for number, stage in enumerate(self.stages, start=1):
            block = rf'^(layer{number}_\d+)/'
            convs = ['depthwise', 'project'] if stage.expansion == 1 else list(_INVERTED)
            others = _SEPARABLE if stage.expansion == 1 else _INVERTED
            for place, conv in enumerate(convs):
                last = conv == 'project'
                torchvision += [
                    (f'{block}{conv}/conv/', rf'\1/conv/{place}/' + ('' if last else '0/')),
                    (
                        f'{block}{conv}/bn/',
                        rf'\1/conv/{place + 1}/' if last else rf'\1/conv/{place}/1/',
                    ),
                ]
                timm += [
                    (f'{block}{conv}/conv/', rf'\1/{others[conv]}/'),
                    (f'{block}{conv}/bn/', rf'\1/bn{place + 1}/'),
                ]
        end = 1 + sum(self.blocks)
        torchvision += [
            ('^(stem|head)/conv/', r'\1/0/'),
            ('^(stem|head)/bn/', r'\1/1/'),
            ('^stem/', 'features/0/'),
            ('^head/', f'features/{end}/'),
            (r'^layer(\d+)_(\d+)/', lambda m: f'features/{before[int(m[1]) - 1] + int(m[2])}/'),
            ('^fc/', 'classifier/1/'),
        ]
        timm += [*_TIMM, ('^head/conv/', 'conv_head/'), ('^head/bn/', 'bn2/')]
        return {'torchvision': NameMapping(torchvision), 'timm': NameMapping(timm)}

    def features(self, x: jax.Array, *, train: bool) -> jax.Array:
        cifar = self.stem == 'cifar'
        x = ConvNorm(32, 3, 1 if cifar else 2, act=nn.relu6, norm=self.norm, name='stem')(
            x, train=train
        )
        for number, stage in enumerate(self.stages, start=1):
            for index in range(stage.size):
                block = InvertedResidual(
                    stage.features,
                    stage.expansion,
                    stride=1 if index > 0 or (cifar and number == 2) else stage.stride,
                    attention=self.attention_at(number, index),
                    attention_position=self.attention_position,
                    norm=self.norm,
                    drop_rate=self.drop_rate_at(number, index),
                    name=f'layer{number}_{index}',
                )
                x = self.block_at(number, block, train=train)(x)
        return ConvNorm(self.head_width, 1, act=nn.relu6, norm=self.norm, name='head')(
            x, train=train
        )
