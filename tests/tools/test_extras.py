"""A command without its optional packages says in one line which extra installs them."""

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
    assert {**extras, 'scipy': 'train'} == tools.EXTRAS


def run(code):
    return subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    ('command', 'module', 'extra'),
    [
        ('summary', 'ml_collections', 'train'),
        pytest.param('prepare', 'tensorflow', 'tensorflow', marks=pytest.mark.slow),
        pytest.param('show_batch', 'matplotlib', 'train', marks=pytest.mark.slow),
        pytest.param('study', 'statsmodels', 'study', marks=pytest.mark.slow),
        pytest.param('main', 'optax', 'train', marks=pytest.mark.slow),
    ],
)
def test_a_missing_package_is_one_line_that_names_its_extra(command, module, extra, tmp_path):
    arguments = {
        'summary': ['--list'],
        'prepare': ['--dataset=digits', f'--data_dir={tmp_path}'],
        'show_batch': ['--config=configs/digits_ssa20.py', f'--out={tmp_path}/x.png'],
        'study': [f'--out={tmp_path}', '--analyze_only'],
        'main': ['--config=configs/digits_ssa20.py', f'--workdir={tmp_path}/run'],
    }[command]
    target = f'ssanet_jax.tools.{command}'
    start = (
        'runpy.run_path("main.py", run_name="__main__")'
        if command == 'main'
        else f'runpy._run_module_as_main("{target}")'
    )
    argv = ['main.py' if command == 'main' else '-m', *arguments]
    result = run(
        'import importlib.abc, runpy, sys\n'
        'class Missing(importlib.abc.MetaPathFinder):\n'
        '    def find_spec(self, name, path, target=None):\n'
        f'        if name.partition(".")[0] == {module!r}:\n'
        '            raise ModuleNotFoundError(f"No module named {name!r}", name=name)\n'
        'sys.meta_path.insert(0, Missing())\n'
        f'sys.argv = {argv}\n{start}'
    )
    assert result.returncode == 2, result.stderr
    assert result.stderr.count('\n') == 1, result.stderr
    assert f'{module}' in result.stderr
    assert f"pip install 'ssanet-jax[{extra}]'" in result.stderr


def test_other_errors_keep_their_traceback(capsys):
    for error in (ModuleNotFoundError('no name'), ModuleNotFoundError(name='mine'), KeyError('x')):
        tools.name_extra(type(error), error, None)
        assert type(error).__name__ in capsys.readouterr().err
