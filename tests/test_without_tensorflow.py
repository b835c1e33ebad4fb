"""What works where TensorFlow is not installed, and which modules import it."""

import ast
import json
import subprocess
import sys

from tests import fabricate
from tests.helpers import ROOT
from tests.test_main import digits_flags, main

ALLOWED = {'data/conversion.py', 'data/tfrecords.py', 'export/saved_model.py', 'runtime.py'}

HIDE = """
import importlib.machinery, sys

class Hidden(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition('.')[0] in ('tensorflow', 'keras'):
            return None
        return super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = Hidden
"""

USE = """
from pathlib import Path

import numpy as np

import ssanet_jax
from ssanet_jax import data
from ssanet_jax.export import parity
from ssanet_jax.export.export import export_trained
from ssanet_jax.trained.prediction import Predictor
from tests import fabricate

folder = Path(sys.argv[1])
trained = ssanet_jax.load(folder)
photograph = fabricate.photograph(np.random.default_rng(0))
(batch,) = data.file_batches([photograph], trained.config.dataset, 8)
assert len(Predictor(trained, 8).top(batch.image[batch.good()], 1)) == 1
export_trained(trained, 'stablehlo', folder / 'exported', parity.evaluation_images(trained))
"""

READ = """
import pytest

from ssanet_jax import data
from ssanet_jax.errors import ConfigError
from ssanet_jax.export.export import require_packages
from ssanet_jax.tools import prepare
from tests.conftest import imagenet_config

array_record, tfrecord, photos = sys.argv[1:]
for name, folder in (('imagenet2012:5.*.*', array_record), ('folder', photos)):
    config = imagenet_config(folder)
    config.dataset.name = name
    config.batch_size = 8
    batch = next(data.train_batches(config))
    assert len(set(batch['label'].tolist())) > 1
    assert batch['image'].any(axis=(1, 2, 3)).all()
with pytest.raises(ConfigError, match=r"tfrecord files needs TensorFlow: .*-jax\\[tensorflow\\]'"):
    next(data.train_batches(imagenet_config(tfrecord)))
with pytest.raises(ConfigError, match=r"saved_model needs tensorflow: .*-jax\\[tensorflow\\]'"):
    require_packages('saved_model')
with pytest.raises(ConfigError, match=r"Preparing a dataset needs TensorFlow: pip install"):
    prepare.main()
"""


def test_digits_are_trained_reported_evaluated_predicted_and_exported(tmp_path, data_dir):
    (tmp_path / 'sitecustomize.py').write_text(HIDE)
    folder = tmp_path / 'run'
    flags = digits_flags(folder, data_dir)
    train = ['--report', '--config.num_train_steps=10', '--config.batch_size=32']
    trained, evaluated = (
        main(*flags, *others, PYTHONPATH=str(tmp_path))
        for others in (train, ['--mode=eval', '--checkpoint=latest'])
    )
    assert (trained.returncode, trained.stderr) == (0, '')
    assert 'peak learning rate 0.05 (0.1 per 64 images)' in trained.stdout
    assert 'step 10/10  eval' in trained.stdout
    assert f'Report: {folder}/report.html' in trained.stdout
    assert 'ssa_resnet8' in (folder / 'report.html').read_text()
    assert list(folder.glob('events.out.tfevents*'))
    assert (evaluated.returncode, evaluated.stderr) == (0, '')
    summary = json.loads((folder / 'summary.json').read_text())
    assert f'{summary["final"]["top1"]:.2f} %' in evaluated.stdout
    run(USE, folder)
    assert (folder / 'exported' / 'config.json').exists()


def test_array_record_and_folders_are_read_and_the_rest_names_the_extra(
    imagenet_dir, imagenet_tfrecord_dir, tmp_path
):
    photos = fabricate.image_folder(tmp_path / 'photos')
    run(READ, imagenet_dir, imagenet_tfrecord_dir, photos)


def run(code, *arguments):
    command = [sys.executable, '-c', HIDE + code, *map(str, arguments)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr


def test_only_what_needs_it_imports_tensorflow():
    package = ROOT / 'ssanet_jax'
    found = {
        str(path.relative_to(package)) for path in package.rglob('*.py') if imports_tensorflow(path)
    }
    assert found == ALLOWED


def imports_tensorflow(path) -> bool:
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ''] if isinstance(node, ast.ImportFrom) else []
        if any(name.partition('.')[0] == 'tensorflow' for name in names):
            return True
    return False
