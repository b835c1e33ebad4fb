"""Tests against the oldest and newest versions that pyproject.toml allows, and some between.

Also the quickstart with the versions of Colab, and the tests that need packages which
requirements-test.txt leaves out: torch, and the compilers for TPUs and GPUs.

    nox                                # all; an hour on two cores that do nothing else
    nox -s 'core-3.13(newest)'         # one
    nox -s core -p 3.13 && nox -s table

Needs uv. Each session installs from the registries into an environment of its own; those whose
interpreter is neither installed nor downloadable are skipped. The last prints
benchmarks/results/matrix.json, which each session updates, and writes it to docs/install.md.
Arguments after -- go to pytest; such sessions are not recorded.
"""

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import nox

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT / 'benchmarks'))

from common import commit, fill, markdown

RESULTS = ROOT / 'benchmarks' / 'results' / 'matrix.json'
CORE = ('tests/attention', 'tests/layers', 'tests/models', 'tests/weights', 'tests/test_imports.py')
TRAINING = (
    'tests/training/test_steps.py',
    'tests/training/test_optimizer.py',
    'tests/training/test_schedules.py',
    'tests/training/test_checkpoint.py',
    'tests/training/test_loop.py',
    'tests/training/test_resuming.py',
    'tests/report/test_page.py',
    'tests/tools/test_predict.py',
)
TORCH = (
    'tests/weights',
    'tests/test_security.py',
    'tests/study/test_torch_learning.py',
    'tests/pretrained/test_hosted.py',
)
# The lower bounds of pyproject.toml, or the first version with wheels for the interpreter.
OLDEST = [
    '--resolution=lowest-direct',
    '--only-binary=:all:',
    *('--no-binary=ssanet-jax', '--no-binary=promise'),  # have no wheels
]
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
        nox.param(OLDEST, id='oldest'),
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


@nox.session(python=['3.11', '3.13', '3.14'])
@nox.parametrize('versions', [nox.param(OLDEST, id='oldest'), nox.param([], id='newest')])
def train(session: nox.Session, versions: list[str]) -> None:
    """Steps, optimizers, checkpoints, the loop, reports; Python 3.11 has jax 0.10 at most."""
    session.install('.[train]', *versions)
    session.install(*PYTEST)
    # Old packages use what their new dependencies deprecate.
    test(session, TRAINING, *(['-W', 'ignore::DeprecationWarning'] if versions else []))


@nox.session(python='3.13')
@nox.parametrize(
    'packages', [nox.param([], id='alone'), nox.param(['tensorflow-cpu'], id='tensorflow')]
)
def colab(session: nox.Session, packages: list[str]) -> None:
    """The quickstart notebook with Colab's Python, jax and flax."""
    session.install('.', 'jax==0.7.2', 'flax==0.11.2', 'scikit-learn', 'matplotlib', *packages)
    session.install(*PYTEST, 'nbclient', 'ipykernel')
    test(session, ('tests/test_notebook.py',), '-m', '', '-k', 'quickstart')


@nox.session(python='3.13')
def torch(session: nox.Session) -> None:
    """Files of torch, its network in studies/, and the tables of torchvision and timm; on CPUs."""
    session.install('.[train,study,hub,torch]', 'torchvision', 'timm>=1.0', '--torch-backend=cpu')
    session.install(*PYTEST)
    session.run('python', '-c', 'import torch, torchvision, timm')  # without, tests are skipped
    test(session, TORCH, '-m', '')


@nox.session(python='3.13')
def preflight(session: nox.Session) -> None:
    """Compilation for a TPU and a GPU; the compilers have wheels for Linux only."""
    session.install('.[train,preflight-tpu,preflight-cuda]')
    session.install(*PYTEST)
    session.run('python', '-c', 'import libtpu, jax_cuda13_plugin')  # without, tests are skipped
    test(session, ('tests/tools/test_preflight.py',))


@nox.session(venv_backend='none')
def table(session: nox.Session) -> None:
    """Prints the results and writes them to docs/install.md."""
    header = ('session', 'Python', 'jax', 'flax', 'commit', 'passed', 'skipped', 'failed')
    rows = [
        [name, *map(str, row.values())] for name, row in json.loads(RESULTS.read_text()).items()
    ]
    text = markdown(header, rows)
    fill(ROOT / 'docs' / 'install.md', {'matrix': text})
    print(text)


def test(session: nox.Session, paths: tuple[str, ...], *options: str) -> None:
    """Runs pytest and records its counts under the name of the session, also if tests fail."""
    tested = json.loads(session.run('python', '-c', VERSIONS, silent=True)) | {'commit': commit()}
    report = Path(session.create_tmp()) / 'junit.xml'
    report.unlink(missing_ok=True)
    command = ('python', '-m', 'pytest', '-q', '-n', 'logical', '--maxprocesses=4')
    arguments = (f'--junitxml={report}', *options, *paths, *session.posargs)
    session.run(*command, *arguments, success_codes=[0, 1])  # 1: tests failed
    if not report.exists():
        session.error('pytest ended without a report; see its output above')
    counts = ElementTree.parse(report).getroot()[0].attrib
    failed, skipped = int(counts['failures']) + int(counts['errors']), int(counts['skipped'])
    row = {
        **tested,
        'passed': int(counts['tests']) - failed - skipped,
        'skipped': skipped,
        'failed': failed,
    }
    if not session.posargs:
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        results[session.name] = row
        RESULTS.write_text(json.dumps(dict(sorted(results.items())), indent=1) + '\n')
    if failed:
        session.error(f'tests failed: {failed}')
