import json
from pathlib import Path

import pytest

from ssanet_jax import create_model, weights
from ssanet_jax.pretrained.folder import sha256
from tests.export.fabricated import random_variables
from tests.hub_server import hub  # noqa: F401


def write_folder(folder: Path, **changes) -> Path:
    """A published SSA-ResNet-8 with random weights; `changes` replace entries of config.json."""
    folder.mkdir(parents=True)
    options = {'attention_options': {'squeeze': 'max'}, 'norm_options': {'momentum': 0.9}}
    model = create_model('ssa_resnet8', num_classes=3, **options)
    weights.save(folder / 'model.safetensors', weights.to_arrays(random_variables(model, 8), model))
    content = {
        'format': 'safetensors',
        'network': 'ssa_resnet8',
        'options': options,
        'classes': ['cat', 'dog', 'owl'],
        'preprocessing': {
            'size': 8,
            'resize': 10,
            'interpolation': 'bicubic',
            'mean': [0.1, 0.2, 0.3],
            'std': [0.4, 0.5, 0.6],
        },
        'sha256': {'model.safetensors': sha256(folder / 'model.safetensors')},
    }
    (folder / 'config.json').write_text(json.dumps({**content, **changes}))
    return folder


@pytest.fixture(scope='session')
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp('published') / 'net')


@pytest.fixture(scope='session')
def files(folder):
    """The content of `folder` by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
