"""The exported function of images, and the metadata that describes it."""

import dataclasses
import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from ssanet_jax.config.sizes import eval_size
from ssanet_jax.errors import ConfigError
from ssanet_jax.models import Network
from ssanet_jax.models.batch_norm_folding import for_inference
from ssanet_jax.trained.load import TrainedModel
from ssanet_jax.training.steps import Preprocess
from ssanet_jax.version import __version__

INPUT = 'image'
METADATA_FILE = 'config.json'

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
    preprocess: Preprocess | None
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


def as_trained(trained: TrainedModel, *, preprocessing: bool) -> Program:
    """The network of the checkpoint, in the dtype it was trained in."""
    preprocess = trained.preprocess if preprocessing else None
    size = eval_size(trained.config.dataset)
    return Program(trained.model, trained.variables, preprocess, size)


def reference(trained: TrainedModel, *, preprocessing: bool) -> Program:
    """The network of the checkpoint in float32, which an exported program must match.

    Weights are float32 also in a bfloat16 run. Where a bfloat16 computation rounds depends on the
    compiler and the machine, so only the float32 results can be reproduced.
    """
    program = as_trained(trained, preprocessing=preprocessing)
    return dataclasses.replace(program, model=trained.model.clone(dtype=jnp.float32))


def folded(trained: TrainedModel, *, preprocessing: bool) -> Program:
    """The reference with folded BatchNorms (`for_inference`), which is what gets exported."""
    program = reference(trained, preprocessing=preprocessing)
    model, variables = for_inference(program.model, program.variables)
    return dataclasses.replace(program, model=model, variables=jax.device_get(variables))


def describe(
    trained: TrainedModel, program: Program, format_name: str, packages: Sequence[str]
) -> Metadata:
    """Describes the network, its input, outputs, classes and origin.

    Args:
      trained: the run that `program` is exported from.
      program: the exported function.
      format_name: a key of `FORMATS`.
      packages: whose versions to record.
    """
    dataset, num_classes = trained.config.dataset, len(trained.classes)
    output = {'dtype': 'float32', 'shape': ['n', num_classes]}
    versions = {name: importlib.import_module(name).__version__ for name in packages}
    return {
        'format': format_name,
        'network': trained.config.model.name,
        'step': trained.step,
        'input': {
            'name': INPUT,
            'dtype': str(program.dtype),
            'shape': ['n', *program.shape],
            'values': 'RGB, 0 to 255' if program.preprocess else 'RGB, (value / 255 - mean) / std',
            'mean': list(dataset.mean),
            'std': list(dataset.std),
            'from_files': _resize_rule(dataset),
        },
        'outputs': {'logits': output, 'probabilities': output},
        'classes': list(trained.classes),
        'versions': {'ssanet_jax': __version__, **versions},
        'run': _config_without_paths(trained.config),
    }


def _resize_rule(dataset: ConfigDict) -> str:
    """Describes how evaluation turns, resizes and crops an image file."""
    size, decoded = eval_size(dataset), 'turned upright by its Exif orientation, on white; '
    if dataset.eval_crop == 'whole':
        return f'{decoded}the whole image resized to {size} x {size}, bilinear, antialiased'
    short = round(size / dataset.eval_crop_pct)
    return (
        f'{decoded}the short side resized to {short}, {dataset.interpolation}, antialiased; '
        f'the central {size} x {size}'
    )


def _config_without_paths(config: ConfigDict) -> dict[str, Any]:
    fields = json.loads(config.to_json_best_effort())
    for section, name in (('dataset', 'data_dir'), ('dataset', 'manual_dir'), ('init', 'weights')):
        del fields[section][name]
    return fields


def write_metadata(folder: Path, metadata: Metadata) -> None:
    """Writes `metadata` to config.json in `folder`."""
    (folder / METADATA_FILE).write_text(json.dumps(metadata, indent=2) + '\n')


def read_metadata(folder: Path) -> Metadata:
    """Reads config.json in `folder`.

    Raises:
      ConfigError: the file is missing, damaged or incomplete.
    """
    path = folder / METADATA_FILE
    try:
        metadata = json.loads(path.read_text())
        if metadata['format'] and metadata['classes'] and metadata['run']:
            return metadata
        reason = 'an entry is empty'
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = ' '.join(f'{type(error).__name__}: {error}'.split())
    raise ConfigError(
        f'{path} does not describe an exported network ({reason}); expected a folder written by '
        'tools.export.'
    )
