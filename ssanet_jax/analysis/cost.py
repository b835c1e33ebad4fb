"""Counts parameters and multiply-adds from the traced program, not from formulas per layer."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend import core as jex_core

from ssanet_jax.attention import ATTENTION
from ssanet_jax.models.resnet import ResidualBlock
from ssanet_jax.models.tail import FoldedTail


class Cost(NamedTuple):
    """What one image costs in a forward pass.

    Attributes:
      parameters: trained numbers.
      multiply_adds: of convolutions, matrix products and attention, for one image.
      attention_multiply_adds: the share of the attention blocks, in which each
        elementwise multiplication counts as one.
    """

    parameters: int
    multiply_adds: int
    attention_multiply_adds: int


def model_cost(model: nn.Module, image_size: int, channels: int = 3) -> Cost:
    """Counts for one image [1, image_size, image_size, channels], in inference mode.

    Tails are counted in their plain form, by which networks are compared everywhere.

    >>> from ssanet_jax import create_model
    >>> model_cost(create_model('resnet50', num_classes=1000, variant='v1'), 224).multiply_adds
    3857973248
    """
    if hasattr(model, 'tail'):
        model = model.clone(tail='plain')
    image = jax.ShapeDtypeStruct((1, image_size, image_size, channels), jnp.float32)
    init = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)
    jaxpr = jax.make_jaxpr(lambda v, x: model.apply(v, x, train=False))(init, image)
    products = attention = 0
    for eqn, scope in _equations(jaxpr.jaxpr):
        count = _products(eqn)
        if not ATTENTION.keys().isdisjoint(scope):
            count += eqn.outvars[0].aval.size if eqn.primitive.name == 'mul' else 0
            attention += count
        products += count
    return Cost(
        parameters=sum(p.size for p in jax.tree.leaves(init['params'])),
        multiply_adds=products,
        attention_multiply_adds=attention,
    )


def count_tails(model: nn.Module, image_size: int, batch_size: int) -> dict[str, int]:
    """{'folded': 16, 'plain': 0}: the form of each residual block's tail in training.

    Args:
      model: made by `create_model`.
      image_size: height and width of the images.
      batch_size: images on one device.
    """
    forms = {'folded': 0, 'plain': 0}

    def note(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if isinstance(context.module, ResidualBlock) and context.method_name == '__call__':
            forms['plain'] += 1
        if isinstance(context.module, FoldedTail):
            forms['folded'] += 1
            forms['plain'] -= 1
        return call(*args, **kwargs)

    images = jax.ShapeDtypeStruct((batch_size, image_size, image_size, 3), jnp.float32)
    with nn.intercept_methods(note):
        jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=True), images)
    return forms


def _equations(
    jaxpr: jex_core.Jaxpr, scope: tuple[str, ...] = ()
) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """All equations with the names of the modules around them, those of nested programs too."""
    for eqn in jaxpr.eqns:
        inner = (*scope, *str(eqn.source_info.name_stack).split('/'))
        yield eqn, inner
        for nested in jex_core.jaxprs_in_params(eqn.params):
            yield from _equations(nested, inner)


def _products(eqn: Any) -> int:
    """Multiply-adds of a convolution or matrix product: output size times contracted size."""
    if eqn.primitive.name == 'dot_general':
        (contracted, _), _ = eqn.params['dimension_numbers']
        lhs = eqn.invars[0].aval.shape
        return eqn.outvars[0].aval.size * math.prod(lhs[axis] for axis in contracted)
    if eqn.primitive.name == 'conv_general_dilated':
        kernel = eqn.invars[1].aval
        out_features = kernel.shape[eqn.params['dimension_numbers'].rhs_spec[0]]
        return eqn.outvars[0].aval.size * kernel.size // out_features
    return 0
