import io
import json
import shutil
import sys

import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from ssanet_jax.errors import ConfigError
from ssanet_jax.tools import export as module
from tests.export.fabricated import make_run
from tests.helpers import run_tool


def tool(*arguments):
    """Runs the command in this process."""
    run_tool(module, *arguments)


@pytest.fixture(scope='module')
def workdir(tmp_path_factory, data_dir):
    """The workdir of a ResNet-8."""
    folder = tmp_path_factory.mktemp('run') / 'digits'
    return make_run(folder, data_dir, **{'model.name': 'resnet8'})


@pytest.fixture
def options(workdir, tmp_path):
    return [f'--workdir={workdir}', f'--out={tmp_path}/out', '--format=onnx']


def test_the_comparison_is_printed(options, tmp_path, capsys):
    tool(*options)
    first, second, one, seven = capsys.readouterr().out.splitlines()[-4:]
    assert first == f'{tmp_path}/out: resnet8, step 3, as onnx'
    assert second == 'Loaded back and compared with the checkpoint on 7 images:'
    found = json.loads((tmp_path / 'out/config.json').read_text())['parity']['differences']
    for line, size in ((one, '1'), (seven, '7')):
        differ = f'logits differ by {found[size]:.1e} of the largest, 1e-04 allowed'
        assert line == f'  batches of {size}: {differ}'
    assert not (tmp_path / 'out/model.safetensors').exists()


def test_images_come_from_arguments_and_standard_input(workdir, tmp_path, capsys, monkeypatch):
    china, flower = map(Image.fromarray, load_sample_images().images)
    (tmp_path / 'photos').mkdir()
    china.save(tmp_path / 'photos/china.jpg')
    stdin = io.BytesIO()
    flower.save(stdin, 'PNG')
    stdin.seek(0)
    monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(stdin))
    options = [f'--workdir={workdir}', f'--out={tmp_path}/out', '--format=safetensors']
    tool(f'{tmp_path}/photos', *options, '-')
    assert capsys.readouterr().out.splitlines() == [
        f'{tmp_path}/out: resnet8, step 3, as safetensors',
        'Loaded back and compared with the checkpoint on 2 images:',
        '  batches of 1: logits are equal',
        '  batches of 7: logits are equal',
    ]
    assert json.loads((tmp_path / 'out/config.json').read_text())['step'] == 3


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--out=/'], '--out=/ exists; choose a new folder'),
        (['--out=/nowhere/out'], '--out=/nowhere/out: /nowhere is not a folder'),
        (['--out=/tmp/a[1]', '--format=saved_model'], r'has \*, .* TensorFlow .* another name'),
        (['--workdir=/nowhere'], '/nowhere holds no checkpoints/'),
        (['--checkpoint=9'], '--checkpoint=9 is not in'),
        (['--format=safetensors', '--nopreprocessing'], 'has no effect with --format=safetensors'),
        (['/nowhere/*.jpg'], 'matches no file'),
        (['/nowhere/a.jpg'], 'No image can be decoded: It cannot be read'),
    ],
    ids=[
        'exists',
        'no_parent',
        'pattern',
        'no_run',
        'no_checkpoint',
        'no_effect',
        'no_match',
        'no_image',
    ],
)
def test_a_mistake_is_reported_in_one_line(arguments, message, options, tmp_path):
    given = {argument.partition('=')[0] for argument in arguments}
    with pytest.raises(ConfigError, match=message) as raised:
        tool(*(o for o in options if o.partition('=')[0] not in given), *arguments)
    assert '\n' not in str(raised.value)
    assert not [*tmp_path.iterdir()]


def test_a_failed_export_is_not_overwritten(options, tmp_path):
    (tmp_path / 'out.failed').mkdir()
    with pytest.raises(ConfigError, match=r'out\.failed is left .*; remove it'):
        tool(*options)


def test_a_run_without_its_dataset_asks_for_images(workdir, tmp_path):
    elsewhere = shutil.copytree(workdir, tmp_path / 'run')
    config = json.loads((elsewhere / 'config.json').read_text())
    config['dataset'] |= {'name': 'folder', 'data_dir': '/nowhere'}
    (elsewhere / 'config.json').write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r'/nowhere .*Or pass any image files') as raised:
        tool(f'--workdir={elsewhere}', f'--out={tmp_path}/out', '--format=onnx')
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize('package', ['onnx', 'onnxruntime'])
def test_a_missing_package_is_named_with_its_install_command(
    package, options, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, package, None)
    message = rf"needs {package}: pip install 'ssanet-jax\[export\]'"
    with pytest.raises(ConfigError, match=message):
        tool(*options)
    assert not [*tmp_path.iterdir()]


def test_a_network_that_onnx_cannot_express_is_reported(options, tmp_path, monkeypatch):
    from ssanet_jax.export import onnx_rules

    monkeypatch.delitem(onnx_rules.RULES, 'conv_general_dilated')
    with pytest.raises(ConfigError, match=r'no rule for conv_general_dilated\. Choose'):
        tool(*options)
    assert not [*tmp_path.iterdir()]
