"""StableHLO, through `jax.export`: one file for CPUs, GPUs and TPUs and any number of images.

JAX promises to read it for six months, and that of older programs for as long as it can; keep
weights as safetensors for longer.
"""

from collections.abc import Mapping
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
    (n,) = export.symbolic_shape('n')
    image = jax.ShapeDtypeStruct((n, *program.shape), program.dtype)
    exported = export.export(jax.jit(program), platforms=PLATFORMS)(image)
    (folder / FILE).write_bytes(exported.serialize())


def load(folder: Path) -> Loaded:
    """The program as a user of JAX calls it."""
    return export.deserialize(bytearray((folder / FILE).read_bytes())).call
