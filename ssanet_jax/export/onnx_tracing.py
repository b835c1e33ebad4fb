"""A JAX function of images as an ONNX model: traced, then each primitive by its rule.

What depends on weights alone is computed here and stored. Only the primitives that networks of
this package are made of when they are applied have a rule.

jax2onnx 0.17.1 was tried first. It drops padding that `nn.max_pool` is given in numbers, without a
word, refuses the mean-pools of DenseNets, makes no valid graph of GoogLeNets and folded tails, and
wants an Orbax that is older than others do.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import onnx
from jax import export
from jax.extend.core import Jaxpr, JaxprEqn, Literal

from ssanet_jax.export.onnx_graph import Graph, Tensor, Value, var_shape
from ssanet_jax.export.onnx_rules import RULES, STRETCHING

# Calls of a function, which is written where it is called; loops are none of them.
_CALLS = {'jit': 'jaxpr', 'custom_jvp_call': 'call_jaxpr', 'custom_vjp_call': 'call_jaxpr'}

OPSET = 18  # of December 2022
_IR_VERSION = 8  # the one that came with it; the newest is refused by runtimes that are older


def to_onnx(
    fn: Callable[[jax.Array], Mapping[str, jax.Array]],
    shape: Sequence[int],
    dtype: jax.typing.DTypeLike,
) -> onnx.ModelProto:
    """A checked model of `fn`, for any number n of images.

    Args:
      fn: from images [n, ...] to named arrays [n, ...], which become the outputs.
      shape: of one image.
      dtype: of the images; the input is called 'image'.

    Raises:
      NotImplementedError: a primitive has no rule, or is used in a way that ONNX does not have.
    """
    (n,) = export.symbolic_shape('n')
    traced = jax.jit(fn).trace(jax.ShapeDtypeStruct((n, *shape), dtype))
    names = sorted(traced.out_info)  # as JAX orders a dictionary
    graph = Graph()
    closed = traced.jaxpr
    results = _run(graph, closed.jaxpr, closed.consts, [Tensor('image', (n, *shape))])
    for name, value, info in zip(names, results, closed.out_avals, strict=True):
        whole = graph.stretch(value, info.shape)
        graph.nodes.append(onnx.helper.make_node('Identity', [graph.name(whole)], [name]))
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            'ssanet_jax',
            [_declared('image', (n, *shape), dtype)],
            [
                _declared(name, info.shape, info.dtype)
                for name, info in zip(names, closed.out_avals, strict=True)
            ],
            graph.constants(),
        ),
        opset_imports=[onnx.helper.make_opsetid('', OPSET)],
        ir_version=_IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _declared(name: str, shape: Sequence[Any], dtype: jax.typing.DTypeLike) -> onnx.ValueInfoProto:
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    lengths = [str(d) if export.is_symbolic_dim(d) else d for d in shape]
    return onnx.helper.make_tensor_value_info(name, kind, lengths)


def _run(
    graph: Graph, jaxpr: Jaxpr, constants: Sequence[Any], inputs: Sequence[Value]
) -> list[Value]:
    """The results of `jaxpr`, with nodes added to `graph` for what depends on the images."""
    values: dict[Any, Value] = dict(zip(jaxpr.constvars, map(np.asarray, constants), strict=True))
    values |= zip(jaxpr.invars, inputs, strict=True)

    def read(var: Any) -> Value:
        return np.asarray(var.val) if isinstance(var, Literal) else values[var]

    for eqn in jaxpr.eqns:
        values |= zip(eqn.outvars, _equation(graph, eqn, [*map(read, eqn.invars)]), strict=True)
    return [read(var) for var in jaxpr.outvars]


def _equation(graph: Graph, eqn: JaxprEqn, inputs: list[Value]) -> Sequence[Value]:
    name = eqn.primitive.name
    if name in _CALLS:
        inner = eqn.params[_CALLS[name]]
        return _run(graph, inner.jaxpr, inner.consts, inputs)
    shapes = [var_shape(var) for var in (*eqn.invars, *eqn.outvars)]
    fixed = not any(export.is_symbolic_dim(d) for shape in shapes for d in shape)
    if fixed and inputs and all(isinstance(value, np.ndarray) for value in inputs):
        whole = [np.broadcast_to(x, shape) for x, shape in zip(inputs, shapes, strict=False)]
        results = eqn.primitive.bind(*whole, **eqn.params)
        return [*map(np.asarray, results if eqn.primitive.multiple_results else [results])]
    if name not in RULES:
        raise NotImplementedError(name)
    try:
        if name not in STRETCHING:
            inputs = [graph.stretch(x, shape) for x, shape in zip(inputs, shapes, strict=False)]
        results = RULES[name](graph, eqn, *inputs)
    except ValueError as error:
        raise NotImplementedError(f'{name} where {error}') from error
    return results if isinstance(results, list) else [results]
