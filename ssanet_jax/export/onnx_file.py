"""An ONNX file, for onnxruntime and what else reads it; images are [n, size, size, 3] as in JAX."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssanet_jax.errors import ConfigError
from ssanet_jax.export.parity import Loaded
from ssanet_jax.export.program import INPUT, Program
from ssanet_jax.models.folded_tail import plain_form

FILE = 'model.onnx'


def write(program: Program, folder: Path, described: Mapping[str, Any]) -> None:
    """Writes the checked graph, with `described` in its metadata, so that the file says it too.

    Raises:
      ConfigError: an attention block or a network of one's own needs what has no rule here.
    """
    import onnx

    from ssanet_jax.export.onnx_tracing import to_onnx

    # Folded, kernels would be stored twice.
    program = dataclasses.replace(program, model=plain_form(program.model))
    try:
        model = to_onnx(program, program.shape, program.dtype)
    except NotImplementedError as error:
        raise ConfigError(
            f'This network cannot be written as ONNX, for want of a rule for {error}; choose '
            "another format, or add the rule to export/onnx_rules.py's."
        ) from error
    texts = {name: json.dumps(value) for name, value in described.items()}
    onnx.helper.set_model_props(model, texts)
    onnx.save(model, str(folder / FILE))


def load(folder: Path) -> Loaded:
    """The network as a user of onnxruntime calls it, on CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / FILE), providers=['CPUExecutionProvider'])
    names = [output.name for output in session.get_outputs()]

    def call(image: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, {INPUT: image}), strict=True))

    return call
