"""Counts parameters and multiply-adds from the traced program, not from formulas per layer.

Two things are counted for one image in inference, and kept apart:

* products: the multiply-adds of convolutions and matrix products, as all tables of networks have
  them. Pixels of padding count; the addition of a bias does not.
* elementwise work of attention: each element of what a multiplication, division, square or
  integer power makes counts one in an attention block, and nothing elsewhere, as in BatchNorm.
  Additions, comparisons, maxima, exponentials, roots and sigmoids count nothing anywhere.

What does not depend on the image, as BatchNorm's factor and offset in inference, counts nothing.
The multiply-adds of the SSANet paper's tables are both together: 3.86 G for ResNet-50 (v1), and
0.011 G more with SSA.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssanet_jax.analysis.equations import equations, macs_of
from ssanet_jax.attention import ATTENTION
from ssanet_jax.layers import unwrap_partial
from ssanet_jax.models.folded_tail import FoldedTail, plain_form
from ssanet_jax.models.resnet import ResidualBlock

Shape = tuple[int, ...]

_ELEMENTWISE = {'mul', 'div', 'square', 'integer_pow'}
_MARK = '#'  # before the number of a call, in the names of scopes


class Cost(NamedTuple):
    """What one image costs in a forward pass.

    Attributes:
      parameters: trained numbers.
      products: multiply-adds of convolutions and matrix products.
      attention_products: those of them that attention blocks do.
      attention_elementwise: elementwise multiplications in attention blocks; divisions, squares
        and integer powers are counted with them.
    """

    parameters: int
    products: int
    attention_products: int
    attention_elementwise: int

    @property
    def macs(self) -> int:
        """Of convolutions, matrix products and attention, as the SSANet paper counts."""
        return self.products + self.attention_elementwise

    @property
    def attention_multiply_adds(self) -> int:
        """The share of the attention blocks."""
        return self.attention_products + self.attention_elementwise


class LayerCost(NamedTuple):
    """What one call of a module costs by itself, without the modules that it calls.

    Attributes:
      path: names from the network inwards, 'layer1_0/conv1'; '' for the network.
      kind: name of the class.
      attention: whether it is, or is part of, an attention block.
      inputs, outputs: shapes of the arrays that the call takes and returns, for one image.
      parameters: trained numbers; those of a module that is called again are in its first call.
      products: multiply-adds of convolutions and matrix products.
      elementwise: elementwise multiplications as in `Cost`; 0 outside of attention.
    """

    path: str
    kind: str
    attention: bool
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    parameters: int
    products: int
    elementwise: int


def model_cost(model: nn.Module, image_size: int, channels: int = 3) -> Cost:
    """Counts for one image [1, image_size, image_size, channels], in inference mode.

    >>> from ssanet_jax import create_model
    >>> model_cost(create_model('resnet50', num_classes=1000, variant='v1'), 224).macs
    3857973248
    """
    return total_cost(layer_costs(model, image_size, channels))


def total_cost(layers: Sequence[LayerCost]) -> Cost:
    """The sum over layers."""
    return Cost(
        parameters=sum(layer.parameters for layer in layers),
        products=sum(layer.products for layer in layers),
        attention_products=sum(layer.products for layer in layers if layer.attention),
        attention_elementwise=sum(layer.elementwise for layer in layers),
    )


def layer_costs(model: nn.Module, image_size: int, channels: int = 3) -> list[LayerCost]:
    """Counts for every call of a module, in the order in which the calls begin.

    Every parameter and every multiply-add is in exactly one of them: that of the innermost module
    around it. Tails are counted in their plain form, by which networks are compared everywhere.
    Attention is what is in `ATTENTION`, by its class, and what `model.attention` makes.

    Args:
      model: is called as model(images, train=False).
      image_size: height and width of the image.
      channels: of the image.
    """
    model = plain_form(model)
    image = jax.ShapeDtypeStruct((1, image_size, image_size, channels), jnp.float32)
    calls: list[_Call] = []
    with nn.intercept_methods(_recorder(calls)):
        program, (logits, variables) = jax.make_jaxpr(
            lambda x: model.init_with_output(jax.random.key(0), x, train=False), return_shape=True
        )(image)
    inside = _inside_attention(calls, model)
    parameters = _parameters(calls, variables.get('params', {}))
    products, elementwise = _multiply_adds(
        equations(program.jaxpr, num_results=len(jax.tree.leaves(logits))), inside
    )
    return [
        LayerCost(
            '/'.join(call.path),
            type(call.module).__name__,
            inside[index],
            call.inputs,
            call.outputs,
            parameters[index],
            products[index],
            elementwise[index],
        )
        for index, call in enumerate(calls)
    ]


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


@dataclasses.dataclass
class _Call:
    module: nn.Module
    path: tuple[str, ...]
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...] = ()


def _recorder(calls: list[_Call]) -> Callable[..., Any]:
    """An interceptor that notes every call, and marks the equations traced in it by its number."""

    def note(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if context.method_name != '__call__':
            return call(*args, **kwargs)
        record = _Call(context.module, context.module.path, _shapes((args, kwargs)))
        calls.append(record)
        with jax.named_scope(f'{_MARK}{len(calls) - 1}'):
            result = call(*args, **kwargs)
        record.outputs = _shapes(result)
        return result

    return note


def _shapes(tree: Any) -> tuple[Shape, ...]:
    return tuple(leaf.shape for leaf in jax.tree.leaves(tree) if hasattr(leaf, 'shape'))


def _inside_attention(calls: list[_Call], model: nn.Module) -> list[bool]:
    """Whether each call is of an attention block or of a part of one."""
    made = [
        unwrap_partial(make) for make in (*ATTENTION.values(), getattr(model, 'attention', None))
    ]
    blocks = tuple(kind for kind in made if isinstance(kind, type))
    paths = {call.path for call in calls if isinstance(call.module, blocks)}
    return [
        any(call.path[:length] in paths for length in range(len(call.path) + 1)) for call in calls
    ]


def _parameters(calls: list[_Call], params: Any) -> Counter[int]:
    """The number of parameters of each call, by its place in `calls`."""
    first = {call.path: index for index, call in reversed(list(enumerate(calls)))}
    found = Counter[int]()
    for names, leaf in jax.tree.leaves_with_path(params):
        path = tuple(name.key for name in names)
        while path not in first:
            path = path[:-1]
        found[first[path]] += leaf.size
    return found


def _multiply_adds(
    program: Iterable[tuple[Any, tuple[str, ...]]], inside: list[bool]
) -> tuple[Counter[int], Counter[int]]:
    """Products and elementwise work of each call; what is outside of all is the network's."""
    products, elementwise = Counter[int](), Counter[int]()
    for eqn, scope in program:
        marks = [part.removeprefix(_MARK) for part in scope if part.startswith(_MARK)]
        index = int(marks[-1]) if marks else 0
        products[index] += macs_of(eqn)
        if inside[index] and eqn.primitive.name in _ELEMENTWISE:
            elementwise[index] += eqn.outvars[0].aval.size
    return products, elementwise
