"""ONNX nodes for each JAX primitive that networks of this package use in inference."""

from collections.abc import Callable
from functools import partial

import numpy as np
import onnx
from jax import export
from jax.extend.core import JaxprEqn

from ssanet_jax.export.onnx_graph import Graph, Tensor, Value, aval, int64, out_shape

Rule = Callable[..., Value | list[Tensor]]  # of graph, equation, *inputs

# fmt: off
_ELEMENTWISE = {
    'abs': 'Abs', 'add': 'Add', 'and': 'And', 'div': 'Div', 'eq': 'Equal', 'exp': 'Exp',
    'ge': 'GreaterOrEqual', 'gt': 'Greater', 'le': 'LessOrEqual', 'log': 'Log',
    'logistic': 'Sigmoid', 'lt': 'Less', 'min': 'Min', 'mul': 'Mul', 'neg': 'Neg', 'not': 'Not',
    'or': 'Or', 'pow': 'Pow', 'sqrt': 'Sqrt', 'sub': 'Sub', 'tanh': 'Tanh',
}
# fmt: on


def _elementwise(operator: str, graph: Graph, eqn: JaxprEqn, *values: Value) -> Value:
    return graph.elementwise(operator, *values)


def _max(graph: Graph, eqn: JaxprEqn, a: Value, b: Value) -> Value:
    for value, other in ((a, b), (b, a)):
        if isinstance(other, np.ndarray) and not other.any():
            return graph.add('Relu', value, shape=value.shape)  # which runtimes fuse
    return graph.elementwise('Max', a, b)


def _integer_pow(graph: Graph, eqn: JaxprEqn, x: Value) -> Value:
    return graph.elementwise('Pow', x, np.array(eqn.params['y'], aval(eqn.invars[0]).dtype))


def _select(graph: Graph, eqn: JaxprEqn, which: Value, *cases: Value) -> Value:
    if aval(eqn.invars[0]).dtype.kind != 'b':
        raise ValueError('it selects between more than two')
    return graph.elementwise('Where', which, *reversed(cases))


def _cast(graph: Graph, eqn: JaxprEqn, x: Value) -> Value:
    to = onnx.helper.np_dtype_to_tensor_dtype(aval(eqn.outvars[0]).dtype)
    return graph.add('Cast', x, shape=x.shape, to=to)


def _iota(graph: Graph, eqn: JaxprEqn) -> Value:
    shape, axis = out_shape(eqn), eqn.params['dimension']
    if export.is_symbolic_dim(shape[axis]):
        raise ValueError('it counts images')
    ones = [length if a == axis else 1 for a, length in enumerate(shape)]
    return np.arange(shape[axis], dtype=eqn.params['dtype']).reshape(ones)


def _broadcast(graph: Graph, eqn: JaxprEqn, x: Value, *_: Value) -> Value:
    """Adds axes of length 1; rules that need more stretch them."""
    axes = eqn.params['broadcast_dimensions']
    shape = [1] * len(out_shape(eqn))
    for axis, length in zip(axes, x.shape, strict=True):
        shape[axis] = length
    if isinstance(x, np.ndarray):
        return x.reshape(shape)
    new = [axis for axis in range(len(shape)) if axis not in axes]
    return graph.add('Unsqueeze', x, int64(new), shape=shape) if new else x


def _reshape(graph: Graph, eqn: JaxprEqn, x: Value, *_: Value) -> Value:
    target = [-1 if export.is_symbolic_dim(d) else d for d in out_shape(eqn)]
    return graph.add('Reshape', x, int64(target), shape=out_shape(eqn))


def _squeeze(graph: Graph, eqn: JaxprEqn, x: Value) -> Value:
    return graph.add('Squeeze', x, int64(eqn.params['dimensions']), shape=out_shape(eqn))


def _concatenate(graph: Graph, eqn: JaxprEqn, *values: Value) -> Value:
    return graph.add('Concat', *values, shape=out_shape(eqn), axis=eqn.params['dimension'])


def _stack(graph: Graph, eqn: JaxprEqn, *values: Value) -> Value:
    axis = eqn.params['axis']
    parts = [
        graph.add('Unsqueeze', x, int64([axis]), shape=(*x.shape[:axis], 1, *x.shape[axis:]))
        for x in values
    ]
    return graph.add('Concat', *parts, shape=out_shape(eqn), axis=axis)


