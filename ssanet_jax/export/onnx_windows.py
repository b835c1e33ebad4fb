"""Products, windows and places: the primitives whose ONNX counterparts differ most from JAX's."""

import numpy as np
from jax.extend.core import JaxprEqn

from ssanet_jax.export.onnx_graph import Graph, Value, integers, permute, shape_of, var_dtype


def gather(graph: Graph, eqn: JaxprEqn, x: Value, places: Value) -> Value:
    """A window at a place that is known, or rows and columns that are."""
    numbers, sizes = eqn.params['dimension_numbers'], eqn.params['slice_sizes']
    axes, collapsed = numbers.start_index_map, numbers.collapsed_slice_dims
    others = [axis for axis in range(len(x.shape)) if axis not in axes]
    if not isinstance(places, np.ndarray) or any(sizes[a] != x.shape[a] for a in others):
        raise ValueError('its places depend on the images')
    if places.ndim == 1:
        stops = [start + sizes[axis] for start, axis in zip(places, axes, strict=True)]
        window = graph.add('Slice', x, *map(integers, (places, stops, axes)), shape=sizes)
        if not collapsed:  # Without axes, Squeeze would take all of length 1.
            return window
        return graph.add('Squeeze', window, integers(collapsed), shape=shape_of(eqn))
    if not axes == collapsed == tuple(sorted(axes)) or [*numbers.offset_dims] != others:
        raise ValueError('its places are no grid')
    for k, axis in enumerate(axes):
        lines = np.moveaxis(places[..., k], k, 0).reshape(places.shape[k], -1)
        if (lines != lines[:, :1]).any():
            raise ValueError('its places are no grid')
        shape = (*x.shape[:axis], len(lines), *x.shape[axis + 1 :])
        x = graph.add('Gather', x, integers(lines[:, 0]), shape=shape, axis=axis)
    return x


def cut(graph: Graph, eqn: JaxprEqn, x: Value) -> Value:
    """A slice; of axes that are cut only, since the number of images is not known."""
    starts, stops = eqn.params['start_indices'], eqn.params['limit_indices']
    steps = eqn.params['strides'] or [1] * len(starts)
    axes = [axis for axis, length in enumerate(shape_of(eqn)) if length != x.shape[axis]]
    cuts = [integers([part[axis] for axis in axes]) for part in (starts, stops)]
    steps = integers([steps[axis] for axis in axes])
    return graph.add('Slice', x, *cuts, integers(axes), steps, shape=shape_of(eqn))


def dot(graph: Graph, eqn: JaxprEqn, a: Value, b: Value) -> Value:
    """A matrix product where it is one, otherwise an Einsum."""
    (left, right), (left_batch, right_batch) = eqn.params['dimension_numbers']
    rank = len(a.shape)
    if tuple(left) == (rank - 1,) and tuple(right) == (0,) and len(b.shape) == 2:
        return graph.add('MatMul', a, b, shape=shape_of(eqn))
    letters = iter('abcdefghijklmnopqrstuvwxyz')
    in_a = [next(letters) for _ in a.shape]
    in_b = [next(letters) for _ in b.shape]
    for mine, other in zip((*left, *left_batch), (*right, *right_batch), strict=True):
        in_b[other] = in_a[mine]
    free = [x for i, x in enumerate(in_a) if i not in (*left, *left_batch)]
    free += [x for i, x in enumerate(in_b) if i not in (*right, *right_batch)]
    out = [in_a[i] for i in left_batch] + free
    equation = f'{"".join(in_a)},{"".join(in_b)}->{"".join(out)}'
    return graph.add('Einsum', a, b, shape=shape_of(eqn), equation=equation)


def convolution(graph: Graph, eqn: JaxprEqn, x: Value, kernel: Value) -> Value:
    """ONNX's is of [N, C, H, W]; runtimes move the Transposes around it, or drop them."""
    numbers, options = eqn.params['dimension_numbers'], eqn.params
    if set(options['lhs_dilation']) != {1} or options['batch_group_count'] != 1:
        raise ValueError('it is transposed')
    below, above = zip(*options['padding'], strict=True)
    order = numbers.out_spec
    y = graph.add(
        'Conv',
        permute(graph, x, numbers.lhs_spec),
        permute(graph, kernel, numbers.rhs_spec),
        shape=tuple(shape_of(eqn)[axis] for axis in order),
        strides=list(options['window_strides']),
        pads=[*below, *above],
        dilations=list(options['rhs_dilation']),
        group=options['feature_group_count'],
    )
    return permute(graph, y, np.argsort(order).tolist())


def pool(operator: str, graph: Graph, eqn: JaxprEqn, x: Value) -> Value:
    """Maxima or sums over windows of [N, H, W, C]; ONNX has means, in which padding counts."""
    options, window = eqn.params, eqn.params['window_dimensions']
    if len(window) != 4 or window[0] != 1 or window[3] != 1:
        raise ValueError('its windows are not over height and width')
    if {*options['base_dilation'], *options['window_dilation']} != {1}:
        raise ValueError('its windows have gaps')
    below, above = zip(*options['padding'][1:3], strict=True)
    attributes = {'count_include_pad': 1} if operator == 'AveragePool' else {}
    y = graph.add(
        operator,
        permute(graph, x, (0, 3, 1, 2)),
        shape=tuple(shape_of(eqn)[axis] for axis in (0, 3, 1, 2)),
        kernel_shape=list(window[1:3]),
        strides=list(options['window_strides'][1:3]),
        pads=[*below, *above],
        **attributes,
    )
    pooled = permute(graph, y, (0, 2, 3, 1))
    if operator == 'MaxPool':
        return pooled
    return graph.elementwise(
        'Mul', pooled, np.array(window[1] * window[2], var_dtype(eqn.invars[0]))
    )
