"""VGG with BatchNorm (Simonyan and Zisserman 2014, https://arxiv.org/abs/1409.1556).

torchvision's form, whose convolutions have biases. The attention slot follows the non-linearity of
each convolution, as in the SE paper.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ssanet_jax import layers
from ssanet_jax.models.name_mapping import NameMapping
from ssanet_jax.models.network import ConvNorm, Network, torch_linear


class VGG(Network, kw_only=True):
    """VGG, see `Network`; every stage ends in max-pooling.

    With the ImageNet stem the head averages the last map to 7x7 and has three dense layers with
    dropout between them; with CIFAR's it averages all pixels and has one.

    Attributes:
      stage_sizes: convolutions per stage.
      widths: channels of each stage.
      hidden: units of the first two dense layers.
      dropout: rate after each of those two; with the CIFAR stem, before the last layer.
    """

    stage_sizes: Sequence[int]
    widths: Sequence[int] = (64, 128, 256, 512, 512)
    hidden: int = 4096
    dropout: float = 0.5

    def state_dict_rules(self) -> dict[str, NameMapping]:
        features, place = [], 0
        for stage, size in enumerate(self.stage_sizes, start=1):
            for index in range(size):
                features += [
                    (f'^layer{stage}_{index}/conv/', f'features/{place}/'),
                    (f'^layer{stage}_{index}/bn/', f'features/{place + 1}/'),
                ]
                place += 3  # with the ReLU
            place += 1  # the pooling
        if self.stem == 'cifar':
            return {'ssanet_cifar': NameMapping([*features, ('^fc/', 'classifier/')])}
        tv = [('^fc1/', 'classifier/0/'), ('^fc2/', 'classifier/3/'), ('^fc/', 'classifier/6/')]
        timm = [('^(fc[12])/', r'pre_logits/\1/'), ('^fc/', 'head/fc/')]
        return {
            'torchvision': NameMapping([*features, *tv], as_linear=r'^classifier\.0'),
            'timm': NameMapping([*features, *timm], as_conv=r'^pre_logits'),
        }

    def features(self, x: jax.Array, *, train: bool) -> jax.Array:
        for stage, (size, width) in enumerate(
            zip(self.stage_sizes, self.widths, strict=True), start=1
        ):
            for index in range(size):
                block = ConvNorm(
                    width,
                    3,
                    bias=True,
                    norm=self.norm,
                    attention=self.attention_at(stage, index),
                    name=f'layer{stage}_{index}',
                )
                x = self.block_at(stage, block, train=train)(x)
            x = nn.max_pool(x, window_shape=(2, 2), strides=(2, 2))
        return x

    def classify(self, x: jax.Array, *, train: bool) -> jax.Array:
        if self.stem == 'cifar':
            return super().classify(x, train=train)
        stats = layers.reduction_dtype(self.dtype)
        x = _adaptive_mean(x, 7)
        for name, axes in (('fc1', (1, 2, 3)), ('fc2', (1,))):
            x = nn.DenseGeneral(
                self.hidden, axis=axes, kernel_init=torch_linear, dtype=self.dtype, name=name
            )(x)
            x = self.drop(nn.relu(x), f'drop_{name}', train=train)
        if self.num_classes == 0:
            return x.astype(stats)
        fc = nn.Dense(self.num_classes, kernel_init=torch_linear, dtype=stats, name='fc')
        return fc(x.astype(stats))


def _adaptive_mean(x: jax.Array, size: int) -> jax.Array:
    """Averages x [N, H, W, C] to size x size pixels, as torch's AdaptiveAvgPool2d."""
    if x.shape[1:3] == (size, size):
        return x
    rows, columns = (_parts(length, size) for length in x.shape[1:3])
    return jnp.einsum('ih,jw,nhwc->nijc', rows.astype(x.dtype), columns.astype(x.dtype), x)


def _parts(length: int, count: int) -> np.ndarray:
    """Weights [count, length] of the means over i L / count up to (i + 1) L / count."""
    part, place = np.arange(count)[:, None], np.arange(length)
    start, stop = part * length // count, -(-(part + 1) * length // count)
    inside = (place >= start) & (place < stop)
    return inside / inside.sum(axis=1, keepdims=True)
