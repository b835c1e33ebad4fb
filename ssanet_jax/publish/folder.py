"""Writes the folder of a published network."""

from pathlib import Path

import numpy as np

from ssanet_jax.errors import ConfigError
from ssanet_jax.export import export_trained
from ssanet_jax.export.program import initial_weights, resize_rule
from ssanet_jax.publish.card import model_card
from ssanet_jax.trained.load import load_trained
from ssanet_jax.training.storage.workdir import Workdir


def write_folder(
    workdir: str, out: Path, *, checkpoint: str = 'best', source: str, license_name: str | None
) -> None:
    """Writes weights, config.json and a model card, after verifying that they load.

    The loaded network must compute the logits of the checkpoint, bit for bit.

    Args:
      workdir: of the run.
      out: the folder to create; it must not exist.
      checkpoint: see `load_trained`.
      source: see `model_card`.
      license_name: see `model_card`; None: 'apache-2.0', unless the run started from other weights.

    Raises:
      ConfigError: there is no such run or checkpoint, or its license must be named.
      ParityError: the network does not load as it was.
      OSError: the folder cannot be written.
    """
    trained = load_trained(workdir, checkpoint)
    if license_name is None and (name := initial_weights(trained.config)):
        raise ConfigError(
            f'The run started from {name}, whose license binds what was made of it: name the '
            'license with --license, such as apache-2.0 or cc-by-nc-4.0.'
        )
    size = trained.preprocessing.size
    card = model_card(
        trained,
        Workdir(workdir),
        source=source,
        from_files=resize_rule(trained.preprocessing),
        license_name=license_name or 'apache-2.0',
        raw=checkpoint.endswith(':raw'),
    )
    noise = np.random.default_rng(0).integers(0, 256, (7, size, size, 3), np.uint8)
    export_trained(trained, 'safetensors', out, noise, readme=card)
