"""TensorFlow SavedModel, which TensorFlow and its servers run without JAX.

A StableHLO program inside TensorFlow's XlaCallModule operator, as jax2tf writes it, but in an older
StableHLO version: TensorFlow 2.21, the newest, cannot read what jax2tf of JAX 0.11 writes.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.extend import mlir

from ssanet_jax.export.parity import LoadedFn
from ssanet_jax.export.program import INPUT, Program
from ssanet_jax.export.stablehlo import to_stablehlo

if TYPE_CHECKING:
    import tensorflow as tf

FOLDER = 'model'

_STABLEHLO = '1.10.0'  # TensorFlow 2.21 reads up to 1.13.7, JAX 0.11.2 writes 1.18.0


def write(program: Program, folder: Path, metadata: Mapping[str, Any]) -> None:
    """Writes a SavedModel to folder/model: callable, with the signature 'serving_default'.

    The weights are its variables; `classes` is a variable too.
    """
    import tensorflow as tf

    variables = dict(program.variables)
    call_module = _xla_call_module(program, variables)

    class Network(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = [tf.Variable(a, trainable=False) for a in jax.tree.leaves(variables)]
            self.classes = tf.Variable(metadata['classes'], trainable=False)

        @tf.function(
            input_signature=[tf.TensorSpec((None, *program.shape), program.dtype.name, INPUT)],
            autograph=False,
        )
        def __call__(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
            return call_module([*self.weights, image])

    network = Network()
    signatures = {'serving_default': network.__call__}
    tf.saved_model.save(network, str(folder / FOLDER), signatures=signatures)


def _xla_call_module(
    program: Program, variables: Mapping[str, Any]
) -> 'Callable[[list[tf.Tensor]], dict[str, tf.Tensor]]':
    """A TensorFlow function from [*leaves of variables, images] to named outputs."""
    import tensorflow as tf
    from tensorflow.compiler.tf2xla.python import xla

    exported = to_stablehlo(program.apply, program, variables)
    module = mlir.serialize_portable_artifact(exported.mlir_module(), _STABLEHLO)

    def call(arguments: list[tf.Tensor]) -> dict[str, tf.Tensor]:
        used = [tf.convert_to_tensor(arguments[i]) for i in exported.module_kept_var_idx]
        outputs = xla.call_module(
            used,
            version=exported.calling_convention_version,
            module=module,
            Tout=[aval.dtype.name for aval in exported.out_avals],
            Sout=[(None, *aval.shape[1:]) for aval in exported.out_avals],
            platforms=[platform.upper() for platform in exported.platforms],
        )
        names = jax.tree.unflatten(exported.out_tree, range(len(outputs)))
        return {name: outputs[index] for name, index in names.items()}

    return call


def load(folder: Path) -> LoadedFn:
    """Loads the network with TensorFlow and calls its serving signature."""
    import tensorflow as tf

    network = tf.saved_model.load(str(folder / FOLDER))

    def call(image: np.ndarray) -> dict[str, np.ndarray]:
        outputs = network.signatures['serving_default'](**{INPUT: tf.constant(image)})
        return {name: value.numpy() for name, value in outputs.items()}

    return call
