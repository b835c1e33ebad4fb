"""Loads a trained model from the workdir of its run."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from etils import epath
from ml_collections import ConfigDict

from ssanet_jax.config import base, flatten
from ssanet_jax.errors import ConfigError
from ssanet_jax.models import Network
from ssanet_jax.training.checkpoint import Checkpoints
from ssanet_jax.training.steps import Preprocess
from ssanet_jax.training.trainer_setup import build_model, build_preprocess
from ssanet_jax.training.workdir import saved_classes, saved_config


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
    def preprocess(self) -> Preprocess:
        """Maps uint8 images [N, size, size, 3] to the model's input."""
        return build_preprocess(self.config)


def load_trained(workdir: epath.PathLike, checkpoint: str = 'best') -> TrainedModel:
    """Loads a checkpoint of the run in `workdir`; needs no data and writes nothing.

    Args:
      workdir: of a finished or running run of main.py.
      checkpoint: 'best', 'latest' or a step.

    Raises:
      ConfigError: there is no run or no such checkpoint, or classes.json does not fit.
    """
    folder = epath.Path(workdir)
    config = with_defaults(saved_config(folder))
    with Checkpoints(folder, read_only=True) as checkpoints:
        step = checkpoints.find(checkpoint)
        variables = checkpoints.restore_variables(step)
    num_classes = variables['params']['fc']['bias'].shape[0]
    classes = saved_classes(folder) or tuple(map(str, range(num_classes)))
    if len(classes) != num_classes:
        raise ConfigError(
            f'{folder / "classes.json"} names {len(classes)} classes, but the network has '
            f'{num_classes}; restore the file or remove it.'
        )
    local = config.copy_and_resolve_references()
    local.model.batch_norm_group_size = 1  # Inference shares no statistics between devices.
    model = build_model(local, num_classes)
    return TrainedModel(config, model, jax.device_get(variables), step, classes)


def with_defaults(saved: Mapping[str, Any]) -> ConfigDict:
    """The config of config.json; fields added since then get their defaults."""
    config = base()
    known = flatten(config)
    for field, value in flatten(ConfigDict(saved)).items():
        if field in known:  # `data_order` is not a field
            value = tuple(value) if isinstance(value, list | tuple) else value
            config.update_from_flattened_dict({field: value})
    return config
