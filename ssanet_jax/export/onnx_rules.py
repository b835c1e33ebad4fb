"""How each JAX primitive is written in ONNX, of those that networks here apply."""

from collections.abc import Callable
from functools import partial

import numpy as np
import onnx
from jax import export
from jax.extend.core import JaxprEqn

from ssanet_jax.export import onnx_windows
from ssanet_jax.export.onnx_graph import (
    Graph,
    Tensor,
    Value,
    integers,
    permute,
    shape_of,
    var_dtype,
    var_shape,
)

Rule = Callable[..., Value | list[Tensor]]

_ELEMENTWISE = {
    'abs': 'Abs',
    'add': 'Add',
    'and': 'And',
    'div': 'Div',
    'eq': 'Equal',
    'exp': 'Exp',
    'ge': 'GreaterOrEqual',
    'gt': 'Greater',
    'le': 'LessOrEqual',
    'log': 'Log',
    'logistic': 'Sigmoid',
    'lt': 'Less',
    'max': 'Max',
    'min': 'Min',
    'mul': 'Mul',
    'neg': 'Neg',
    'not': 'Not',
    'or': 'Or',
    'pow': 'Pow',
    'sqrt': 'Sqrt',
    'sub': 'Sub',
    'tanh': 'Tanh',
}


def _elementwise(operator: str, graph: Graph, eqn: JaxprEqn, *values: Value) -> Value:
    return graph.elementwise(operator, *values)


def _max(graph: Graph, eqn: JaxprEqn, a: Value, b: Value) -> Value:
    for value, other in ((a, b), (b, a)):
        if isinstance(other, np.ndarray) and not other.any():
            return graph.add('Relu', value, shape=value.shape)  # which runtimes fuse
    return graph.elementwise('Max', a, b)


def _same(graph: Graph, eqn: JaxprEqn, value: Value) -> Value:
    return value


def _rsqrt(graph: Graph, eqn: JaxprEqn, x: Value) -> Value:
    return graph.elementwise('Reciprocal', graph.elementwise('Sqrt', x))


def _square(graph: Graph, eqn: JaxprEqn, x: Value) -> Value:
    return graph.elementwise('Mul', x, x)


def _integer_pow(graph: Graph, eqn: JaxprEqn, x: Value) -> Value:
    exponent = np.array(eqn.params['y'], var_dtype(eqn.invars[0]))
    return graph.elementwise('Pow', x, exponent)


def _not_equal(graph: Graph, eqn: JaxprEqn, a: Value, b: Value) -> Value:
    return graph.elementwise('Not', graph.elementwise('Equal', a, b))


def _select(graph: Graph, eqn: JaxprEqn, which: Value, *cases: Value) -> Value:
    if var_dtype(eqn.invars[0]).kind != 'b':
        raise ValueError('it selects between more than two')
    return graph.elementwise('Where', which, *reversed(cases))


def _cast(graph: Graph, eqn: JaxprEqn, x: Value) -> Value:
    to = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(eqn.params['new_dtype']))
    return graph.add('Cast', x, shape=x.shape, to=to)


def _iota(graph: Graph, eqn: JaxprEqn) -> Value:
    shape, axis = shape_of(eqn), eqn.params['dimension']
    if export.is_symbolic_dim(shape[axis]):
        raise ValueError('it counts images')
    ones = [length if a == axis else 1 for a, length in enumerate(shape)]
    return np.arange(shape[axis], dtype=eqn.params['dtype']).reshape(ones)


def _broadcast(graph: Graph, eqn: JaxprEqn, x: Value, *_: Value) -> Value:
    """Axes of length 1 alone; who needs more stretches them."""
    places = eqn.params['broadcast_dimensions']
    shape = [1] * len(shape_of(eqn))
    for place, length in zip(places, x.shape, strict=True):
        shape[place] = length
    new = [axis for axis in range(len(shape)) if axis not in places]
    if isinstance(x, np.ndarray):
        return x.reshape(shape)
    return graph.add('Unsqueeze', x, integers(new), shape=tuple(shape)) if new else x


