"""Tests against the oldest and newest versions that pyproject.toml allows, and some between.

Also the tests that need packages which requirements-test.txt leaves out: torch and libtpu.

    nox                                # all; half an hour on two cores that do nothing else
    nox -s 'core-3.13(newest)'         # one
    nox -s core -p 3.13 && nox -s table

Needs uv. Each session installs from the registries into an environment of its own; those whose
interpreter is neither installed nor downloadable are skipped. The last prints
benchmarks/results/matrix.json, which each session updates, and writes it to docs/install.md.
"""

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import nox

ROOT = Path(__file__).parent
RESULTS = ROOT / 'benchmarks' / 'results' / 'matrix.json'
CORE = ('tests/attention', 'tests/layers', 'tests/models', 'tests/weights', 'tests/test_imports.py')
TRAINING = (
    'tests/training/test_steps.py',
    'tests/training/test_optimizer.py',
    'tests/training/test_checkpoint.py',
    'tests/training/test_loop.py',
)
TORCH = (
    'tests/weights',
    'tests/test_security.py',
    'tests/study/test_torch_learning.py',
    'tests/pretrained/test_hosted.py',
)
PYTEST = ('pytest>=8.3', 'pytest-timeout>=2.3', 'pytest-xdist>=3.6')
VERSIONS = (
    'import json, platform; from importlib.metadata import version as v;'
    "print(json.dumps({'python': platform.python_version(), 'jax': v('jax'), 'flax': v('flax')}))"
)

nox.needs_version = '>=2025.2.9'
nox.options.default_venv_backend = 'uv'


@nox.session(python=['3.11', '3.12', '3.13', '3.14'])
@nox.parametrize(
    'versions',
    [
        nox.param(['--resolution=lowest-direct'], id='oldest'),
        nox.param(['jax==0.9.*'], id='middle'),
        nox.param([], id='newest'),
    ],
)
def core(session: nox.Session, versions: list[str]) -> None:
    """Blocks, networks and weights, without the packages of the extra `train`."""
    session.install('.', *versions)
    use = 'from ssanet_jax import *; create_model("ssa_resnet50", num_classes=10)'
    session.run('python', '-W', 'error', '-c', use)
    session.install(*PYTEST, 'ml_collections', 'safetensors')
    test(session, CORE)


@nox.session(python=['3.11', '3.13'])
def train(session: nox.Session) -> None:
    """The training step, optimizers, checkpoints and the loop; Python 3.11 has jax 0.10 at most."""
    session.install('.[train]')
    session.install(*PYTEST)
    test(session, TRAINING)


@nox.session(python='3.13')
def torch(session: nox.Session) -> None:
    """Files of torch, its network in studies/, and the tables of torchvision and timm; on CPUs."""
    session.install('.[train,study,hub,torch]', 'torchvision', 'timm>=1.0', '--torch-backend=cpu')
    session.install(*PYTEST)
    session.run('python', '-c', 'import torch, torchvision, timm')  # without, tests are skipped
    test(session, TORCH, '-m', '')


@nox.session(python='3.13')
def preflight(session: nox.Session) -> None:
    """Compilation for a TPU; libtpu has wheels for Linux only."""
    session.install('.[train,preflight-tpu]')
    session.install(*PYTEST)
    session.run('python', '-c', 'import libtpu')  # without it, the test is skipped
    test(session, ('tests/tools/test_preflight.py',))


@nox.session(venv_backend='none')
def table(session: nox.Session) -> None:
    """Prints the results and writes them to docs/install.md."""
    sys.path.insert(0, str(ROOT / 'benchmarks'))
    from common import fill, markdown

    header = ('session', 'Python', 'jax', 'flax', 'passed', 'skipped', 'failed')
    rows = [
        [name, *map(str, row.values())] for name, row in json.loads(RESULTS.read_text()).items()
    ]
    text = markdown(header, rows)
    fill(ROOT / 'docs' / 'install.md', {'matrix': text})
    print(text)


def test(session: nox.Session, paths: tuple[str, ...], *options: str) -> None:
    """Runs pytest and records its counts under the name of the session, also if tests fail."""
    versions = json.loads(session.run('python', '-c', VERSIONS, silent=True))
    report = Path(session.create_tmp()) / 'junit.xml'
    command = ('python', '-m', 'pytest', '-q', '-n', 'logical', '--maxprocesses=4')
    try:
        session.run(*command, f'--junitxml={report}', *options, *paths, *session.posargs)
    finally:
        counts = ElementTree.parse(report).getroot()[0].attrib
        failed, skipped = int(counts['failures']) + int(counts['errors']), int(counts['skipped'])
        row = {
            **versions,
            'passed': int(counts['tests']) - failed - skipped,
            'skipped': skipped,
            'failed': failed,
        }
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        results[session.name] = row
        RESULTS.write_text(json.dumps(dict(sorted(results.items())), indent=1) + '\n')
