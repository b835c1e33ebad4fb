"""From a folder of photographs to a prediction, as docs/data.md tells."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from tests.helpers import ROOT


def photographs(folder, per_class):
    """Crops of scikit-learn's two photographs, in several formats."""
    rng = np.random.default_rng(0)
    for name, photo in zip(('temple', 'flower'), load_sample_images().images, strict=True):
        (folder / name).mkdir(parents=True)
        for i in range(per_class):
            width = int(rng.integers(200, 400))
            height = width * 3 // 4
            left, top = int(rng.integers(0, 640 - width)), int(rng.integers(0, 427 - height))
            part = Image.fromarray(photo).crop((left, top, left + width, top + height))
            part.save(folder / name / f'IMG_{i:04}.{("jpg", "png", "JPEG")[i % 3]}')


def run(*command, code=0):
    ended = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env={**os.environ, 'XLA_FLAGS': ''},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert ended.returncode == code, ended.stderr
    return ended.stdout + ended.stderr


@pytest.mark.slow
def test_a_folder_of_photographs_is_learned_in_three_commands(tmp_path):
    photographs(tmp_path / 'photos', 30)
    photographs(tmp_path / 'new', 2)
    data = f'--config.dataset.data_dir={tmp_path}/photos'
    text = run('-m', 'ssanet_jax.tools.check_data', '--config=configs/folder.py', data)
    assert '12 of 60 are held out' in text
    text = run(
        *('main.py', '--config=configs/folder.py', f'--workdir={tmp_path}/run', data),
        *('--config.num_epochs=8', '--config.dataset.image_size=64'),
    )
    assert '48 training and 12 evaluation images, 2 classes' in text
    text = run(
        *('-m', 'ssanet_jax.tools.predict', f'--workdir={tmp_path}/run', '--format=csv'),
        *(tmp_path / 'new' / name for name in ('temple', 'flower')),
    )
    best = [line.split(',') for line in text.splitlines() if ',1,' in line]
    right = [row[2] in row[0] for row in best]
    assert len(right) == 4
    assert sum(right) >= 3
