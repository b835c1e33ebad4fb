"""A command without its optional packages says in one line which extra installs them."""

import os
import re
import subprocess
import sys
import tomllib

import pytest

from ssanet_jax import tools
from tests.helpers import ROOT

# Modules of the distributions whose modules have other names.
_MODULES = {
    'absl_py': 'absl',
    'opencv_python_headless': 'cv2',
    'orbax_checkpoint': 'orbax',
    'pillow': 'PIL',
    'scikit_learn': 'sklearn',
    'tensorflow_cpu': 'tensorflow',
}
_OF_USERS = (
    'weights', 'torch', 'hub', 'train', 'tensorflow', 'export', 'demo', 'study', 'preflight-tpu',
)  # fmt: skip


def test_every_optional_package_has_its_extra():
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    extras = {
        _MODULES.get(name, name): extra
        for extra in reversed(_OF_USERS)
        for requirement in project['optional-dependencies'][extra]
        if (name := re.match(r'[\w.-]+', requirement)[0].replace('-', '_'))
        not in ('ssanet_jax', 'jax', 'flax')
    }
    assert {name: extra for name, extra in extras.items() if extra != 'train'} == tools.EXTRAS


def run(arguments, start, missing=''):
    """Runs Python in an environment without a module, which sitecustomize.py in `start` hides."""
    (start / 'sitecustomize.py').write_text(
        'import importlib.abc, sys\n'
        'class Missing(importlib.abc.MetaPathFinder):\n'
        '    def find_spec(self, name, path, target=None):\n'
        f'        if name.partition(".")[0] == {missing!r}:\n'
        '            raise ModuleNotFoundError(f"No module named {name!r}", name=name)\n'
        'sys.meta_path.insert(0, Missing())\n'
    )
    environment = {**os.environ, 'PYTHONPATH': f'{start}{os.pathsep}{ROOT}'}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ('command', 'module', 'extra'),
    [
        ('summary', 'ml_collections', 'train'),
        pytest.param('prepare', 'tensorflow', 'tensorflow', marks=pytest.mark.slow),
        pytest.param('show_batch', 'matplotlib', 'train', marks=pytest.mark.slow),
        pytest.param('study', 'statsmodels', 'study', marks=pytest.mark.slow),
        pytest.param('demo', 'gradio', 'demo', marks=pytest.mark.slow),
        pytest.param('main', 'optax', 'train', marks=pytest.mark.slow),
    ],
)
def test_a_missing_package_is_one_line_that_names_its_extra(
    command, module, extra, digits_run, tmp_path
):
    arguments = {
        'summary': ['--list'],
        'prepare': ['--dataset=digits', f'--data_dir={tmp_path}'],
        'show_batch': ['--config=configs/digits_ssa20.py', f'--out={tmp_path}/x.png'],
        'study': [f'--out={tmp_path}', '--analyze_only'],
        'demo': [f'--workdir={digits_run}'],
        'main': ['--config=configs/digits_ssa20.py', f'--workdir={tmp_path}/run'],
    }[command]
    target = ['main.py'] if command == 'main' else ['-m', f'ssanet_jax.tools.{command}']
    result = run([*target, *arguments], tmp_path, module)
    assert result.returncode == 2, result.stderr
    assert result.stderr.count('\n') == 1, result.stderr
    assert f'{module}' in result.stderr
    assert f"pip install 'ssanet-jax[{extra}]'" in result.stderr


def test_other_errors_keep_their_traceback(capsys):
    for error in (
        ModuleNotFoundError('no name'),
        ModuleNotFoundError(name='_ctypes'),
        KeyError('x'),
    ):
        tools.name_extra(type(error), error, None)
        assert type(error).__name__ in capsys.readouterr().err


def test_a_script_of_a_user_keeps_the_traceback_of_its_own_module(tmp_path):
    script = tmp_path / 'main.py'
    script.write_text('from ssanet_jax.tools import commands\nimport gradio\n')
    result = run([script], tmp_path, 'gradio')
    assert result.returncode == 1
    assert 'import gradio\n' in result.stderr
