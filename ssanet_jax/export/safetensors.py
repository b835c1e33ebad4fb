"""The checkpoint's weights, bit for bit, as safetensors under the names of torch libraries.

BatchNorms are not folded; the weights of a bfloat16 run are float32, as they were trained.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ssanet_jax import weights
from ssanet_jax.export.parity import LoadedFn
from ssanet_jax.export.program import Program, as_trained
from ssanet_jax.pretrained.description import WEIGHTS
from ssanet_jax.pretrained.folder import load_folder


def write(program: Program, folder: Path, metadata: Mapping[str, Any]) -> None:
    """Writes the weights to folder/model.safetensors; raises OSError if they do not read back."""
    path, model = folder / WEIGHTS, program.model
    weights.save(path, weights.to_arrays(program.variables, model))
    restored = weights.from_torch(weights.load(path), model, image_size=program.size)
    equal = functools.partial(np.array_equal, equal_nan=True)
    if not jax.tree.all(jax.tree.map(equal, restored, program.variables)):
        raise OSError(f'{WEIGHTS} does not read back as it was written; check the disk')


def load(folder: Path) -> LoadedFn:
    """Loads the network with this package; it takes uint8 images."""
    return jax.jit(as_trained(load_folder(folder), preprocessing=True))