def _split(graph: Graph, eqn: JaxprEqn, x: Value) -> list[Tensor]:
    sizes, shapes = int64(eqn.params['sizes']), [aval(var).shape for var in eqn.outvars]
    return graph.add_multiple('Split', x, sizes, shapes=shapes, axis=eqn.params['axis'])


def _pad(graph: Graph, eqn: JaxprEqn, x: Value, fill: Value) -> Value:
    low, high, interior = zip(*eqn.params['padding_config'], strict=True)
    if any(interior):
        raise ValueError('it pads between the values')
    return graph.add('Pad', x, int64([*low, *high]), fill, shape=out_shape(eqn))


def _reduce(operator: str, graph: Graph, eqn: JaxprEqn, x: Value) -> Value:
    axes = int64(eqn.params['axes'])
    return graph.add(operator, x, axes, shape=out_shape(eqn), keepdims=0)


def _argmax(graph: Graph, eqn: JaxprEqn, x: Value) -> Value:
    (axis,) = eqn.params['axes']
    return _cast(graph, eqn, graph.add('ArgMax', x, shape=out_shape(eqn), axis=axis, keepdims=0))


def _slice(graph: Graph, eqn: JaxprEqn, x: Value) -> Value:
    """Slices only the axes that get shorter: the length of the batch axis is unknown."""
    starts, stops = eqn.params['start_indices'], eqn.params['limit_indices']
    strides = eqn.params['strides'] or [1] * len(starts)
    axes = [axis for axis, length in enumerate(out_shape(eqn)) if length != x.shape[axis]]
    starts, stops, strides = (int64([part[a] for a in axes]) for part in (starts, stops, strides))
    return graph.add('Slice', x, starts, stops, int64(axes), strides, shape=out_shape(eqn))


def _gather(graph: Graph, eqn: JaxprEqn, x: Value, indices: Value) -> Value:
    """Gathers a window at a constant position, or a grid of constant rows and columns."""
    numbers, sizes = eqn.params['dimension_numbers'], eqn.params['slice_sizes']
    axes, collapsed = numbers.start_index_map, numbers.collapsed_slice_dims
    others = [axis for axis in range(len(x.shape)) if axis not in axes]
    if not isinstance(indices, np.ndarray) or any(sizes[a] != x.shape[a] for a in others):
        raise ValueError('its indices depend on the images')
    if indices.ndim == 1:
        stops = [start + sizes[axis] for start, axis in zip(indices, axes, strict=True)]
        window = graph.add('Slice', x, *map(int64, (indices, stops, axes)), shape=sizes)
        if not collapsed:  # without axes, Squeeze would remove every axis of length 1
            return window
        return graph.add('Squeeze', window, int64(collapsed), shape=out_shape(eqn))
    if not axes == collapsed == tuple(sorted(axes)) or [*numbers.offset_dims] != others:
        raise ValueError('its indices do not form a grid')
    for k, axis in enumerate(axes):
        lines = np.moveaxis(indices[..., k], k, 0).reshape(indices.shape[k], -1)
        if (lines != lines[:, :1]).any():
            raise ValueError('its indices do not form a grid')
        shape = (*x.shape[:axis], len(lines), *x.shape[axis + 1 :])
        x = graph.add('Gather', x, int64(lines[:, 0]), shape=shape, axis=axis)
    return x


def _dot(graph: Graph, eqn: JaxprEqn, a: Value, b: Value) -> Value:
    """A MatMul where it is one, otherwise an Einsum."""
    (left, right), (left_batch, right_batch) = eqn.params['dimension_numbers']
    if tuple(left) == (len(a.shape) - 1,) and tuple(right) == (0,) and len(b.shape) == 2:
        return graph.add('MatMul', a, b, shape=out_shape(eqn))
    letters = iter('abcdefghijklmnopqrstuvwxyz')
    in_a = [next(letters) for _ in a.shape]
    in_b = [next(letters) for _ in b.shape]
    for i, k in zip((*left, *left_batch), (*right, *right_batch), strict=True):
        in_b[k] = in_a[i]
    free = [x for i, x in enumerate(in_a) if i not in (*left, *left_batch)]
    free += [x for i, x in enumerate(in_b) if i not in (*right, *right_batch)]
    out = [in_a[i] for i in left_batch] + free
    equation = f'{"".join(in_a)},{"".join(in_b)}->{"".join(out)}'
    return graph.add('Einsum', a, b, shape=out_shape(eqn), equation=equation)