def _reshape(graph: Graph, eqn: JaxprEqn, x: Value, *_: Value) -> Value:
    target = [-1 if export.is_symbolic_dim(d) else d for d in shape_of(eqn)]
    return graph.add('Reshape', x, integers(target), shape=shape_of(eqn))


def _squeeze(graph: Graph, eqn: JaxprEqn, x: Value) -> Value:
    return graph.add('Squeeze', x, integers(eqn.params['dimensions']), shape=shape_of(eqn))


def _transpose(graph: Graph, eqn: JaxprEqn, x: Value) -> Value:
    return permute(graph, x, eqn.params['permutation'])


def _concatenate(graph: Graph, eqn: JaxprEqn, *values: Value) -> Value:
    axis = eqn.params['dimension']
    return graph.add('Concat', *values, shape=shape_of(eqn), axis=axis)


def _stack(graph: Graph, eqn: JaxprEqn, *values: Value) -> Value:
    axis = eqn.params['axis']
    parts = [
        graph.add('Unsqueeze', x, integers([axis]), shape=(*x.shape[:axis], 1, *x.shape[axis:]))
        for x in values
    ]
    return graph.add('Concat', *parts, shape=shape_of(eqn), axis=axis)


def _split(graph: Graph, eqn: JaxprEqn, x: Value) -> list[Tensor]:
    shapes = [var_shape(var) for var in eqn.outvars]
    sizes, axis = integers(eqn.params['sizes']), eqn.params['axis']
    return graph.add_several('Split', x, sizes, shapes=shapes, axis=axis)


def _pad(graph: Graph, eqn: JaxprEqn, x: Value, fill: Value) -> Value:
    low, high, inner = zip(*eqn.params['padding_config'], strict=True)
    if any(inner):
        raise ValueError('it pads between the values')
    return graph.add('Pad', x, integers([*low, *high]), fill, shape=shape_of(eqn))


def _reduce(operator: str, graph: Graph, eqn: JaxprEqn, x: Value) -> Value:
    axes = integers(eqn.params['axes'])
    return graph.add(operator, x, axes, shape=shape_of(eqn), keepdims=0)


def _argmax(graph: Graph, eqn: JaxprEqn, x: Value) -> Value:
    (axis,) = eqn.params['axes']
    index = graph.add('ArgMax', x, shape=shape_of(eqn), axis=axis, keepdims=0)
    to = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(eqn.params['index_dtype']))
    return graph.add('Cast', index, shape=index.shape, to=to)


# Their inputs may have 1 where the JAX values are longer.
STRETCHING: dict[str, Rule] = {
    **{name: partial(_elementwise, operator) for name, operator in _ELEMENTWISE.items()},
    'broadcast_in_dim': _broadcast,
    'convert_element_type': _cast,
    'copy': _same,
    'integer_pow': _integer_pow,
    'max': _max,
    'ne': _not_equal,
    'rsqrt': _rsqrt,
    'select_n': _select,
    'square': _square,
    'stop_gradient': _same,
}

RULES: dict[str, Rule] = {
    **STRETCHING,
    'argmax': _argmax,
    'concatenate': _concatenate,
    'conv_general_dilated': onnx_windows.convolution,
    'dot_general': onnx_windows.dot,
    'gather': onnx_windows.gather,
    'iota': _iota,
    'pad': _pad,
    'reduce_max': partial(_reduce, 'ReduceMax'),
    'reduce_min': partial(_reduce, 'ReduceMin'),
    'reduce_sum': partial(_reduce, 'ReduceSum'),
    'reduce_window_max': partial(onnx_windows.pool, 'MaxPool'),
    'reduce_window_sum': partial(onnx_windows.pool, 'AveragePool'),
    'reshape': _reshape,
    'slice': onnx_windows.cut,
    'split': _split,
    'squeeze': _squeeze,
    'stack': _stack,
    'transpose': _transpose,
}
