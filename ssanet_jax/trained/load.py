"""Loads a trained model from the workdir of its run."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from etils import epath
from ml_collections import ConfigDict

from ssanet_jax.config import with_defaults
from ssanet_jax.errors import ConfigError
from ssanet_jax.models import Network
from ssanet_jax.pretrained.preprocessing import Normalize, Preprocessing
from ssanet_jax.training.checkpoints.reader import read_checkpoint
from ssanet_jax.training.model import build_model, network_options
from ssanet_jax.training.storage.workdir import Workdir


class TrainedModel(NamedTuple):
    """A checkpoint of a run, with what is needed to use it.

    Attributes:
      config: of the run.
      model: as it was trained, but with BatchNorms that are local to a device.
      variables: its 'params' and 'batch_stats' at `step`.
      step: of the checkpoint.
      classes: class names by label; numbers if the run has no classes.json.
    """

    config: ConfigDict
    model: Network
    variables: dict[str, Any]
    step: int
    classes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of the network, as for `create_model`."""
        return self.config.model.name

    @property
    def options(self) -> dict[str, Any]:
        """With which `create_model(name, num_classes=len(classes), **options)` makes the model."""
        return network_options(self.config)

    @property
    def preprocessing(self) -> Preprocessing:
        """What evaluation does to image files."""
        return Preprocessing.from_config(self.config.dataset)

    @property
    def preprocess(self) -> Normalize:
        """Maps uint8 images [N, size, size, 3] to the model's input."""
        return self.preprocessing.normalize

    @property
    def dataset(self) -> ConfigDict:
        """Options with which `data.file_batches` makes such images: those of the run."""
        return self.config.dataset


def load_trained(workdir: epath.PathLike, checkpoint: str = 'best') -> TrainedModel:
    """Loads a checkpoint of the run in `workdir`; needs no data and writes nothing.

    Args:
      workdir: of a finished or running run of `ssanet train`.
      checkpoint: 'best', 'latest' or a step. A run with config.ema has averages of its variables,
        which are loaded unless ':raw' follows, as in 'best:raw'.

    Raises:
      ConfigError: there is no run or no such checkpoint, or classes.json does not fit.
      RunError: the checkpoint cannot be read now.
    """
    folder = Workdir(workdir)
    config = with_defaults(folder.read_config())
    which, colon, variant = checkpoint.partition(':')
    if colon and (variant != 'raw' or not config.ema.horizon):
        raise ConfigError(
            f'--checkpoint={checkpoint}: only :raw may follow, and only for a run with '
            'config.ema.horizon; it selects the weights themselves instead of their averages.'
        )
    step, variables = read_checkpoint(
        folder,
        which,
        lambda reader, step: (step, reader.restore_variables(step, raw=bool(colon))),
    )
    classes = folder.read_classes()
    num_classes = _num_classes(variables, folder, classes)
    classes = classes or tuple(map(str, range(num_classes)))
    model = build_model(config, num_classes)
    return TrainedModel(config, model, jax.device_get(variables), step, classes)


def _num_classes(variables: Mapping[str, Any], workdir: Workdir, classes: Sequence[str]) -> int:
    """The number of logits: that of the layer `fc`, or of the classes if a network has none."""
    head = variables['params'].get('fc')
    if head is None and not classes:
        raise ConfigError(
            f'{workdir.classes} is missing, and the network has no layer fc that gives the number '
            'of classes; restore a copy.'
        )
    num_classes = len(classes) if head is None else head['bias'].shape[0]
    if classes and len(classes) != num_classes:
        raise ConfigError(
            f'{workdir.classes} names {len(classes)} classes, and the network has {num_classes}; '
            'restore a copy, or remove it.'
        )
    return num_classes
