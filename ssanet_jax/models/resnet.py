"""Residual networks (He et al. 2015, https://arxiv.org/abs/1512.03385) with an attention slot.

Submodules carry torchvision's names (`layer1_0` for `layer1.0`), so that weights map one
to one. The slot is where the SSANet and SE papers put their blocks: after the last
BatchNorm of the residual branch, before the sum.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssanet_jax import layers, ops
from ssanet_jax.models.tail import FoldedTail, Tail, chooses_fold, fold

ModuleFn = Callable[..., nn.Module]
Stem = Literal['imagenet', 'cifar']
Variant = Literal['v1', 'v1.5']

_torch_linear = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


class Projection(nn.Module):
    """The 1x1 convolution and BatchNorm of a shortcut that changes shape (option B)."""

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
            dtype=x.dtype,
            norm=self.norm,
            attention=None,
            train=train,
        ):
            y = fold(strided, self.features, train=train, conv='conv', bn='bn', norm=self.norm)
            return y.value()
        x = ops.conv(self.features, 1, stride=self.stride, dtype=x.dtype, name='conv')(x)
        return layers.normalize(x, train=train, name='bn', norm=self.norm)


class ResidualBlock(nn.Module):
    """relu(attention(BatchNorm(conv(inner(x)))) + shortcut(x)); a subclass says what inner is.

    Attributes:
      width: channels of the branch's inner convolutions.
      stride: 2 halves height and width.
      attention: makes the block of the attention slot, or None.
      norm: makes each BatchNorm.
      zero_init_residual: start with the last BatchNorm's scale at 0, so that the block
        is the identity (Goyal et al. 2017, section 5.1).
      projection: False makes a shortcut that changes shape by dropping pixels and padding
        channels with zeros, without parameters (He et al., option A).
      tail: how everything after `inner` is computed, see `models.tail.chooses_fold`.
    """

    expansion: ClassVar[int]
    num_convs: ClassVar[int]  # the last one is conv<num_convs>
    last_kernel: ClassVar[int]  # its height and width

    width: int
    stride: int = 1
    attention: ModuleFn | None = None
    norm: ModuleFn = layers.BatchNorm
    zero_init_residual: bool = False
    projection: bool = True
    tail: Tail = 'auto'

    def inner(self, x: jax.Array, *, train: bool) -> jax.Array:
        """What feeds the last convolution of the branch."""
        raise NotImplementedError

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        h = self.inner(x, train=train)
        shortcut = self._shortcut(x, train=train)
        features, size = self.width * self.expansion, self.last_kernel
        conv, bn = f'conv{self.num_convs}', f'bn{self.num_convs}'
        last = {'scale_init': nn.initializers.zeros} if self.zero_init_residual else {}
        if chooses_fold(
            self.tail,
            h.shape,
            features,
            kernel_size=size,
            dtype=h.dtype,
            norm=self.norm,
            attention=self.attention,
            train=train,
        ):
            tail = FoldedTail(features, self.attention, self.norm, last, conv, bn)
            nn.share_scope(self, tail)
            return tail(h, shortcut, train=train)
        y = ops.conv(features, size, dtype=x.dtype, name=conv)(h)
        y = layers.normalize(y, train=train, name=bn, norm=self.norm, **last)
        if self.attention is None:
            return ops.relu(y + shortcut)
        # Keeping the output for the gradient does not pay where XLA keeps more for the gate's.
        return nn.relu(self.attention()(y, train=train) + shortcut)

    def _shortcut(self, x: jax.Array, *, train: bool) -> jax.Array:
        features = self.width * self.expansion
        if self.stride == 1 and x.shape[-1] == features:
            return x
        if self.projection:
            downsample = Projection(features, self.stride, self.norm, self.tail, name='downsample')
            return downsample(x, train=train)
        x = x[:, :: self.stride, :: self.stride]
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, features - x.shape[-1])))

    def _conv_norm_relu(
        self, x: jax.Array, number: int, size: int, stride: int, *, train: bool
    ) -> jax.Array:
        y = ops.conv(self.width, size, stride=stride, dtype=x.dtype, name=f'conv{number}')(x)
        return nn.relu(layers.normalize(y, train=train, name=f'bn{number}', norm=self.norm))


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions (ResNet-18 and -34, and the thin CIFAR networks)."""

    expansion: ClassVar[int] = 1
    num_convs: ClassVar[int] = 2
    last_kernel: ClassVar[int] = 3

    def inner(self, x: jax.Array, *, train: bool) -> jax.Array:
        return self._conv_norm_relu(x, 1, size=3, stride=self.stride, train=train)


