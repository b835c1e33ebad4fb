"""StableHLO, through `jax.export`: one file for CPUs, GPUs and TPUs and any number of images.

JAX promises to read it for six months; keep weights as safetensors for longer.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from jax import export

from ssanet_jax.export.parity import Loaded
from ssanet_jax.export.program import Program

FILE = 'model.stablehlo'
PLATFORMS = ('cpu', 'cuda', 'tpu')


def write(program: Program, folder: Path, described: Mapping[str, Any]) -> None:
    """Writes the serialized program, weights and all, to folder/model.stablehlo."""
    (folder / FILE).write_bytes(to_stablehlo(program, program).serialize())


def to_stablehlo(fn: Callable[..., Any], program: Program, *before: Any) -> export.Exported:
    """What `fn` does to arguments like `before` and then any number of images of `program`."""
    (n,) = export.symbolic_shape('n')
    image = jax.ShapeDtypeStruct((n, *program.shape), program.dtype)
    shapes = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), before)
    return export.export(jax.jit(fn), platforms=PLATFORMS)(*shapes, image)


def load(folder: Path) -> Loaded:
    """The program as a user of JAX calls it."""
    return export.deserialize(bytearray((folder / FILE).read_bytes())).call
