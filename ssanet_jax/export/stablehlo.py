"""StableHLO through `jax.export`: one file for CPUs, GPUs and TPUs, and any batch size.

JAX guarantees to read it for six months; keep safetensors for longer.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from jax import export

from ssanet_jax.export.parity import LoadedFn
from ssanet_jax.export.program import Program

FILE = 'model.stablehlo'
PLATFORMS = ('cpu', 'cuda', 'tpu')


def write(program: Program, folder: Path, metadata: Mapping[str, Any]) -> None:
    """Writes the serialized program with its weights to folder/model.stablehlo."""
    (folder / FILE).write_bytes(to_stablehlo(program, program).serialize())


def to_stablehlo(fn: Callable[..., Any], program: Program, *leading: Any) -> export.Exported:
    """Exports `fn(*leading, image)` for images of `program` and any batch size."""
    (n,) = export.symbolic_shape('n')
    image = jax.ShapeDtypeStruct((n, *program.shape), program.dtype)
    shapes = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), leading)
    return export.export(jax.jit(fn), platforms=PLATFORMS)(*shapes, image)


def load(folder: Path) -> LoadedFn:
    """Loads the program with `jax.export`."""
    return export.deserialize(bytearray((folder / FILE).read_bytes())).call
