"""What consumers compute from each format is what the checkpoint computes."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax.errors import ConfigError
from ssanet_jax.export import (
    FORMATS,
    ParityError,
    description,
    evaluation_images,
    export_run,
    load,
    weights_file,
)
from ssanet_jax.export.program import as_trained, exported
from ssanet_jax.trained.load import load_trained
from ssanet_jax.trained.prediction import Predictor
from tests.export.fabricated import make_run
from tests.helpers import assert_trees_equal

BOUNDS = {'stablehlo': 1e-5, 'saved_model': 1e-5, 'onnx': 1e-4}  # of logits, relative

# Python 3.13, of the code that TensorFlow writes.
pytestmark = pytest.mark.filterwarnings('ignore:.*___pyct_anno:DeprecationWarning')


def relative(a, b):
    return np.abs(np.asarray(a) - b).max() / np.abs(b).max()


@pytest.mark.parametrize(
    ('form', 'preprocessing'),
    [
        ('stablehlo', True),
        ('stablehlo', False),
        ('saved_model', False),  # uint8 images: test_docs.py
        ('onnx', True),
        ('onnx', False),
    ],
)
def test_logits_are_those_of_the_checkpoint_for_one_image_and_for_seven(
    form, preprocessing, run, images, normalised, expected, tmp_path
):
    out = tmp_path / 'out'
    described = export_run(run, form, out, images, preprocessing=preprocessing)
    loaded = FORMATS[form].load(out)
    for count in (1, 7):
        outputs = loaded((images if preprocessing else normalised)[:count])
        logits, probabilities = (np.asarray(outputs[x]) for x in ('logits', 'probabilities'))
        assert relative(logits, expected[:count]) <= BOUNDS[form]
        powers = np.exp(expected[:count].astype(np.float64))
        np.testing.assert_allclose(
            probabilities, powers / powers.sum(axis=1, keepdims=True), rtol=1e-3, atol=1e-6
        )
        assert logits.dtype == probabilities.dtype == np.float32
    parity = described['parity']
    assert parity['images'] == 7
    assert parity['bound'] == BOUNDS[form]
    assert sorted(parity['differences']) == ['1', '7']
    assert max(parity['differences'].values()) <= BOUNDS[form]
    assert described['input']['dtype'] == ('uint8' if preprocessing else 'float32')
    assert json.loads((out / 'config.json').read_text()) == described
    assert sorted(path.name for path in tmp_path.iterdir()) == ['out']


@pytest.fixture(scope='module')
def weights_folder(run, images, tmp_path_factory):
    """The run as safetensors."""
    out = tmp_path_factory.mktemp('weights') / 'out'
    export_run(run, 'safetensors', out, images)
    return out


def test_the_description_says_what_goes_in_and_comes_out(weights_folder, run):
    described = json.loads((weights_folder / 'config.json').read_text())
    assert described['classes'] == [f'digit {i}' for i in range(10)]
    assert (described['network'], described['step']) == ('ssa_resnet20', 3)
    assert described['input'] == {
        'name': 'image',
        'dtype': 'uint8',
        'shape': ['n', 8, 8, 3],
        'values': 'RGB, 0 to 255',
        'mean': [0.3, 0.3, 0.3],
        'std': [0.37, 0.37, 0.37],
        'from_files': 'the whole image resized to 8 x 8, bilinear, antialiased',
    }
    assert described['outputs']['logits'] == {'dtype': 'float32', 'shape': ['n', 10]}
    assert str(run.config.dataset.data_dir) not in json.dumps(described)


def test_weights_alone_give_back_the_run(weights_folder, run, images):
    described = json.loads((weights_folder / 'config.json').read_text())
    assert described['parity']['differences'] == {'1': 0.0, '7': 0.0}
    back = load(weights_folder)
    assert_trees_equal(back.variables, run.variables)
    assert (back.step, back.classes) == (3, run.classes)
    assert back.config.dataset.mean == run.config.dataset.mean
    np.testing.assert_array_equal(Predictor(back).logits(images), Predictor(run).logits(images))


def test_weights_alone_have_no_other_form_without_preprocessing(run, images, tmp_path):
    with pytest.raises(ConfigError, match='the same without preprocessing'):
        export_run(run, 'safetensors', tmp_path / 'out', images, preprocessing=False)


def test_a_run_in_bfloat16_is_exported_in_float32_and_its_weights_as_they_are(
    data_dir, images, normalised, tmp_path
):
    fields = {'dtype': 'bfloat16', 'model.name': 'resnet20'}
    run = load_trained(make_run(tmp_path / 'run', data_dir, **fields))
    described = export_run(run, 'stablehlo', tmp_path / 'program', images[:1])
    assert 1e-4 < described['parity']['bfloat16'] < 0.1
    in_float32 = run.model.clone(dtype=jnp.float32)
    expected = in_float32.apply(run.variables, normalised[:1], train=False)
    logits = FORMATS['stablehlo'].load(tmp_path / 'program')(images[:1])['logits']
    assert relative(logits, np.asarray(expected)) <= 1e-5

    (tmp_path / 'weights').mkdir()
    trained = as_trained(run, preprocessing=True)
    described = {**described, 'format': 'safetensors'}
    weights_file.write(trained, tmp_path / 'weights', described)
    description.write(tmp_path / 'weights', described)
    back = load(tmp_path / 'weights')
    assert back.model.dtype == jnp.bfloat16
    assert_trees_equal(back.variables, run.variables)


def with_wrong_weights(factor):
    """A format's `write` that has the last kernel scaled."""

    def write(program, folder, described):
        kernel = program.variables['params']['fc']['kernel'] * np.float32(factor)
        fc = {**program.variables['params']['fc'], 'kernel': kernel}
        params = {**program.variables['params'], 'fc': fc}
        wrong = dataclasses.replace(program, variables={**program.variables, 'params': params})
        return FORMATS['stablehlo'].write(wrong, folder, described)

    return write