class Bottleneck(ResidualBlock):
    """1x1 reduce, 3x3, 1x1 expand (ResNet-50 and deeper).

    Attributes:
      variant: where a stride of 2 sits: 'v1', the paper, in the first 1x1 convolution;
        'v1.5', torchvision and the released SSANet, in the 3x3 (ResNet-50 at 224: 4.09 G
        multiply-adds instead of 3.86 G).
    """

    expansion: ClassVar[int] = 4
    num_convs: ClassVar[int] = 3
    last_kernel: ClassVar[int] = 1

    variant: Variant = 'v1.5'

    def inner(self, x: jax.Array, *, train: bool) -> jax.Array:
        stride1, stride2 = {'v1': (self.stride, 1), 'v1.5': (1, self.stride)}[self.variant]
        y = self._conv_norm_relu(x, 1, size=1, stride=stride1, train=train)
        return self._conv_norm_relu(y, 2, size=3, stride=stride2, train=train)


class ResNet(nn.Module):
    """Images [N, H, W, 3] to logits [N, num_classes] in float32.

    Attributes:
      stage_sizes: blocks per stage; every stage after the first halves the size and
        doubles the width.
      block: makes a residual block, `BasicBlock` or `Bottleneck`.
      num_classes: length of the logits.
      width: channels of the first stage.
      stem: 'imagenet', 7x7 stride 2 and max-pool, or 'cifar', 3x3 stride 1 alone.
      attention: makes the block of each attention slot, or None. Give it a name:
        `partial(SSABlock, name='ssa')`.
      norm: makes each BatchNorm.
      zero_init_residual, projection: see `ResidualBlock`.
      tail: 'folded', 'plain', or 'auto': the one that is expected to be faster, by the shape.
      dtype: of the computation; parameters and statistics stay float32.

    Raises:
      ValueError: the input is not 4-D or the stem is unknown.
      TypeError: the input is not floating-point.
    """

    stage_sizes: Sequence[int]
    block: ModuleFn
    num_classes: int
    width: int = 64
    stem: Stem = 'imagenet'
    attention: ModuleFn | None = None
    norm: ModuleFn = layers.BatchNorm
    zero_init_residual: bool = False
    projection: bool = True
    tail: Tail = 'auto'
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        layers.require_feature_map(x, 'ResNet')
        x = self._stem(x.astype(self.dtype), train=train)
        for stage, size in enumerate(self.stage_sizes):
            for index in range(size):
                x = self.block(
                    width=self.width * 2**stage,
                    stride=2 if stage > 0 and index == 0 else 1,
                    attention=self.attention,
                    norm=self.norm,
                    zero_init_residual=self.zero_init_residual,
                    projection=self.projection,
                    tail=self.tail,
                    name=f'layer{stage + 1}_{index}',
                )(x, train=train)
        stats = layers.stats_dtype(self.dtype)
        x = jnp.mean(x.astype(stats), axis=(1, 2))  # [N, C]
        return nn.Dense(self.num_classes, kernel_init=_torch_linear, dtype=stats, name='fc')(x)

    def _stem(self, x: jax.Array, *, train: bool) -> jax.Array:
        sizes = {'imagenet': (7, 2), 'cifar': (3, 1)}
        if self.stem not in sizes:
            raise ValueError(
                f"ResNet(stem={self.stem!r}) is not known; choose 'imagenet' or 'cifar'."
            )
        size, stride = sizes[self.stem]
        x = ops.conv(self.width, size, stride=stride, dtype=self.dtype, name='conv1')(x)
        x = nn.relu(layers.normalize(x, train=train, name='bn1', norm=self.norm))
        if self.stem == 'imagenet':
            x = ops.max_pool(x)
        return x
