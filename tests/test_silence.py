"""Libraries print nothing where a path of the README or the docs is walked."""

import subprocess
import sys

import pytest

from ssanet_jax import data
from tests.helpers import ROOT, load_config

# Reads a folder of 254 gray, CMYK, PNG, truncated and intact files in every way, as `main.py` and
# `tools.predict` do. Groups of many sizes make TensorFlow trace many programs.
_READ_A_FOLDER = """
import io, itertools, sys
from pathlib import Path
import numpy as np
from PIL import Image
from ssanet_jax import data
from ssanet_jax.config import base

rng, root, count = np.random.default_rng(0), Path(sys.argv[1]), itertools.count()
for split, images in (('train', 90), ('validation', 37)):
    for name in 'ab':
        folder = root / split / name
        folder.mkdir(parents=True)
        for number in range(images):
            k, file = next(count), io.BytesIO()
            image = Image.fromarray(rng.integers(0, 256, (40 + k % 30, 50, 3), np.uint8))
            if k % 7 == 2:
                image.save(file, 'png')
            else:
                image.convert({0: 'L', 1: 'CMYK'}.get(k % 7, 'RGB')).save(file, 'jpeg')
            content = file.getvalue()
            if split == 'train' and k % 11 == 0:
                content = content[: len(content) // 2] + (b'', b'\\xff\\xd9')[k % 2]
            (folder / f'{number}.jpg').write_bytes(content)
config = base()
config.batch_size = 27
config.dataset.update(name='folder', data_dir=str(root), image_size=32, max_bad_fraction=1.0)
for config.dataset.train_crop in ('resized', 'padded'):
    for config.dataset.in_memory in (False, True):
        list(itertools.islice(data.train_batches(config), 9))
        list(data.eval_batches(config, 'validation'))
paths = sorted(root.rglob('*.jpg'))
list(data.file_batches(paths, config.dataset, 13))
"""


def test_the_bundled_digits_are_prepared_in_silence(tmp_path, capfd):
    config = load_config('digits_ssa20')
    config.dataset.data_dir = str(tmp_path)
    assert data.dataset_info(config).num_train == 1437
    assert capfd.readouterr() == ('', '')


@pytest.mark.slow
def test_images_are_read_in_silence(tmp_path):
    """Nothing but a line of this project and one of libjpeg for each damaged file.

    libjpeg prints its line itself, from inside TensorFlow, which offers no way to stop it.
    """
    result = subprocess.run(
        [sys.executable, '-c', _READ_A_FOLDER, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    known = ('cannot be decoded', ' replaces ', 'Corrupt JPEG data', 'Premature end of JPEG')
    others = [line for line in result.stderr.splitlines() if not any(x in line for x in known)]
    assert (others, result.stdout) == ([], '')