@pytest.mark.parametrize('factor', [1 + 1e-4, np.nan])
def test_what_computes_something_else_is_left_under_another_name(
    factor, run, images, tmp_path, monkeypatch
):
    wrong = FORMATS['stablehlo']._replace(write=with_wrong_weights(factor))
    monkeypatch.setitem(FORMATS, 'onnx', wrong._replace(bound=1e-5))
    with pytest.raises(ParityError, match=r'batches of 1, .*at most 1e-05.*out\.failed') as raised:
        export_run(run, 'onnx', tmp_path / 'out', images)
    assert raised.value.exit_code == 1
    assert [path.name for path in tmp_path.iterdir()] == ['out.failed']
    assert json.loads((tmp_path / 'out.failed/config.json').read_text())['step'] == 3


def test_rounding_alone_is_too_much_where_weights_are_exact(run, images, tmp_path, monkeypatch):
    def load_wrong(folder):
        program = exported(run, preprocessing=True)
        return jax.jit(program)  # with folded BatchNorms, which round otherwise

    monkeypatch.setitem(FORMATS, 'safetensors', FORMATS['safetensors']._replace(load=load_wrong))
    with pytest.raises(ParityError, match='at most 0 was expected'):
        export_run(run, 'safetensors', tmp_path / 'out', images)


def test_probabilities_that_are_not_of_the_logits_are_found(run, images, tmp_path, monkeypatch):
    def load_wrong(folder):
        call = FORMATS['stablehlo'].load(folder)
        return lambda x: {**call(x), 'probabilities': jax.nn.sigmoid(call(x)['logits'])}

    wrong = FORMATS['stablehlo']._replace(load=load_wrong)
    monkeypatch.setitem(FORMATS, 'onnx', wrong)
    with pytest.raises(ParityError, match='not the softmax'):
        export_run(run, 'onnx', tmp_path / 'out', images)


def test_what_its_own_library_cannot_load_is_told_in_a_line(run, images, tmp_path, monkeypatch):
    def cut(program, folder, described):
        (folder / 'model.onnx').write_bytes(b'no graph')

    monkeypatch.setitem(FORMATS, 'onnx', FORMATS['onnx']._replace(write=cut))
    with pytest.raises(ParityError, match=r'cannot be loaded back: .*out\.failed') as raised:
        export_run(run, 'onnx', tmp_path / 'out', images)
    assert '\n' not in str(raised.value)


def test_what_cannot_be_written_leaves_nothing(run, images, tmp_path, monkeypatch):
    def fail(program, folder, described):
        (folder / 'half').write_text('half')
        raise OSError('No space left on device')

    monkeypatch.setitem(FORMATS, 'onnx', FORMATS['onnx']._replace(write=fail))
    with pytest.raises(OSError, match='No space left'):
        export_run(run, 'onnx', tmp_path / 'out', images)
    assert not [*tmp_path.iterdir()]


def test_the_images_of_the_run_are_digits_of_its_test_split(run, test_digits):
    found = evaluation_images(run)
    assert found.shape == (7, 8, 8, 3)
    assert all((test_digits == image).all(axis=(1, 2, 3)).any() for image in found)


def replace(path, old, new):
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (lambda folder: (folder / 'config.json').unlink(), 'does not describe'),
        (lambda folder: (folder / 'config.json').write_text('[1]'), 'does not describe'),
        (lambda folder: (folder / 'config.json').write_text('{"format": "onnx"}'), 'not describe'),
        (lambda folder: replace(folder / 'config.json', 'safetensors', 'onnx'), 'network as onnx'),
        (lambda folder: replace(folder / 'config.json', 'ssa_resnet20', 'vgg11'), 'another'),
        (
            lambda folder: replace(folder / 'config.json', '"image_size": 8', '"image_size": "8"'),
            'int',
        ),
        (lambda folder: (folder / 'model.safetensors').unlink(), 'is no file'),
        (lambda folder: (folder / 'model.safetensors').write_bytes(b'x' * 99), 'no complete'),
    ],
    ids=[
        'no file',
        'no dict',
        'half',
        'another format',
        'another network',
        'no number',
        'no weights',
        'bytes',
    ],
)
def test_a_folder_that_is_damaged_is_told_in_a_line(damage, message, weights_folder, tmp_path):
    damage(shutil.copytree(weights_folder, tmp_path / 'out'))
    with pytest.raises(ConfigError, match=message) as raised:
        load(tmp_path / 'out')
    assert '\n' not in str(raised.value)
