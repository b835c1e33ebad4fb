"""TensorFlow's SavedModel, through `jax2tf`: run by TensorFlow and its servers without JAX."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from ssanet_jax.export.parity import Loaded
from ssanet_jax.export.program import INPUT, Program
from ssanet_jax.export.stablehlo import PLATFORMS

FOLDER = 'model'


def write(program: Program, folder: Path, described: Mapping[str, Any]) -> None:
    """Writes a SavedModel to folder/model: callable, with the signature 'serving_default'.

    Weights are its variables, and so are the names of the classes, as `classes`.
    """
    import tensorflow as tf
    from jax.experimental import jax2tf

    apply = jax2tf.convert(
        program.apply,
        polymorphic_shapes=[None, '(n, ...)'],
        with_gradient=False,
        native_serialization_platforms=PLATFORMS,
        # TensorFlow checks shapes by the signature; 2.21 cannot read the checks of JAX 0.11.
        native_serialization_disabled_checks=[
            export.DisabledSafetyCheck.shape_assertions(),
        ],
    )
    image = tf.TensorSpec((None, *program.shape), program.dtype.name, INPUT)

    class Network(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = jax.tree.map(
                lambda array: tf.Variable(array, trainable=False), dict(program.variables)
            )
            self.classes = tf.Variable(described['classes'], trainable=False)

        @tf.function(input_signature=[image], autograph=False)
        def __call__(self, image: Any) -> Any:
            return apply(self.weights, image)

    network = Network()
    tf.saved_model.save(
        network, str(folder / FOLDER), signatures={'serving_default': network.__call__}
    )


def load(folder: Path) -> Loaded:
    """The network as a user of TensorFlow calls it."""
    import tensorflow as tf

    network = tf.saved_model.load(str(folder / FOLDER))

    def call(image: np.ndarray) -> dict[str, np.ndarray]:
        served = network.signatures['serving_default'](**{INPUT: tf.constant(image)})
        return {name: value.numpy() for name, value in served.items()}

    return call
