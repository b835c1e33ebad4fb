"""Base classes of the networks: options, attention slots and head."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssanet_jax import layers
from ssanet_jax.models.name_mapping import NameMapping

ModuleFn = Callable[..., nn.Module]
Stem = Literal['imagenet', 'cifar', 'deep']
AttentionPosition = Literal['pre_residual', 'post_residual']

torch_linear = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


class Network(layers.ValueModule, kw_only=True):
    """Base class: maps images [N, H, W, 3] to logits [N, num_classes] in float32.

    Without classes, to the features [N, C] that the last layer would get. N may be 0.

    Subclasses implement `features` and `blocks`; every block of every stage has an attention slot.

    Attributes:
      num_classes: length of the logits; 0: no last layer.
      stem: one of `stems`: 'imagenet', 'cifar', which does not downsample, or 'deep', which
        replaces the first 7x7 convolution with three 3x3 ones (He et al. 2018,
        https://arxiv.org/abs/1812.01187).
      attention: makes the block of each slot, called as block(x, train=train), or None. Give it a
        name: `partial(SSABlock, name='ssa')`.
      attention_stages: stages with attention, counted from 1; None: all.
      attention_blocks: blocks of those stages with attention, counted from 0, or from the end by
        -1, -2, ...; None: all.
      remat: stages, from 1, whose blocks keep only their inputs for the gradient and compute the
        rest again, as `jax.checkpoint`; None: none.
      norm: makes each BatchNorm.
      dropout: rate before the last layer; above 0, training needs rngs={'dropout': key}.
      dtype: of the computation; parameters and statistics are float32.
      train: use batch statistics; this or the argument of `__call__` is given.

    Raises:
      ValueError: the input is not 4-D, an option is unknown, a slot does not exist, or the batch is
        empty in training.
      TypeError: the input is not floating-point.
    """

    stems: ClassVar[tuple[Stem, ...]] = ('imagenet', 'cifar')

    num_classes: int
    stem: Stem = 'imagenet'
    attention: ModuleFn | None = None
    attention_stages: Sequence[int] | None = None
    attention_blocks: Sequence[int] | None = None
    remat: Sequence[int] | None = None
    norm: ModuleFn = layers.BatchNorm
    dropout: float = 0.0
    dtype: jax.typing.DTypeLike = jnp.float32
    train: bool | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, 'dtype', jnp.dtype(self.dtype))  # of several names for one
        super().__post_init__()

    @property
    def blocks(self) -> tuple[int, ...]:
        """Number of blocks in each stage; by default, `stage_sizes`."""
        stages: Any = self
        return tuple(stages.stage_sizes)

    def state_dict_rules(self) -> dict[str, NameMapping]:
        """Name mappings of the variables, by library."""
        return {}

    def features(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps images [N, H, W, 3] to the last feature map [N, h, w, C]."""
        raise NotImplementedError

    @nn.compact
    def __call__(self, x: jax.Array, train: bool | None = None) -> jax.Array:
        train = nn.merge_param('train', self.train, train)
        kind = type(self).__name__
        layers.require_feature_map(x, kind)
        self._check()
        x = self.features(x.astype(self.dtype), train=train)
        layers.require_feature_map(x, f'The last layer of {kind}')
        return self.classify(x, train=train)

    def classify(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Average pooling, dropout and a dense layer, in float32."""
        stats = layers.reduction_dtype(self.dtype)
        x = jnp.mean(x.astype(stats), axis=(1, 2))  # [N, C]
        if self.num_classes == 0:
            return x
        x = self.drop(x, 'drop', train=train)
        return nn.Dense(self.num_classes, kernel_init=torch_linear, dtype=stats, name='fc')(x)

    def drop(self, x: jax.Array, name: str, *, train: bool) -> jax.Array:
        """Applies dropout in training; call inside a compact method."""
        if not self.dropout:
            return x
        return nn.Dropout(self.dropout, deterministic=not train, name=name)(x)

    def block_at(
        self, stage: int, block: nn.Module, *, train: bool
    ) -> Callable[[jax.Array], jax.Array]:
        """`block` as a function of x; in training rematerialized if `stage` is in `remat`."""
        if not train or stage not in (self.remat or ()):
            return lambda x: block(x, train)
        return partial(nn.remat(lambda block, x: block(x, train)), block)

    def attention_at(self, stage: int, index: int) -> ModuleFn | None:
        """Attention of block `index`, from 0, of `stage`, from 1, or None."""
        if self.attention_stages is not None and stage not in self.attention_stages:
            return None
        places = (index, index - self.blocks[stage - 1])
        if self.attention_blocks is not None and not {*places} & {*self.attention_blocks}:
            return None
        return self.attention

    def _check(self) -> None:
        kind = type(self).__name__
        if self.num_classes < 0:
            raise ValueError(
                f'{kind}(num_classes={self.num_classes}) must be 0, for features, or above.'
            )
        if self.stem not in self.stems:
            raise ValueError(
                f'{kind}(stem={self.stem!r}) is not known; choose '
                f'{" or ".join(map(repr, self.stems))}.'
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f'{kind}(dropout={self.dropout}) must be at least 0 and below 1.')
        for option in ('attention_stages', 'attention_blocks', 'remat'):
            value: Any = getattr(self, option)
            if value is not None and not (isinstance(value, Sequence) and value):
                raise ValueError(
                    f'{kind}({option}={value!r}) must be a tuple of numbers, e.g. (3, 4), or None.'
                )
        stages = range(1, len(self.blocks) + 1)
        for option in ('attention_stages', 'remat'):
            chosen = tuple(getattr(self, option) or ())
            for stage in sorted({*chosen} - {*stages}):
                raise ValueError(
                    f'{kind}({option}={chosen}) names stage {stage}; the stages are '
                    f'{", ".join(map(str, stages))}.'
                )
        longest = max(self.blocks[stage - 1] for stage in self.attention_stages or stages)
        for index in self.attention_blocks or ():
            if not -longest <= index < longest:
                raise ValueError(
                    f'{kind}(attention_blocks={tuple(self.attention_blocks or ())}) names block '
                    f'{index}; the longest of those stages has {longest}, counted from 0, or from '
                    'the end by -1, -2, ...'
                )


class ResidualNetwork(Network, kw_only=True):
    """Base class of networks whose blocks end in a sum.

    Attributes:
      attention_position: 'pre_residual', at the end of the residual branch (the SSANet and SE
        papers), or 'post_residual', after the sum and its ReLU, if any (the SE paper's SE-POST).
      stochastic_depth: rate at which the last block drops its branch, see `layers.drop_path`; from
        0 at the first block, rates rise linearly. Above 0, training needs rngs={'dropout': key}.
    """

    attention_position: AttentionPosition = 'pre_residual'
    stochastic_depth: float = 0.0

    def drop_rate_at(self, stage: int, index: int) -> float:
        """Stochastic depth's rate of block `index`, from 0, of `stage`, from 1."""
        before = sum(self.blocks[: stage - 1]) + index
        return self.stochastic_depth * before / max(sum(self.blocks) - 1, 1)

    def _check(self) -> None:
        super()._check()
        if not 0 <= self.stochastic_depth < 1:
            raise ValueError(
                f'{type(self).__name__}(stochastic_depth={self.stochastic_depth}) must be at least '
                '0 and below 1.'
            )


def by_position(
    attention: ModuleFn | None, place: AttentionPosition
) -> tuple[ModuleFn | None, ModuleFn | None]:
    """Returns the attention before and after the sum, one of them None; raises ValueError."""
    if place not in get_args(AttentionPosition):
        raise ValueError(
            f"attention_position={place!r} is not known; choose 'pre_residual' or 'post_residual'."
        )
    return (attention, None) if place == 'pre_residual' else (None, attention)


def apply_attention(attention: ModuleFn | None, x: jax.Array, *, train: bool) -> jax.Array:
    """Applies the block that `attention` makes, if any; call inside a compact method."""
    return x if attention is None else attention()(x, train=train)


class ConvNorm(layers.ValueModule):
    """attention(act(BatchNorm(conv(x)))).

    Attributes:
      features: channels of the result.
      size: height and width of the kernel; padding is size // 2.
      stride: of the convolution.
      depthwise: convolve each channel by itself.
      bias: whether the convolution has a bias.
      act: the activation, or None.
      norm: makes the BatchNorm.
      attention: makes the attention block, or None.
      train: use batch statistics; this or the argument of `__call__` is given.
    """

    features: int
    size: int
    stride: int = 1
    depthwise: bool = False
    bias: bool = False
    act: Callable[[jax.Array], jax.Array] | None = nn.relu
    norm: ModuleFn = layers.BatchNorm
    attention: ModuleFn | None = None
    train: bool | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool | None = None) -> jax.Array:
        train = nn.merge_param('train', self.train, train)
        x = layers.conv(
            self.features,
            self.size,
            stride=self.stride,
            groups=self.features if self.depthwise else 1,
            bias=self.bias,
            dtype=x.dtype,
            name='conv',
        )(x)
        x = layers.batch_norm(x, train=train, name='bn', norm=self.norm)
        return apply_attention(self.attention, x if self.act is None else self.act(x), train=train)
