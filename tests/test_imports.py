import ast
import subprocess
import sys

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
        [
            'ssanet_jax.data.image_files',
            'ssanet_jax.trained.prediction',
            'ssanet_jax.tools.predict',
        ],
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
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            base = f'{node.module}.' if isinstance(node, ast.ImportFrom) else ''
            modules = [f'{base}{alias.name}' for alias in node.names]
            for module in modules:
                top, *inner = module.split('.')
                if top == 'ssanet_jax':
                    assert order.index(inner[0]) <= own, f'{file}:{node.lineno} imports {module}'
