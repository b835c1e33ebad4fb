"""The code of docs/export.md runs as written, in processes without the packages it avoids."""

import os
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
FORMATS = {
    'StableHLO': 'stablehlo',
    "TensorFlow's SavedModel": 'saved_model',
    'ONNX': 'onnx',
    'safetensors': 'safetensors',
}
# Relative, of logits; the code does not compile the network, as the test does.
TOLERANCES = {'stablehlo': 1e-5, 'saved_model': 1e-5, 'onnx': 1e-4, 'safetensors': 1e-5}
# Packages that the code must do without.
HIDDEN = {
    'StableHLO': ['flax', 'ssanet_jax', 'tensorflow'],
    "TensorFlow's SavedModel": ['jax', 'flax', 'ssanet_jax'],
    'ONNX': ['jax', 'flax', 'ssanet_jax', 'tensorflow'],
    'safetensors': ['tensorflow', 'clu', 'ml_collections', 'sklearn'],
}

pytestmark = pytest.mark.filterwarnings('ignore:.*___pyct_anno:DeprecationWarning')


def execute(code, folder, hidden):
    """Executes `code` in a process where `hidden` packages cannot be imported."""
    script = f'import sys\nfor name in {hidden}: sys.modules[name] = None\n{code}'
    done = subprocess.run(
        [sys.executable, '-c', script],
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        timeout=300,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize('title', CODE)
@pytest.mark.slow
def test_documented_code_computes_the_logits_of_the_checkpoint(
    title, trained, small, images, exported, logits_of, tmp_path
):
    format_name = FORMATS[title]
    folder, _ = exported(format_name)
    np.save(tmp_path / 'images.npy', images)
    before = f"import numpy as np\nimages = np.load('{tmp_path}/images.npy')\n"
    after = f"\nnp.save('{tmp_path}/logits.npy', np.asarray(logits))\n"
    printed = execute(f'{before}{CODE[title]}{after}', folder.parent, HIDDEN[title])
    logits = np.load(tmp_path / 'logits.npy')
    expected = logits_of(trained if format_name == 'safetensors' else small)
    assert np.abs(logits - expected).max() <= TOLERANCES[format_name] * np.abs(expected).max()
    assert printed.splitlines()[-1] == f'digit {expected[0].argmax()}'


def test_every_format_has_a_section():
    assert {FORMATS[title] for title in CODE} == {*export.FORMATS}
