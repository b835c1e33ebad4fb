"""An ONNX graph while it is built: nodes, constants, and values with their shapes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from jax import export
from jax.extend.core import JaxprEqn

Shape = tuple[Any, ...]  # of ints, and of jax's symbolic dimensions where images are counted


class Tensor(NamedTuple):
    """What a node computes, by its name.

    Its shape may have 1 where that of the JAX value is longer: ONNX's operators that work element
    by element stretch it. The same holds for constants, which are NumPy arrays.
    """

    name: str
    shape: Shape


Value = Tensor | np.ndarray


class Graph:
    """Nodes and constants, to which the rules of `onnx_rules` add."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._constants: dict[Any, tuple[str, np.ndarray]] = {}

    def constants(self) -> list[onnx.TensorProto]:
        """What the nodes use that no node computes."""
        return [
            onnx.numpy_helper.from_array(array, name) for name, array in self._constants.values()
        ]

    def add(self, operator: str, *inputs: Value, shape: Shape, **attributes: Any) -> Tensor:
        """A node with one result, of `shape`."""
        return self.add_several(operator, *inputs, shapes=[shape], **attributes)[0]

    def add_several(
        self, operator: str, *inputs: Value, shapes: Sequence[Shape], **attributes: Any
    ) -> list[Tensor]:
        """A node with a result of each shape."""
        names = [f'{operator}_{len(self.nodes)}_{i}' for i in range(len(shapes))]
        given = [self.name(value) for value in inputs]
        self.nodes.append(onnx.helper.make_node(operator, given, names, **attributes))
        return [Tensor(name, tuple(shape)) for name, shape in zip(names, shapes, strict=True)]

    def elementwise(self, operator: str, *inputs: Value) -> Tensor:
        """A node whose inputs are stretched to each other's shapes."""
        rank = max(len(value.shape) for value in inputs)
        shapes = [(1,) * (rank - len(value.shape)) + tuple(value.shape) for value in inputs]
        shape = [
            next((length for length in lengths if length != 1), 1)
            for lengths in zip(*shapes, strict=True)
        ]
        return self.add(operator, *inputs, shape=tuple(shape))

    def stretch(self, value: Value, shape: Shape) -> Value:
        """The same with every axis as long as `shape` says; ValueError where images are many."""
        if tuple(value.shape) == tuple(shape):
            return value
        target = []
        for have, want in zip(value.shape, shape, strict=True):
            symbolic = export.is_symbolic_dim(want)
            if symbolic and have != want:
                raise ValueError('a value that is the same for all images would be repeated')
            target.append(1 if symbolic else want)  # Expand leaves the axis as it is
        return self.add('Expand', value, integers(target), shape=shape)

    def name(self, value: Value) -> str:
        """What nodes call it; constants become part of the graph, equal small ones once."""
        if isinstance(value, Tensor):
            return value.name
        small = value.nbytes <= 64
        key = (value.dtype.str, value.shape, value.tobytes()) if small else id(value)
        name, _ = self._constants.setdefault(key, (f'constant_{len(self._constants)}', value))
        return name


def shape_of(eqn: JaxprEqn) -> Shape:
    """Of the first result."""
    return var_shape(eqn.outvars[0])


def var_shape(var: Any) -> Shape:
    """Of a variable or literal of a jaxpr."""
    return tuple(var.aval.shape)


def var_dtype(var: Any) -> np.dtype:
    """Of a variable or literal of a jaxpr."""
    return np.dtype(var.aval.dtype)


def permute(graph: Graph, x: Value, order: Sequence[int]) -> Value:
    """The axes of x in another order."""
    if isinstance(x, np.ndarray):
        return np.ascontiguousarray(x.transpose(order))
    if list(order) == sorted(order):
        return x
    return graph.add('Transpose', x, shape=tuple(x.shape[a] for a in order), perm=list(order))


def integers(values: Sequence[Any] | np.ndarray) -> np.ndarray:
    """A constant of the type that ONNX has for axes, lengths and places."""
    return np.array(values, np.int64)
