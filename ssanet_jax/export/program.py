"""The exported function of images, and the metadata that describes it."""

import dataclasses
import importlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from ssanet_jax.models import Network
from ssanet_jax.models.batch_norm_folding import for_inference
from ssanet_jax.pretrained.description import FILE as METADATA_FILE
from ssanet_jax.pretrained.preprocessing import Normalize, Preprocessing
from ssanet_jax.trained.load import TrainedModel
from ssanet_jax.trained.sources import AnyModel
from ssanet_jax.version import __version__

INPUT = 'image'

Metadata = dict[str, Any]  # what METADATA_FILE holds


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """Maps images [N, size, size, 3] to 'logits' and 'probabilities', both float32 [N, classes].

    Attributes:
      model: applied with train=False.
      variables: 'params' and 'batch_stats' of the model.
      preprocess: applied to uint8 images; None if the images are normalized float32.
      size: height and width of the images.
    """

    model: Network
    variables: Mapping[str, Any]
    preprocess: Normalize | None
    size: int

    @property
    def dtype(self) -> jnp.dtype:
        """The dtype of the images."""
        return jnp.dtype(jnp.uint8 if self.preprocess else jnp.float32)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one image."""
        return self.size, self.size, 3

    def apply(self, variables: Mapping[str, Any], image: jax.Array) -> dict[str, jax.Array]:
        """Returns the outputs for other variables of the same shapes."""
        x = self.preprocess(image) if self.preprocess else image
        logits = cast(jax.Array, self.model.apply(variables, x, train=False))
        return {'logits': logits, 'probabilities': jax.nn.softmax(logits)}

    def __call__(self, image: jax.Array) -> dict[str, jax.Array]:
        return self.apply(self.variables, image)


def as_trained(trained: AnyModel, *, preprocessing: bool) -> Program:
    """The network of the checkpoint, in the dtype it was trained in."""
    preprocess = trained.preprocess if preprocessing else None
    return Program(trained.model, trained.variables, preprocess, trained.preprocessing.size)


def reference(trained: AnyModel, *, preprocessing: bool) -> Program:
    """The network of the checkpoint in float32, which an exported program must match.

    Weights are float32 also in a bfloat16 run. Where a bfloat16 computation rounds depends on the
    compiler and the machine, so only the float32 results can be reproduced.
    """
    program = as_trained(trained, preprocessing=preprocessing)
    return dataclasses.replace(program, model=trained.model.clone(dtype=jnp.float32))


def folded(trained: AnyModel, *, preprocessing: bool) -> Program:
    """The reference with folded BatchNorms (`for_inference`), which is what gets exported."""
    program = reference(trained, preprocessing=preprocessing)
    model, variables = for_inference(program.model, program.variables)
    return dataclasses.replace(program, model=model, variables=jax.device_get(variables))


def describe(
    trained: AnyModel, program: Program, format_name: str, packages: Sequence[str]
) -> Metadata:
    """Describes the network, its input, outputs, classes and origin.

    Args:
      trained: the network that `program` is exported from.
      program: the exported function.
      format_name: a key of `FORMATS`.
      packages: whose versions to record.
    """
    preprocessing = trained.preprocessing
    output = {'dtype': 'float32', 'shape': ['n', len(trained.classes)]}
    versions = {name: importlib.import_module(name).__version__ for name in packages}
    run: Metadata = {}
    if isinstance(trained, TrainedModel):
        run = {'step': trained.step, 'run': _config_without_paths(trained.config)}
    metadata = {
        'format': format_name,
        'network': trained.name,
        'options': trained.options,
        'input': {
            'name': INPUT,
            'dtype': str(program.dtype),
            'shape': ['n', *program.shape],
            'values': 'RGB, 0 to 255' if program.preprocess else 'RGB, (value / 255 - mean) / std',
            'from_files': resize_rule(preprocessing),
        },
        'preprocessing': preprocessing._asdict(),
        'outputs': {'logits': output, 'probabilities': output},
        'classes': list(trained.classes),
        'versions': {'ssanet_jax': __version__, **versions},
        **run,
    }
    return json.loads(json.dumps(metadata))  # with lists in place of tuples


def resize_rule(preprocessing: Preprocessing) -> str:
    """Describes how evaluation turns, resizes and crops an image file."""
    size, resize, interpolation, *_ = preprocessing
    decoded = 'rotated by Exif, composited on white; '
    if resize is None:
        return f'{decoded}the whole image resized to {size} x {size}, bilinear, antialiased'
    return (
        f'{decoded}the short side resized to {resize}, {interpolation}, antialiased; the central '
        f'{size} x {size}'
    )


def _config_without_paths(config: ConfigDict) -> dict[str, Any]:
    fields = json.loads(config.to_json_best_effort())
    del fields['dataset']['data_dir'], fields['dataset']['manual_dir']
    fields['init']['weights'] = initial_weights(config)
    return fields


def initial_weights(config: ConfigDict) -> str | None:
    """The name, without its folder, of the file that a run started from; None if it had none."""
    return config.init.weights and os.path.basename(config.init.weights)


def write_metadata(folder: Path, metadata: Metadata) -> None:
    """Writes `metadata` to config.json in `folder`."""
    (folder / METADATA_FILE).write_text(json.dumps(metadata, indent=2) + '\n')
