"""What whoever loads an exported network must know of it: the folder's config.json."""

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssanet_jax.errors import ConfigError
from ssanet_jax.export.program import INPUT, Program
from ssanet_jax.trained.load import TrainedModel
from ssanet_jax.version import __version__

FILE = 'config.json'


def describe(
    run: TrainedModel, program: Program, form: str, packages: Sequence[str]
) -> dict[str, Any]:
    """The network, its input and outputs, its classes and its making, for JSON.

    Args:
      run: of which `program` is exported.
      program: as it is exported.
      form: the format's name.
      packages: that wrote it.
    """
    dataset, classes = run.config.dataset, len(run.classes)
    values = 'RGB, 0 to 255' if program.preprocess else 'RGB, (value / 255 - mean) / std'
    return {
        'format': form,
        'network': run.config.model.name,
        'step': run.step,
        'input': {
            'name': INPUT,
            'dtype': str(program.dtype),
            'shape': ['n', *program.shape],
            'values': values,
            'mean': list(dataset.mean),
            'std': list(dataset.std),
            'from_files': _from_files(dataset),
        },
        'outputs': {
            name: {'dtype': 'float32', 'shape': ['n', classes]}
            for name in ('logits', 'probabilities')
        },
        'classes': list(run.classes),
        'versions': {
            'ssanet_jax': __version__,
            **{name: importlib.import_module(name).__version__ for name in packages},
        },
        'run': _fields(run),
    }


def _from_files(dataset: Any) -> str:
    """How evaluation makes images of files."""
    size = dataset.image_size
    if dataset.eval_crop == 'whole':
        return f'the whole image resized to {size} x {size}, bilinear, antialiased'
    short = round(size / dataset.eval_crop_pct)
    return (
        f'the short side resized to {short}, {dataset.interpolation}, antialiased; the central '
        f'{size} x {size}'
    )


def _fields(run: TrainedModel) -> dict[str, Any]:
    """Those of the run's config, but for paths of the machine that it ran on."""
    fields = json.loads(run.config.to_json_best_effort())
    for section, name in (('dataset', 'data_dir'), ('dataset', 'manual_dir'), ('init', 'weights')):
        del fields[section][name]
    return fields


def write(folder: Path, described: dict[str, Any]) -> None:
    """Writes it into `folder`."""
    (folder / FILE).write_text(json.dumps(described, indent=2) + '\n')


def read(folder: Path) -> dict[str, Any]:
    """Reads it; raises ConfigError where there is none."""
    path = folder / FILE
    try:
        described = json.loads(path.read_text())
        if described['format'] and described['classes'] and described['run']:
            return described
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = ' '.join(str(error).split())
        raise ConfigError(
            f'{path} does not describe an exported network ({reason}); name a folder that '
            'tools.export has written.'
        ) from error
    raise ConfigError(f'{path} does not describe an exported network; some of it is empty.')
