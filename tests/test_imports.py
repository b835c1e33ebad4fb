import ast
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.helpers import ROOT


@pytest.mark.parametrize(
    'modules',
    [
        ['ssanet_jax'],
        [
            'ssanet_jax.models',
            'ssanet_jax.analysis.macs',
            'ssanet_jax.analysis.saliency_scores',
            'ssanet_jax.trained.ablation',
            'ssanet_jax.training.steps',
            'ssanet_jax.training.losses',
            'ssanet_jax.training.metrics',
            'ssanet_jax.training.optimizer',
            'ssanet_jax.tools.preflight',
        ],
        pytest.param(
            [
                'ssanet_jax.data.image_files',
                'ssanet_jax.trained.prediction',
                'ssanet_jax.tools.predict',
            ],
            marks=pytest.mark.skipif(find_spec('cv2') is None, reason='needs the extra train'),
        ),
    ],
    ids=['package', 'training step', 'predictions'],
)
def test_importing_it_imports_neither_tensorflow_nor_tfds(modules):
    code = (
        f'import sys, importlib\nfor name in {modules}: importlib.import_module(name)\n'
        'found = {"tensorflow", "tensorflow_datasets"} & set(sys.modules)\n'
        'assert not found, found'
    )
    subprocess.run([sys.executable, '-c', code], check=True, timeout=120)


def test_the_package_alone_needs_jax_and_flax_only():
    """No package of the `train` extra is imported, except by flax itself."""
    hidden = ['ml_collections', 'tensorflow', 'tensorflow_datasets', 'sklearn']
    code = (
        'import sys\n'
        f'for name in {hidden}: sys.modules[name] = None\n'
        'from ssanet_jax import SSABlock, create_model\n'
        'create_model("ssa_resnet50", num_classes=10)'
    )
    subprocess.run([sys.executable, '-c', code], check=True, timeout=120)


def test_packages_import_only_packages_before_them():
    order = 'version errors atomic_write output runtime tables layers attention nnx models weights'
    order = [
        *order.split(),
        'config',
        'data',
        'pretrained',
        'analysis',
        'targets',
        'training',
        'trained',
        'report',
        'study',
        'export',
        'publish',
        'tools',
    ]
    package = ROOT / 'ssanet_jax'
    for file in {*package.rglob('*.py')} - {package / '__init__.py'}:
        own = order.index(file.relative_to(package).parts[0].removesuffix('.py'))
        for line, module in imports(file):
            assert order.index(module.split('.')[1]) <= own, f'{file}:{line} imports {module}'


def test_of_training_multihost_imports_itself_only_and_storage_both():
    training = ROOT / 'ssanet_jax/training'
    allowed = {'multihost': {'multihost'}, 'storage': {'multihost', 'storage'}}
    for folder, names in allowed.items():
        for file in (training / folder).rglob('*.py'):
            for line, module in imports(file):
                inner = module.split('.')[1:]
                assert inner[0] != 'training' or inner[1] in names, f'{file}:{line}: {module}'


def test_every_module_and_name_of_the_package_in_a_test_exists():
    """Also in strings, which other processes run, and in tests that are slow."""
    for file in (ROOT / 'tests').rglob('*.py'):
        text = file.read_text()
        names = {name for _, name in imports(file)}
        names |= set(re.findall(r'(?<![\w/])ssanet_jax(?:\.(?!__)\w+)+', text))
        for base, several in re.findall(r'from (ssanet_jax[.\w]*) import (\w[\w, ]*)', text):
            names |= {f'{base}.{name.split()[0]}' for name in several.split(',') if name.strip()}
        assert [name for name in names if not exists(name)] == [], file


def exists(name):
    """Whether `ssanet_jax.a.b` is a module, or a word in the source of the module it is in."""
    path = ROOT.joinpath(*name.split('.'))
    if path.is_dir() or path.with_suffix('.py').is_file():
        return True
    source = path.parent.with_suffix('.py')
    source = source if source.is_file() else path.parent / '__init__.py'
    if source.is_file():
        return re.search(rf'\b{path.name}\b', source.read_text()) is not None
    return exists(name.rpartition('.')[0])


def imports(file):
    """The line and the name of each import of this package's modules."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            base = f'{node.module}.' if isinstance(node, ast.ImportFrom) else ''
            for alias in node.names:
                if f'{base}{alias.name}'.startswith('ssanet_jax.'):
                    yield node.lineno, f'{base}{alias.name}'
