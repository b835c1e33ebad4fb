"""Each format, loaded by the library of its users, reproduces the checkpoint's logits."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ssanet_jax
from ssanet_jax.errors import ConfigError
from ssanet_jax.export import (
    FORMATS,
    ParityError,
    evaluation_images,
    export_trained,
)
from ssanet_jax.export.program import folded
from ssanet_jax.trained.load import load_trained
from ssanet_jax.trained.prediction import Predictor
from tests.export.fabricated import make_run
from tests.helpers import assert_trees_equal

TOLERANCES = {'stablehlo': 1e-5, 'saved_model': 1e-5, 'onnx': 1e-4}  # relative, of logits

# Python 3.13, of the code that TensorFlow writes.
pytestmark = pytest.mark.filterwarnings('ignore:.*___pyct_anno:DeprecationWarning')


def relative_difference(a, b):
    return np.abs(np.asarray(a) - b).max() / np.abs(b).max()


def check_logits(folder, metadata, inputs, expected):
    format_name = metadata['format']
    loaded, tolerance = FORMATS[format_name].load(folder), TOLERANCES[format_name]
    for count in (1, 7):
        outputs = loaded(inputs[:count])
        logits, probabilities = (np.asarray(outputs[x]) for x in ('logits', 'probabilities'))
        assert relative_difference(logits, expected[:count]) <= tolerance
        powers = np.exp(expected[:count].astype(np.float64))
        np.testing.assert_allclose(
            probabilities, powers / powers.sum(axis=1, keepdims=True), rtol=1e-3, atol=1e-6
        )
        assert logits.dtype == probabilities.dtype == np.float32
    parity = metadata['parity']
    assert parity['images'] == 7
    assert parity['bound'] == tolerance
    assert sorted(parity['differences']) == ['1', '7']
    assert max(parity['differences'].values()) <= tolerance
    assert metadata['input']['dtype'] == inputs.dtype.name
    assert json.loads((folder / 'config.json').read_text()) == metadata


@pytest.mark.parametrize('format_name', TOLERANCES)
def test_uint8_images_give_the_logits_of_the_checkpoint(
    format_name, exported, small, images, logits_of
):
    check_logits(*exported(format_name), images, logits_of(small))


@pytest.mark.parametrize('format_name', TOLERANCES)
def test_normalized_images_give_the_logits_of_the_checkpoint(
    format_name, small, images, normalized, logits_of, tmp_path
):
    out = tmp_path / 'out'
    metadata = export_trained(small, format_name, out, images, preprocessing=False)
    check_logits(out, metadata, normalized, logits_of(small))
    assert sorted(path.name for path in tmp_path.iterdir()) == ['out']


def test_the_metadata_describe_inputs_and_outputs(exported, trained):
    _, metadata = exported('safetensors')
    assert metadata['classes'] == [f'digit {i}' for i in range(10)]
    assert (metadata['network'], metadata['step']) == ('ssa_resnet20', 3)
    assert metadata['input'] == {
        'name': 'image',
        'dtype': 'uint8',
        'shape': ['n', 8, 8, 3],
        'values': 'RGB, 0 to 255',
        'from_files': 'rotated by Exif, composited on white; the whole image resized to 8 x 8, '
        'bilinear, antialiased',
    }
    assert metadata['preprocessing'] == {
        'size': 8,
        'resize': None,
        'interpolation': 'bilinear',
        'mean': [0.3, 0.3, 0.3],
        'std': [0.37, 0.37, 0.37],
        'flip': False,
    }
    assert metadata['outputs']['logits'] == {'dtype': 'float32', 'shape': ['n', 10]}
    assert str(trained.config.dataset.data_dir) not in json.dumps(metadata)


def test_safetensors_restore_the_run(exported, trained, images):
    folder, metadata = exported('safetensors')
    assert metadata['parity']['differences'] == {'1': 0.0, '7': 0.0}
    restored = ssanet_jax.load(folder)
    assert_trees_equal(restored.variables, trained.variables)
    assert (restored.name, restored.classes) == ('ssa_resnet20', trained.classes)
    assert restored.preprocessing == trained.preprocessing
    expected = Predictor(trained).logits(images)
    np.testing.assert_array_equal(Predictor(restored).logits(images), expected)


def test_a_checkpoint_that_diverged_is_not_blamed_on_the_disk(trained, images, tmp_path):
    variables = jax.tree.map(np.copy, trained.variables)
    variables['params']['fc']['bias'][0] = np.nan
    with pytest.raises(ParityError, match='logits of the checkpoint are not finite'):
        export_trained(
            trained._replace(variables=variables), 'safetensors', tmp_path / 'out', images
        )


def test_safetensors_reject_the_absence_of_preprocessing(trained, images, tmp_path):
    with pytest.raises(ConfigError, match='no preprocessing to omit'):
        export_trained(trained, 'safetensors', tmp_path / 'out', images, preprocessing=False)


def test_a_bfloat16_run_is_exported_in_float32(small, images, logits_of, tmp_path):
    in_bfloat16 = small._replace(model=small.model.clone(dtype=jnp.bfloat16))
    metadata = export_trained(in_bfloat16, 'stablehlo', tmp_path / 'out', images[:1])
    assert 1e-4 < metadata['parity']['bfloat16'] < 0.1
    logits = FORMATS['stablehlo'].load(tmp_path / 'out')(images[:1])['logits']
    assert relative_difference(logits, logits_of(small)[:1]) <= 1e-5


def test_safetensors_of_a_bfloat16_run_restore_its_dtype_and_float32_weights(
    data_dir, images, tmp_path
):
    fields = {'dtype': 'bfloat16', 'model.name': 'resnet20'}
    trained = load_trained(make_run(tmp_path / 'run', data_dir, **fields))
    export_trained(trained, 'safetensors', tmp_path / 'out', images[:1])
    restored = ssanet_jax.load(tmp_path / 'out')
    assert restored.model.dtype == jnp.bfloat16
    assert_trees_equal(restored.variables, trained.variables)


def replace_format(monkeypatch, name, *, write=FORMATS['stablehlo'].write, load=None):
    """Substitutes another writer or loader for those of a format."""
    load = load or FORMATS['stablehlo'].load
    fmt = SimpleNamespace(write=write, load=load, tolerance=1e-5, packages=(), weights_only=False)
    monkeypatch.setitem(FORMATS, name, fmt)


def scale_last_kernel(factor):
    """A StableHLO writer that scales the last kernel."""

    def write(program, folder, metadata):
        kernel = program.variables['params']['fc']['kernel'] * np.float32(factor)
        fc = {**program.variables['params']['fc'], 'kernel': kernel}
        params = {**program.variables['params'], 'fc': fc}
        scaled = dataclasses.replace(program, variables={**program.variables, 'params': params})
        return FORMATS['stablehlo'].write(scaled, folder, metadata)

    return write


@pytest.mark.parametrize('factor', [1 + 1e-4, np.nan])
def test_a_network_that_computes_something_else_is_kept_under_another_name(
    factor, small, images, tmp_path, monkeypatch
):
    replace_format(monkeypatch, 'onnx', write=scale_last_kernel(factor))
    with pytest.raises(ParityError, match=r'batches of 1, .*at most 1e-05.*out\.failed') as raised:
        export_trained(small, 'onnx', tmp_path / 'out', images)
    assert raised.value.exit_code == 1
    assert [path.name for path in tmp_path.iterdir()] == ['out.failed']
    assert json.loads((tmp_path / 'out.failed/config.json').read_text())['step'] == 3


def test_exact_weights_leave_no_room_for_rounding(trained, images, tmp_path, monkeypatch):
    def load_folded(folder):
        return jax.jit(folded(trained, preprocessing=True))  # folded BatchNorms round differently

    fmt = FORMATS['safetensors']
    replaced = SimpleNamespace(**fmt._asdict(), write=fmt.write, load=load_folded)
    monkeypatch.setitem(FORMATS, 'safetensors', replaced)
    with pytest.raises(ParityError, match='expected at most 0'):
        export_trained(trained, 'safetensors', tmp_path / 'out', images)


def test_probabilities_must_be_the_softmax_of_the_logits(small, images, tmp_path, monkeypatch):
    stablehlo = FORMATS['stablehlo']

    def load(folder):
        call = stablehlo.load(folder)
        return lambda x: {**call(x), 'probabilities': jax.nn.sigmoid(call(x)['logits'])}

    replace_format(monkeypatch, 'onnx', load=load)
    with pytest.raises(ParityError, match='not the softmax'):
        export_trained(small, 'onnx', tmp_path / 'out', images)


def test_a_file_that_cannot_be_loaded_back_is_one_line(small, images, tmp_path, monkeypatch):
    def write(program, folder, metadata):
        (folder / 'model.stablehlo').write_bytes(b'not\na\nprogram')

    replace_format(monkeypatch, 'onnx', write=write)
    with pytest.raises(ParityError, match=r'cannot be loaded back: .*out\.failed') as raised:
        export_trained(small, 'onnx', tmp_path / 'out', images)
    assert '\n' not in str(raised.value)


def test_a_failed_write_leaves_nothing(small, images, tmp_path, monkeypatch):
    def write(program, folder, metadata):
        (folder / 'half').write_text('half')
        raise OSError('No space left on device')

    replace_format(monkeypatch, 'onnx', write=write)
    with pytest.raises(OSError, match='No space left'):
        export_trained(small, 'onnx', tmp_path / 'out', images)
    assert not [*tmp_path.iterdir()]


def test_evaluation_images_are_digits_of_the_test_split(trained, test_digits):
    found = evaluation_images(trained)
    assert found.shape == (7, 8, 8, 3)
    assert all((test_digits == image).all(axis=(1, 2, 3)).any() for image in found)


def edit_metadata(old, new):
    def damage(folder):
        path = folder / 'config.json'
        path.write_text(path.read_text().replace(old, new))

    return damage


def overwrite(name, content):
    return lambda folder: (folder / name).write_bytes(content)


DAMAGES = {
    'no metadata': (lambda folder: (folder / 'config.json').unlink(), 'holds no checkpoints'),
    'no dict': (overwrite('config.json', b'[1]'), 'does not describe'),
    'incomplete': (overwrite('config.json', b'{"format": "onnx"}'), 'does not describe'),
    'another format': (edit_metadata('"safetensors"', '"onnx"'), "in format 'onnx'"),
    'another network': (edit_metadata('ssa_resnet20', 'ssa_resnet32'), 'do not match'),
    'no number': (edit_metadata('"size": 8', '"size": "8"'), 'an integer'),
    'no weights': (lambda folder: (folder / 'model.safetensors').unlink(), 'is not a file'),
    'bytes': (overwrite('model.safetensors', b'x' * 99), 'does not match its recorded SHA-256'),
}


@pytest.mark.parametrize('kind', DAMAGES)
def test_a_damaged_folder_is_reported_in_one_line(kind, exported, tmp_path):
    damage, message = DAMAGES[kind]
    damage(shutil.copytree(exported('safetensors')[0], tmp_path / 'out'))
    with pytest.raises(ConfigError, match=message) as raised:
        ssanet_jax.load(tmp_path / 'out')
    assert '\n' not in str(raised.value)
