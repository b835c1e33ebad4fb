"""Residual blocks of ResNets (He et al. 2015, https://arxiv.org/abs/1512.03385).

Submodules have torchvision's names. The attention slot is after the last BatchNorm of the residual
branch, before the sum, as in the SSANet and SE papers.
"""

from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssanet_jax import layers
from ssanet_jax.models.folded_tail import FoldedTail, Tail, chooses_fold, fold
from ssanet_jax.models.network import AttentionPosition, ModuleFn, apply_attention, by_position

Variant = Literal['v1', 'v1.5']


class Projection(nn.Module):
    """1x1 convolution and BatchNorm of a shortcut that changes shape (He et al., option B)."""

    features: int
    stride: int
    norm: ModuleFn
    tail: Tail = 'auto'

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        strided = x[:, :: self.stride, :: self.stride]
        if chooses_fold(
            self.tail,
            strided.shape,
            self.features,
            norm=self.norm,
            attention=None,
            train=train,
        ):
            y = fold(strided, self.features, train=train, conv='conv', bn='bn', norm=self.norm)
            return y.value()
        x = layers.conv(self.features, 1, stride=self.stride, dtype=x.dtype, name='conv')(x)
        return layers.batch_norm(x, train=train, name='bn', norm=self.norm)


class ResidualBlock(layers.ValueModule):
    """Base class: relu(attention(BatchNorm(conv(inner(x)))) + shortcut(x)).

    Attributes:
      width: channels of the branch's inner convolutions.
      stride: 2 halves height and width.
      attention: makes the block of the attention slot, or None.
      attention_position: see `ResidualNetwork`.
      norm: makes each BatchNorm.
      zero_init_residual: start the last BatchNorm's scale at 0, so that the block is the
        identity (Goyal et al. 2017, section 5.1).
      projection: whether a shortcut that changes shape has a convolution (He et al., option B);
        otherwise it drops pixels and pads channels with zeros (option A).
      avg_down: halve a shortcut by averages of 2x2 pixels, not by dropping pixels (He et al. 2018,
        https://arxiv.org/abs/1812.01187, ResNet-D); at an odd edge, of the pixels inside.
      drop_rate: probability to drop the branch of an example in training, see `layers.drop_path`.
      tail: implementation of everything after `inner`, see `folded_tail.chooses_fold`.
      train: use batch statistics; this or the argument of `__call__` is given.
    """

    expansion: ClassVar[int]
    num_convs: ClassVar[int]  # the last one is conv<num_convs>
    last_kernel: ClassVar[int]  # its height and width

    width: int
    stride: int = 1
    attention: ModuleFn | None = None
    attention_position: AttentionPosition = 'pre_residual'
    norm: ModuleFn = layers.BatchNorm
    zero_init_residual: bool = False
    projection: bool = True
    avg_down: bool = False
    drop_rate: float = 0.0
    tail: Tail = 'auto'
    train: bool | None = None

    def inner(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Computes the input of the last convolution of the branch."""
        raise NotImplementedError

    @nn.compact
    def __call__(self, x: jax.Array, train: bool | None = None) -> jax.Array:
        train = nn.merge_param('train', self.train, train)
        before, after = by_position(self.attention, self.attention_position)
        h = self.inner(x, train=train)
        shortcut = self._shortcut(x, train=train)
        return apply_attention(after, self._tail(h, shortcut, before, train=train), train=train)

    def _tail(
        self, h: jax.Array, shortcut: jax.Array, attention: ModuleFn | None, *, train: bool
    ) -> jax.Array:
        features, size = self.width * self.expansion, self.last_kernel
        conv, bn = f'conv{self.num_convs}', f'bn{self.num_convs}'
        last = {'scale_init': nn.initializers.zeros} if self.zero_init_residual else {}
        if chooses_fold(
            self.tail,
            h.shape,
            features,
            kernel_size=size,
            norm=self.norm,
            attention=attention,
            train=train,
        ):
            tail = FoldedTail(features, attention, self.norm, last, conv, bn, self.drop_rate)
            nn.share_scope(self, tail)
            return tail(h, shortcut, train=train)
        y = layers.conv(features, size, dtype=h.dtype, name=conv)(h)
        y = layers.batch_norm(y, train=train, name=bn, norm=self.norm, **last)
        y = layers.drop_path(
            apply_attention(attention, y, train=train), self.drop_rate, train=train
        )
        # nn.relu: XLA keeps the input of the ReLU for the gate's gradient anyway.
        return (layers.relu if attention is None else nn.relu)(y + shortcut)

    def _shortcut(self, x: jax.Array, *, train: bool) -> jax.Array:
        features = self.width * self.expansion
        if self.stride == 1 and x.shape[-1] == features:
            return x
        stride = self.stride
        if self.avg_down and stride > 1:
            x, stride = layers.mean_pool_ceil(x, 2), 1
        if self.projection:
            downsample = Projection(features, stride, self.norm, self.tail, name='downsample')
            return downsample(x, train=train)
        x = x[:, ::stride, ::stride]
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, features - x.shape[-1])))

    def _conv_norm_relu(
        self,
        x: jax.Array,
        number: int,
        size: int,
        *,
        features: int,
        stride: int = 1,
        groups: int = 1,
        train: bool,
    ) -> jax.Array:
        conv = layers.conv(
            features, size, stride=stride, groups=groups, dtype=x.dtype, name=f'conv{number}'
        )
        return nn.relu(layers.batch_norm(conv(x), train=train, name=f'bn{number}', norm=self.norm))


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions (ResNet-18 and -34, and the thin CIFAR networks)."""

    expansion: ClassVar[int] = 1
    num_convs: ClassVar[int] = 2
    last_kernel: ClassVar[int] = 3

    def inner(self, x: jax.Array, *, train: bool) -> jax.Array:
        return self._conv_norm_relu(x, 1, 3, features=self.width, stride=self.stride, train=train)


class Bottleneck(ResidualBlock):
    """1x1 reduce, 3x3, 1x1 expand (ResNet-50 and deeper).

    Attributes:
      variant: convolution with the stride: 'v1', the first 1x1, as in the paper; 'v1.5', the 3x3,
        as in torchvision and the released SSANet (ResNet-50 at 224: 4.09 G MACs, not 3.86 G).
      groups: of the 3x3 (ResNeXt, Xie et al. 2017, https://arxiv.org/abs/1611.05431).
      base_width: inner channels of each group, for a `width` of 64; 128 with one group makes
        torchvision's wide ResNets.
    """

    expansion: ClassVar[int] = 4
    num_convs: ClassVar[int] = 3
    last_kernel: ClassVar[int] = 1

    variant: Variant = 'v1.5'
    groups: int = 1
    base_width: int = 64

    def inner(self, x: jax.Array, *, train: bool) -> jax.Array:
        stride1, stride2 = {'v1': (self.stride, 1), 'v1.5': (1, self.stride)}[self.variant]
        features = self.width * self.base_width // 64 * self.groups
        y = self._conv_norm_relu(x, 1, 1, features=features, stride=stride1, train=train)
        return self._conv_norm_relu(
            y, 2, 3, features=features, stride=stride2, groups=self.groups, train=train
        )
