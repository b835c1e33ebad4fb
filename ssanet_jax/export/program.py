"""What is exported of a run: a function of images alone, always in float32."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ssanet_jax.models import Network
from ssanet_jax.models.batch_norm_folding import for_inference
from ssanet_jax.trained.load import TrainedModel
from ssanet_jax.training.steps import Preprocess

INPUT = 'image'


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """Images [n, size, size, 3] to 'logits' and 'probabilities', both float32 [n, K].

    Attributes:
      model: applied with train=False.
      variables: of the model.
      preprocess: what is done to uint8 images first; None: they come as float32, normalised.
      size: height and width of the images.
    """

    model: Network
    variables: Mapping[str, Any]
    preprocess: Preprocess | None
    size: int

    @property
    def dtype(self) -> jnp.dtype:
        """Of the images."""
        return jnp.dtype(jnp.uint8 if self.preprocess else jnp.float32)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image."""
        return self.size, self.size, 3

    def apply(self, variables: Mapping[str, Any], image: jax.Array) -> dict[str, jax.Array]:
        """The outputs with other variables of the same shapes."""
        x = self.preprocess(image) if self.preprocess else image
        logits: Any = self.model.apply(variables, x, train=False)
        return {'logits': logits, 'probabilities': jax.nn.softmax(logits)}

    def __call__(self, image: jax.Array) -> dict[str, jax.Array]:
        return self.apply(self.variables, image)


def as_trained(run: TrainedModel, *, preprocessing: bool) -> Program:
    """The network as its checkpoint has it, in the dtype that it was trained in."""
    preprocess = run.preprocess if preprocessing else None
    return Program(run.model, run.variables, preprocess, run.config.dataset.image_size)


def reference(run: TrainedModel, *, preprocessing: bool) -> Program:
    """The same in float32: what an exported program is compared with.

    The weights of a run in bfloat16 are float32 all the same. What it computes of them depends on
    where a compiler rounds, which differs between machines; in float32 a file can be held to it.
    """
    program = as_trained(run, preprocessing=preprocessing)
    return dataclasses.replace(program, model=run.model.clone(dtype=jnp.float32))


def exported(run: TrainedModel, *, preprocessing: bool) -> Program:
    """What is written: the reference with BatchNorms folded, see `inference.for_inference`."""
    program = reference(run, preprocessing=preprocessing)
    model, variables = for_inference(program.model, program.variables)
    return dataclasses.replace(program, model=model, variables=jax.device_get(variables))
