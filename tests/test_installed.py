"""The wheel and the source distribution, built and used outside of the checkout."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from ssanet_jax.version import __version__
from tests.helpers import ROOT


def test_the_citation_and_the_changelog_have_the_version():
    citation, changelog = (ROOT / name for name in ('CITATION.cff', 'CHANGELOG.md'))
    assert f'\nversion: {__version__}\n' in citation.read_text()
    (released, date), *_ = re.findall(r'\n## \[([\d.]+)\] - (\S+)', changelog.read_text())
    assert released == __version__
    assert f'\ndate-released: {date}\n' in citation.read_text()


@pytest.fixture(scope='module')
def distributions(tmp_path_factory):
    """The source distribution, and the wheel that is built from it, without the network."""
    folder = tmp_path_factory.mktemp('dist')
    build = [sys.executable, '-W', 'error', '-m', 'build', '--no-isolation', f'--outdir={folder}']
    subprocess.run([*build, str(ROOT)], check=True, cwd=folder, capture_output=True)
    name = f'ssanet_jax-{__version__}'
    assert {path.name for path in folder.iterdir()} == {
        f'{name}.tar.gz',
        f'{name}-py3-none-any.whl',
    }
    return folder / f'{name}.tar.gz', folder / f'{name}-py3-none-any.whl'


def test_both_distributions_have_every_file_of_the_package_and_the_recipes(distributions):
    tracked = subprocess.run(
        ['git', 'ls-files', 'ssanet_jax', 'configs'], cwd=ROOT, capture_output=True, text=True
    )
    sources = set(tracked.stdout.split())
    assert 'configs/digits_ssa20.py' in sources
    source, wheel = distributions
    with tarfile.open(source) as archive:
        names = {name.partition('/')[2] for name in archive.getnames()}
    assert sources <= names
    assert not [name for name in names if name.startswith(('tests', 'benchmarks', 'docs'))]
    installed = {name.replace('configs/', 'ssanet_jax/configs/') for name in sources}
    with zipfile.ZipFile(wheel) as archive:
        assert {n for n in archive.namelist() if '.dist-info/' not in n} == installed


@pytest.fixture(scope='module')
def ssanet(distributions, tmp_path_factory):
    """The command of the installed wheel, run in an empty folder.

    Its environment sees the packages of this one, except an editable installation of the checkout.
    """
    folder = tmp_path_factory.mktemp('installed')
    venv.create(folder / 'venv', with_pip=False)
    bin_dir = folder / 'venv' / 'bin'
    pip = [sys.executable, '-m', 'pip', f'--python={bin_dir}/python', 'install', '--no-deps']
    subprocess.run([*pip, '--no-index', str(distributions[1])], check=True, capture_output=True)
    own = next((folder / 'venv').rglob('site-packages'))
    (own / 'packages.pth').write_text(f'{sysconfig.get_paths()["purelib"]}\n')
    (folder / 'empty').mkdir()
    environment = {k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', 'XLA_FLAGS')}

    def run(*arguments):
        return subprocess.run(
            [bin_dir / 'ssanet', *arguments],
            cwd=folder / 'empty',
            env=environment,
            capture_output=True,
            text=True,
        )

    code = 'import ssanet_jax; print(ssanet_jax.__file__)'
    python = [bin_dir / 'python', '-c', code]
    found = subprocess.check_output(python, cwd=folder, env=environment, text=True)
    assert Path(found.strip()).parent == own / 'ssanet_jax'
    return run


def test_the_installed_command_knows_the_recipes(ssanet):
    done = ssanet('summary', '--config=digits_ssa20', '--num_classes=10')
    assert (done.returncode, done.stderr) == (0, '')
    assert 'ssa_resnet20' in done.stdout


@pytest.mark.slow
def test_the_installed_command_trains_predicts_exports_and_publishes(ssanet, data_dir, tmp_path):
    sklearn = pytest.importorskip('sklearn.datasets')
    from PIL import Image

    digits = sklearn.load_digits()
    Image.fromarray((digits.images[0] * 15.9).astype('uint8')).save(tmp_path / 'digit.png')
    commands = [
        f'train --config=digits_ssa20 --workdir={tmp_path}/run --config.num_train_steps=200 '
        f'--config.dataset.data_dir={data_dir}',
        f'predict --workdir={tmp_path}/run --format=csv {tmp_path}/digit.png',
        f'export --workdir={tmp_path}/run --format=stablehlo --out={tmp_path}/exported',
        f'publish --workdir={tmp_path}/run --out={tmp_path}/published',
        f'predict --model={tmp_path}/published --format=csv {tmp_path}/digit.png',
    ]
    done_all = [ssanet(*command.split()) for command in commands]
    for done in done_all:
        assert (done.returncode, done.stderr) == (0, '')
    _, predicted, exported, _, again = done_all
    assert (tmp_path / 'run' / 'report.html').exists()
    assert f'{tmp_path}/digit.png,1,{digits.target[0]},' in predicted.stdout
    assert 'Loaded back and compared with the checkpoint' in exported.stdout
    published = {path.name for path in (tmp_path / 'published').iterdir()}
    assert published == {'README.md', 'config.json', 'model.safetensors'}
    assert again.stdout == predicted.stdout
