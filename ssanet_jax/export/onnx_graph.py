"""An ONNX graph under construction: nodes, constants, and values with their shapes."""

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import onnx
from jax import export
from jax.core import ShapedArray
from jax.extend.core import JaxprEqn, Literal, Var

Shape = Sequence[Any]  # of ints, and of JAX's symbolic dimension for the batch size


class Tensor(NamedTuple):
    """The named result of a node.

    An axis may have length 1 where the JAX value is longer, since ONNX's elementwise operators
    broadcast. The same holds for constants, which are NumPy arrays.
    """

    name: str
    shape: tuple[Any, ...]


Value = Tensor | np.ndarray


class Graph:
    """Nodes and constants, added by the rules of `onnx_rules`."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._constants: dict[Hashable, tuple[str, np.ndarray]] = {}

    def constants(self) -> list[onnx.TensorProto]:
        """The constants that nodes use."""
        return [
            onnx.numpy_helper.from_array(array, name) for name, array in self._constants.values()
        ]

    def add(self, operator: str, *inputs: Value, shape: Shape, **attributes: Any) -> Tensor:
        """Adds a node with one result of `shape`."""
        return self.add_multiple(operator, *inputs, shapes=[shape], **attributes)[0]

    def add_multiple(
        self, operator: str, *inputs: Value, shapes: Sequence[Shape], **attributes: Any
    ) -> list[Tensor]:
        """Adds a node with one result per shape."""
        names = [f'{operator}_{len(self.nodes)}_{i}' for i in range(len(shapes))]
        input_names = [self.name(value) for value in inputs]
        self.nodes.append(onnx.helper.make_node(operator, input_names, names, **attributes))
        return [Tensor(name, tuple(shape)) for name, shape in zip(names, shapes, strict=True)]

    def elementwise(self, operator: str, *inputs: Value) -> Tensor:
        """Adds a node whose inputs broadcast against each other."""
        rank = max(len(value.shape) for value in inputs)
        shapes = [(1,) * (rank - len(value.shape)) + tuple(value.shape) for value in inputs]
        shape = [next((d for d in dims if d != 1), 1) for dims in zip(*shapes, strict=True)]
        return self.add(operator, *inputs, shape=shape)

    def stretch(self, value: Value, shape: Shape) -> Value:
        """Broadcasts `value` to `shape`; raises ValueError if that repeats it over the batch."""
        if tuple(value.shape) == tuple(shape):
            return value
        target = []
        for have, want in zip(value.shape, shape, strict=True):
            symbolic = export.is_symbolic_dim(want)
            if symbolic and have != want:
                raise ValueError('a value that is the same for all images would be repeated')
            target.append(1 if symbolic else want)  # Expand keeps an axis where the target is 1
        return self.add('Expand', value, int64(target), shape=shape)

    def permute(self, x: Value, order: Sequence[int]) -> Value:
        """Reorders the axes of x."""
        if isinstance(x, np.ndarray):
            return np.ascontiguousarray(x.transpose(order))
        if list(order) == sorted(order):
            return x
        return self.add('Transpose', x, shape=[x.shape[a] for a in order], perm=list(order))

    def name(self, value: Value) -> str:
        """The name of a value; adds constants to the graph, equal small ones once."""
        if isinstance(value, Tensor):
            return value.name
        small = value.nbytes <= 64
        key = (value.dtype.str, value.shape, value.tobytes()) if small else id(value)
        name, _ = self._constants.setdefault(key, (f'constant_{len(self._constants)}', value))
        return name


def aval(var: Var | Literal) -> ShapedArray:
    """The shape and dtype of a variable or literal of a jaxpr."""
    return cast(ShapedArray, var.aval)


def out_shape(eqn: JaxprEqn) -> tuple[Any, ...]:
    """The shape of the first result."""
    return aval(eqn.outvars[0]).shape


def int64(values: Sequence[Any] | np.ndarray) -> np.ndarray:
    """A constant of the type that ONNX requires for axes, lengths and indices."""
    return np.array(values, np.int64)
