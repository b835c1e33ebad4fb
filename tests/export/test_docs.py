"""The code of docs/export.md runs as it stands, without what it says is not needed."""

import re
import subprocess
import sys

import numpy as np
import pytest

from ssanet_jax import export
from tests.helpers import ROOT

CODE = dict(
    re.findall(
        r'^## ([^\n]*)\n(?:(?!^## ).)*?```python\n(.*?)```',
        (ROOT / 'docs/export.md').read_text(),
        re.DOTALL | re.MULTILINE,
    )
)
FOLDERS = {
    'StableHLO': 'stablehlo',
    "TensorFlow's SavedModel": 'saved_model',
    'ONNX': 'onnx',
    'safetensors': 'safetensors',
}
# Of logits, relative; Predictor folds BatchNorms, which safetensors does not.
BOUNDS = {'stablehlo': 1e-5, 'saved_model': 1e-5, 'onnx': 1e-4, 'safetensors': 1e-5}
# What must not be there.
HIDDEN = {
    'StableHLO': ['flax', 'ssanet_jax', 'tensorflow'],
    "TensorFlow's SavedModel": ['jax', 'flax', 'ssanet_jax'],
    'ONNX': ['jax', 'flax', 'ssanet_jax', 'tensorflow'],
    'safetensors': ['tensorflow', 'clu'],
}

pytestmark = pytest.mark.filterwarnings('ignore:.*___pyct_anno:DeprecationWarning')


@pytest.mark.parametrize('title', CODE)
def test_a_consumers_code_gives_the_logits_of_the_checkpoint(
    title, run, images, expected, tmp_path
):
    form = FOLDERS[title]
    export.export_run(run, form, tmp_path / f'digits_{form}', images)
    np.save(tmp_path / 'images.npy', images)
    before = f'import sys\nfor name in {HIDDEN[title]}: sys.modules[name] = None\n'
    before += "import numpy as np\nimages = np.load('images.npy')\n"
    after = "\nnp.save('logits.npy', np.asarray(logits))\n"
    script = f'{before}{CODE[title]}{after}'
    done = subprocess.run(
        [sys.executable, '-c', script], cwd=tmp_path, timeout=300, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    logits = np.load(tmp_path / 'logits.npy')
    assert np.abs(logits - expected).max() <= BOUNDS[form] * np.abs(expected).max()
    best = f'digit {expected[0].argmax()}'
    assert done.stdout.splitlines()[-1] == best


def test_every_format_has_its_section():
    assert {FOLDERS[title] for title in CODE} == {*export.FORMATS}


def test_weights_are_read_by_this_package_without_what_training_needs(run, images, tmp_path):
    export.export_run(run, 'safetensors', tmp_path / 'digits_safetensors', images)
    (code,) = re.findall(
        r'jax, flax and safetensors.*?```python\n(.*?)```',
        (ROOT / 'docs/export.md').read_text(),
        re.DOTALL,
    )
    hidden = ['orbax', 'ml_collections', 'optax', 'tensorflow', 'clu', 'sklearn', 'etils']
    script = f'import sys\nfor name in {hidden}: sys.modules[name] = None\n{code}'
    subprocess.run([sys.executable, '-c', script], cwd=tmp_path, timeout=300, check=True)
