"""Counts parameters and multiply-accumulates (MACs) in the traced program of a network.

Two things are counted for one image in inference, and kept apart:

* matmul MACs: those of convolutions and matrix products, as in published tables. Padding counts;
  adding a bias does not.
* elementwise work of attention: one for each element that a multiplication, division, square or
  integer power produces in an attention block. Elsewhere, as in BatchNorm, it counts nothing.
  Additions, comparisons, maxima, exponentials, roots and sigmoids count nothing anywhere.

Work that does not depend on the image, as computing BatchNorm's scale and offset in inference,
counts nothing. The multiply-adds of the SSANet paper are the sum of both: 3.86 G for ResNet-50
(v1), 0.011 G more with SSA.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssanet_jax.analysis.interception import ModuleCall, on_call
from ssanet_jax.analysis.jaxpr_macs import equations, macs_of
from ssanet_jax.attention import ATTENTION
from ssanet_jax.layers import unwrap_partial
from ssanet_jax.models.folded_tail import FoldedTail, plain_form
from ssanet_jax.models.residual_block import ResidualBlock

Shape = tuple[int, ...]

_ELEMENTWISE = {'mul', 'div', 'square', 'integer_pow'}


class Cost(NamedTuple):
    """Cost of one image in a forward pass.

    Attributes:
      parameters: number of trainable values.
      matmul_macs: MACs of convolutions and matrix products.
      attention_matmul_macs: those of `matmul_macs` in attention blocks.
      attention_elementwise: elementwise multiplications, divisions, squares and integer powers in
        attention blocks.
    """

    parameters: int
    matmul_macs: int
    attention_matmul_macs: int
    attention_elementwise: int

    @property
    def macs(self) -> int:
        """Matmul MACs plus elementwise work, as the SSANet paper counts."""
        return self.matmul_macs + self.attention_elementwise


class LayerCost(NamedTuple):
    """Cost of one module itself, without its submodules, over all of its calls.

    Attributes:
      path: 'layer1_0/conv1'; '' for the network.
      kind: class name.
      attention: whether it is an attention block or part of one.
      outputs: shapes of the arrays that its last call returned, for one image.
      parameters: number of trainable values.
      matmul_macs: MACs of convolutions and matrix products.
      elementwise: elementwise multiplications as in `Cost`; 0 outside of attention.
    """

    path: str
    kind: str
    attention: bool
    outputs: tuple[Shape, ...]
    parameters: int
    matmul_macs: int
    elementwise: int

    @property
    def output(self) -> str:
        """'56x56x256' for an output of shape [1, 56, 56, 256]."""
        return ', '.join('x'.join(map(str, shape[1:])) for shape in self.outputs)


def model_cost(model: nn.Module, image_size: int) -> Cost:
    """Counts for one image [1, image_size, image_size, 3], in inference mode.

    >>> from ssanet_jax import create_model
    >>> model_cost(create_model('resnet50', num_classes=1000, variant='v1'), 224).macs
    3857973248
    """
    return total_cost(layer_costs(model, image_size))


def total_cost(layers: Sequence[LayerCost]) -> Cost:
    """The sum over layers."""
    return Cost(
        parameters=sum(layer.parameters for layer in layers),
        matmul_macs=sum(layer.matmul_macs for layer in layers),
        attention_matmul_macs=sum(layer.matmul_macs for layer in layers if layer.attention),
        attention_elementwise=sum(layer.elementwise for layer in layers),
    )


def layer_costs(model: nn.Module, image_size: int) -> list[LayerCost]:
    """Counts for every module, in the order of their first calls.

    Each parameter and each MAC belongs to exactly one module, the innermost around it. Residual
    tails are counted in their plain form, so that networks are comparable. Attention blocks are
    recognized by class: those in `ATTENTION`, and that of `model.attention`.

    Args:
      model: called as model(images, train=False).
      image_size: height and width of the image.
    """
    model = plain_form(model)
    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    modules: dict[str, nn.Module] = {}
    outputs: dict[str, tuple[Shape, ...]] = {}

    def record(call: ModuleCall) -> Any:
        modules.setdefault(call.path, call.module)
        result = call()
        outputs[call.path] = _shapes(result)
        return result

    with on_call(record):
        program, (logits, variables) = jax.make_jaxpr(
            lambda x: model.init_with_output(jax.random.key(0), x, train=False), return_shape=True
        )(image)
    parameters = _parameters(modules, variables.get('params', {}))
    matmul_macs, elementwise = Counter[str](), Counter[str]()
    attention = {path: _is_attention(path, modules, model) for path in modules}
    for eqn, scope in equations(program.jaxpr, num_results=len(jax.tree.leaves(logits))):
        path = _path(scope, modules)
        matmul_macs[path] += macs_of(eqn)
        if attention[path] and eqn.primitive.name in _ELEMENTWISE:
            elementwise[path] += eqn.outvars[0].aval.size
    return [
        LayerCost(
            path,
            type(module).__name__,
            attention[path],
            outputs[path],
            parameters[path],
            matmul_macs[path],
            elementwise[path],
        )
        for path, module in modules.items()
    ]


def count_tails(model: nn.Module, image_size: int, batch_size: int) -> dict[str, int]:
    """Counts residual blocks by form of tail in training: {'folded': 16, 'plain': 0}.

    Args:
      model: made by `create_model`.
      image_size: height and width of the images.
      batch_size: images on one device.
    """
    kinds = Counter[type]()

    def count(call: ModuleCall) -> Any:
        for kind in (ResidualBlock, FoldedTail):
            kinds[kind] += isinstance(call.module, kind)
        return call()

    images = jax.ShapeDtypeStruct((batch_size, image_size, image_size, 3), jnp.float32)
    with on_call(count):
        jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=True), images)
    return {'folded': kinds[FoldedTail], 'plain': kinds[ResidualBlock] - kinds[FoldedTail]}


def _path(scope: Sequence[str], modules: Mapping[str, nn.Module]) -> str:
    """The innermost module of the scope that flax gives its equations, 'Net/conv1/jit(f)'."""
    path = ''
    for name in scope[1:]:
        inner = f'{path}/{name}' if path else name
        path = inner if inner in modules else path
    return path


def _parameters(modules: Mapping[str, nn.Module], params: Any) -> Counter[str]:
    """The number of each module's own parameters."""
    counts = Counter[str]()
    for keys, leaf in jax.tree.leaves_with_path(params):
        path = '/'.join(key.key for key in keys)
        while path not in modules:
            path = path.rpartition('/')[0]
        counts[path] += leaf.size
    return counts


def _is_attention(path: str, modules: Mapping[str, nn.Module], model: nn.Module) -> bool:
    """Whether a module is an attention block or inside one."""
    made = map(unwrap_partial, (*ATTENTION.values(), getattr(model, 'attention', None)))
    blocks = tuple(kind for kind in made if isinstance(kind, type))
    names = path.split('/')
    around = {'', *('/'.join(names[: i + 1]) for i in range(len(names)))}
    return any(isinstance(modules.get(outer), blocks) for outer in around)


def _shapes(tree: Any) -> tuple[Shape, ...]:
    return tuple(leaf.shape for leaf in jax.tree.leaves(tree) if hasattr(leaf, 'shape'))
