import re
import tomllib

import jax
import jax.numpy as jnp
import nbformat
import pytest
from nbclient import NotebookClient

from ssanet_jax import create_model, weights
from tests.helpers import ROOT

NOTEBOOKS = sorted((ROOT / 'notebooks').glob('*.ipynb'))


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped(path):
    for cell in nbformat.read(path, as_version=4).cells:
        assert not cell.get('outputs')
        assert not cell.get('execution_count')


@pytest.fixture
def execute(monkeypatch, tmp_path, data_dir):
    """Runs a notebook with some text replaced; returns its output and number of images."""

    def run(name, replace=None, **environment):
        for variable, value in {
            'TFDS_DATA_DIR': str(data_dir),
            'XLA_FLAGS': '',
            'TMPDIR': str(tmp_path),
            **environment,
        }.items():
            monkeypatch.setenv(variable, value)
        notebook = nbformat.read(ROOT / 'notebooks' / f'{name}.ipynb', as_version=4)
        for old, new in (replace or {}).items():
            cells = [cell for cell in notebook.cells if old in cell.source]
            assert cells, f'{name} has no {old}'
            for cell in cells:
                cell.source = cell.source.replace(old, new)
        resources = {'metadata': {'path': str(ROOT / 'notebooks')}}
        NotebookClient(notebook, timeout=600, resources=resources).execute()
        outputs = [output for cell in notebook.cells for output in cell.get('outputs', [])]
        printed = ''.join(output.get('text', '') for output in outputs)
        return printed, sum('image/png' in output.get('data', {}) for output in outputs)

    return run


pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning')  # when the kernel starts


def test_badges_open_the_notebooks_of_the_repository():
    """[project.urls] of pyproject.toml is the one place that names it; without it, no badge."""
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    repository = project.get('urls', {}).get('Repository', '').removeprefix('https://github.com/')
    colab = 'https://colab.research.google.com'
    for path in NOTEBOOKS:
        page = f'{colab}/github/{repository}/blob/main/notebooks/{path.name}'
        badge = f'[![Open in Colab]({colab}/assets/colab-badge.svg)]({page})'
        first = nbformat.read(path, as_version=4).cells[0].source
        assert first.startswith(badge) if repository else colab not in first


@pytest.mark.slow
@pytest.mark.parametrize(
    'hidden',
    [('clu', 'ml_collections', 'orbax', 'tensorflow'), ()],
    ids=['with_what_the_block_needs', 'with_all_that_is_installed'],
)
def test_quickstart_trains_on_the_digits(execute, hidden):
    hide = f'import sys\nsys.modules.update(dict.fromkeys({hidden}))\n'
    first = '# Finds the package'
    printed, pictures = execute('quickstart', {first: hide + first})
    assert float(re.search(r'test accuracy ([0-9.]+) %', printed).group(1)) > 95
    assert "'bias': (1,), 'scale': (1,)" in printed
    assert 'layer3_2/ssa/gate (8, 2, 2, 1)' in printed
    assert pictures == 2


@pytest.mark.slow
def test_inside_analyzes_a_run(execute, trained_digits):
    printed, pictures = execute('inside', SSANET_WORKDIR=str(trained_digits))
    assert 'ssa_resnet8, step 60, classes: 0, 1, 2' in printed
    assert 'layer3_0/ssa mean' in printed
    assert 'all gates, shuffled: ' in printed
    assert pictures == 3


@pytest.mark.slow
def test_finetune_inserts_ssa_into_pretrained_weights_and_learns_the_tiles(execute, tmp_path):
    """Starts from weights of the plain network, in a file with the torchvision naming."""
    model = create_model('resnet20', num_classes=7)
    init = jax.jit(model.init, static_argnames='train')
    variables = init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)
    path = tmp_path / 'plain.safetensors'
    weights.save(path, weights.to_arrays(variables, model, naming='torchvision'))
    printed, pictures = execute(
        'finetune', SSANET_WEIGHTS=str(path), SSANET_MODEL='ssa_resnet20', SSANET_IMAGES=''
    )
    assert 'Weights of all layers but the last' in printed
    assert 'with SSA inserted' in printed
    top1 = float(re.search(r'top-1 +│ +([0-9.]+) %', printed).group(1))
    assert top1 > 80  # of two classes
    assert pictures == 1
