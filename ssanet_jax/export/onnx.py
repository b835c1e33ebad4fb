"""ONNX models: a JAX function of images is traced, then each primitive is written by its rule.

Whatever depends on the weights only is computed while tracing and stored as a constant. Rules cover
the primitives that inference in this package's networks uses. Images are [N, H, W, C] as in JAX.

jax2onnx 0.17.1 is no substitute: it silently drops the explicit padding of `nn.max_pool`, rejects
the mean pooling of DenseNets, writes invalid graphs for GoogLeNets and folded tails, and requires
an old Orbax.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnx
from jax import export
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var

from ssanet_jax.errors import ConfigError
from ssanet_jax.export.onnx_graph import Graph, Shape, Tensor, Value, aval
from ssanet_jax.export.onnx_rules import RULES, STRETCHING
from ssanet_jax.export.parity import LoadedFn
from ssanet_jax.export.program import INPUT, Program
from ssanet_jax.models.folded_tail import plain_form

FILE = 'model.onnx'
OPSET = 18  # December 2022
_IR_VERSION = 8  # released with it; older runtimes refuse newer ones

# Function calls, which are inlined; loops have no rule.
_CALLS = {'jit': 'jaxpr', 'custom_jvp_call': 'call_jaxpr', 'custom_vjp_call': 'call_jaxpr'}


def write(program: Program, folder: Path, metadata: Mapping[str, Any]) -> None:
    """Writes the checked model to folder/model.onnx, with `metadata` as its properties.

    Raises:
      ConfigError: a custom block or network uses a primitive without a rule.
    """
    # A folded tail would store its kernels twice.
    program = dataclasses.replace(program, model=plain_form(program.model))
    try:
        model = to_onnx(program, program.shape, program.dtype)
    except NotImplementedError as error:
        raise ConfigError(
            f'This network cannot be written as ONNX: there is no rule for {error}. Choose another '
            'format, or add the rule to ssanet_jax/export/onnx_rules.py.'
        ) from error
    properties = {name: json.dumps(value) for name, value in metadata.items()}
    onnx.helper.set_model_props(model, properties)
    onnx.save(model, str(folder / FILE))


def load(folder: Path) -> LoadedFn:
    """Loads the network with onnxruntime, on CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / FILE), providers=['CPUExecutionProvider'])
    names = [output.name for output in session.get_outputs()]

    def call(image: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, {INPUT: image}), strict=True))

    return call


def to_onnx(
    fn: Callable[[jax.Array], Mapping[str, jax.Array]],
    shape: Sequence[int],
    dtype: jax.typing.DTypeLike,
) -> onnx.ModelProto:
    """Converts `fn` to a checked model with input 'image', for any batch size N.

    Args:
      fn: maps images [N, ...] to named arrays [N, ...], the outputs of the model.
      shape: of one image.
      dtype: of the images.

    Raises:
      NotImplementedError: a primitive has no rule, or is used in a way that ONNX cannot express.
    """
    (n,) = export.symbolic_shape('n')
    traced = jax.jit(fn).trace(jax.ShapeDtypeStruct((n, *shape), dtype))
    names = sorted(traced.out_info)  # the order in which JAX flattens a dictionary
    graph, closed = Graph(), traced.jaxpr
    results = _convert(graph, closed.jaxpr, closed.consts, [Tensor(INPUT, (n, *shape))])
    for name, value, out in zip(names, results, closed.out_avals, strict=True):
        output = graph.stretch(value, out.shape)
        graph.nodes.append(onnx.helper.make_node('Identity', [graph.name(output)], [name]))
    inputs = [_value_info(INPUT, (n, *shape), dtype)]
    outputs = [
        _value_info(name, out.shape, out.dtype)
        for name, out in zip(names, closed.out_avals, strict=True)
    ]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, 'ssanet_jax', inputs, outputs, graph.constants()),
        opset_imports=[onnx.helper.make_opsetid('', OPSET)],
        ir_version=_IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _value_info(name: str, shape: Shape, dtype: jax.typing.DTypeLike) -> onnx.ValueInfoProto:
    element_type = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    dims = [str(d) if export.is_symbolic_dim(d) else d for d in shape]
    return onnx.helper.make_tensor_value_info(name, element_type, dims)


def _convert(
    graph: Graph, jaxpr: Jaxpr, constants: Sequence[Any], inputs: Sequence[Value]
) -> list[Value]:
    """Adds nodes for whatever in `jaxpr` depends on the images; returns its results."""
    values: dict[Var, Value] = dict(zip(jaxpr.constvars, map(np.asarray, constants), strict=True))
    values |= zip(jaxpr.invars, inputs, strict=True)

    def read(var: Var | Literal) -> Value:
        return np.asarray(var.val) if isinstance(var, Literal) else values[var]

    for eqn in jaxpr.eqns:
        values |= zip(eqn.outvars, _convert_eqn(graph, eqn, [*map(read, eqn.invars)]), strict=True)
    return [read(var) for var in jaxpr.outvars]


def _convert_eqn(graph: Graph, eqn: JaxprEqn, inputs: list[Value]) -> Sequence[Value]:
    name = eqn.primitive.name
    if name in _CALLS:
        inner = eqn.params[_CALLS[name]]
        return _convert(graph, inner.jaxpr, inner.consts, inputs)
    if name == 'platform_index':  # of jax.lax.platform_dependent
        platforms = eqn.params['platforms']
        return [np.asarray([p is None or 'cpu' in p for p in platforms].index(True))]
    if name == 'cond' and isinstance(inputs[0], np.ndarray):
        inner = eqn.params['branches'][int(inputs[0])]
        return _convert(graph, inner.jaxpr, inner.consts, inputs[1:])
    shapes = [aval(var).shape for var in (*eqn.invars, *eqn.outvars)]
    static = not any(export.is_symbolic_dim(d) for shape in shapes for d in shape)
    if static and inputs and all(isinstance(value, np.ndarray) for value in inputs):
        full = [np.broadcast_to(x, shape) for x, shape in zip(inputs, shapes, strict=False)]
        results = eqn.primitive.bind(*full, **eqn.params)
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