def _convolution(graph: Graph, eqn: JaxprEqn, x: Value, kernel: Value) -> Value:
    """ONNX convolves [N, C, H, W]; runtimes move the Transposes around it, or remove them."""
    numbers, options = eqn.params['dimension_numbers'], eqn.params
    if set(options['lhs_dilation']) != {1} or options['batch_group_count'] != 1:
        raise ValueError('it is transposed')
    below, above = zip(*options['padding'], strict=True)
    order = numbers.out_spec
    y = graph.add(
        'Conv',
        graph.permute(x, numbers.lhs_spec),
        graph.permute(kernel, numbers.rhs_spec),
        shape=[out_shape(eqn)[axis] for axis in order],
        strides=list(options['window_strides']),
        pads=[*below, *above],
        dilations=list(options['rhs_dilation']),
        group=options['feature_group_count'],
    )
    return graph.permute(y, np.argsort(order).tolist())


def _pool(operator: str, graph: Graph, eqn: JaxprEqn, x: Value) -> Value:
    """Maxima or sums over windows of [N, H, W, C]; a sum is ONNX's mean times the window's size."""
    options, window = eqn.params, eqn.params['window_dimensions']
    if len(window) != 4 or window[0] != 1 or window[3] != 1:
        raise ValueError('its windows are not over height and width')
    if {*options['base_dilation'], *options['window_dilation']} != {1}:
        raise ValueError('its windows have gaps')
    below, above = zip(*options['padding'][1:3], strict=True)
    y = graph.add(
        operator,
        graph.permute(x, (0, 3, 1, 2)),
        shape=[out_shape(eqn)[axis] for axis in (0, 3, 1, 2)],
        kernel_shape=list(window[1:3]),
        strides=list(options['window_strides'][1:3]),
        pads=[*below, *above],
        **({'count_include_pad': 1} if operator == 'AveragePool' else {}),
    )
    pooled = graph.permute(y, (0, 2, 3, 1))
    if operator == 'MaxPool':
        return pooled
    size = np.array(window[1] * window[2], aval(eqn.invars[0]).dtype)
    return graph.elementwise('Mul', pooled, size)


# Their inputs may have length 1 where the JAX values are longer.
STRETCHING: dict[str, Rule] = {
    **{name: partial(_elementwise, operator) for name, operator in _ELEMENTWISE.items()},
    'broadcast_in_dim': _broadcast,
    'convert_element_type': _cast,
    'copy': lambda graph, eqn, x: x,
    'integer_pow': _integer_pow,
    'max': _max,
    'ne': lambda graph, eqn, a, b: graph.elementwise('Not', graph.elementwise('Equal', a, b)),
    'rsqrt': lambda graph, eqn, x: graph.elementwise('Reciprocal', graph.elementwise('Sqrt', x)),
    'select_n': _select,
    'square': lambda graph, eqn, x: graph.elementwise('Mul', x, x),
    'stop_gradient': lambda graph, eqn, x: x,
}

RULES: dict[str, Rule] = {
    **STRETCHING,
    'argmax': _argmax,
    'concatenate': _concatenate,
    'conv_general_dilated': _convolution,
    'dot_general': _dot,
    'gather': _gather,
    'iota': _iota,
    'pad': _pad,
    'reduce_max': partial(_reduce, 'ReduceMax'),
    'reduce_min': partial(_reduce, 'ReduceMin'),
    'reduce_sum': partial(_reduce, 'ReduceSum'),
    'reduce_window_max': partial(_pool, 'MaxPool'),
    'reduce_window_sum': partial(_pool, 'AveragePool'),
    'reshape': _reshape,
    'slice': _slice,
    'split': _split,
    'squeeze': _squeeze,
    'stack': _stack,
    'transpose': lambda graph, eqn, x: graph.permute(x, eqn.params['permutation']),
}
