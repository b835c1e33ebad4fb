"""Published folders from anyone: every damage or attack is refused in one line."""

import io
import json
import os
import pickle

import jax
import numpy as np
import pytest

import ssanet_jax
from ssanet_jax.errors import ConfigError
from ssanet_jax.pretrained.preprocessing import Preprocessing
from tests.pretrained.conftest import write_folder

PREPROCESSING = {
    'size': 8,
    'resize': 10,
    'interpolation': 'bilinear',
    'mean': [0.5] * 3,
    'std': [0.5] * 3,
}
# Entries of config.json, and what the error says of them.
REFUSED = {
    'another format': ({'format': 'onnx'}, "in format 'onnx'"),
    'no network': ({'network': 'resnet51'}, 'No model is called'),
    'a path as network': ({'network': ['../x']}, 'network is not a name'),
    'an unknown option': ({'options': {'stage_sizes': [10**6]}}, "'stage_sizes' is not an option"),
    'a module as option': ({'options': {'attention': 'os'}}, "'attention' is not an option"),
    'training option': ({'options': {'batch_norm_group_size': 8}}, 'is not an option'),
    'attention of another': ({'options': {'attention_options': {'ratio': 2}}}, 'not an option'),
    'a norm': ({'options': {'norm_options': {'group_size': 2}}}, 'is not an option'),
    'a type': ({'options': {'dropout': '0.5'}}, 'wrong type'),
    'a choice': ({'options': {'stem': 'round'}}, 'is unknown; choose'),
    'a range': ({'options': {'norm_options': {'momentum': 7}}}, 'out of range'),
    'null': ({'options': {'stem': None}}, 'has no value'),
    'no options': ({'options': 3}, 'no attribute'),
    'a long name': ({'classes': ['a' * 1001, 'b', 'c']}, 'at most 1,000 characters'),
    'no classes': ({'classes': []}, 'not a list of names'),
    'other classes': ({'classes': ['a', 'b']}, 'has 3 classes|have 3 classes'),
    'size': ({'preprocessing': {**PREPROCESSING, 'size': 0}}, 'out of range'),
    'deviation': ({'preprocessing': {**PREPROCESSING, 'std': [0, 1, 1]}}, 'std'),
    'crop': ({'preprocessing': {**PREPROCESSING, 'resize': 10**9}}, 'resize=1000000000'),
    'a key': ({'preprocessing': {**PREPROCESSING, 'eval': '1'}}, 'unexpected keyword'),
    'a path in sha256': ({'sha256': {'../model.safetensors': 'a' * 64}}, 'it has no'),
    'no sum': ({'sha256': {'model.safetensors': ''}}, 'not 64 hexadecimal digits'),
    'another sum': (
        {'sha256': {'model.safetensors': 'a' * 64}},
        'does not match its recorded SHA-256',
    ),
    'control characters': ({'network': '\x1b[2J'}, r'\\x1b'),
}


def refused(folder, message):
    with pytest.raises(ConfigError, match=message) as raised:
        ssanet_jax.load(folder)
    assert '\n' not in str(raised.value)
    assert '\x1b' not in str(raised.value)


@pytest.mark.parametrize('kind', REFUSED)
def test_a_wrong_entry_is_refused(kind, tmp_path):
    changes, message = REFUSED[kind]
    refused(write_folder(tmp_path / 'net', **changes), message)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('[' * 100_000, 'does not describe'),
        ('{"format": NaN}', 'NaN is not valid JSON'),
        ('[]', 'does not describe'),
        ('{"format": "safetensors"}', "it has no 'network'"),
        (' ' * (2**24 + 1), 'more than 16,777,216 bytes'),
    ],
    ids=['deep', 'nan', 'list', 'incomplete', 'large'],
)
def test_a_malformed_config_is_refused(text, message, tmp_path):
    folder = write_folder(tmp_path / 'net')
    (folder / 'config.json').write_text(text)
    refused(folder, message)


class Attack:
    def __reduce__(self):
        return os.mkdir, ('executed',)


def test_a_pickle_in_place_of_the_weights_is_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps(Attack())
    folder = write_folder(tmp_path / 'net')
    (folder / 'model.safetensors').write_bytes(content)
    config = json.loads((folder / 'config.json').read_text())
    config['sha256']['model.safetensors'] = ssanet_jax.pretrained.folder.sha256(
        folder / 'model.safetensors'
    )
    (folder / 'config.json').write_text(json.dumps(config))
    refused(folder, 'not a safetensors file')
    assert not (tmp_path / 'executed').exists()


def test_devices_and_pipes_are_not_read(tmp_path):
    for name, device in (('config.json', '/dev/zero'), ('model.safetensors', '/dev/random')):
        folder = write_folder(tmp_path / name / 'net')
        (folder / name).unlink()
        (folder / name).symlink_to(device)
        refused(folder, 'holds no checkpoints|is not a file')


def test_a_path_that_is_none_is_one_line():
    refused('/nowhere', 'expected a run, a published or exported folder, hf://USER/NAME')


def test_only_runs_have_checkpoints_to_choose_from(folder):
    for source in (folder, 'hf://me/net', 'timm://resnet50.a1_in1k'):
        with pytest.raises(ConfigError, match=r"has only one checkpoint; omit checkpoint='latest'"):
            ssanet_jax.load(source, 'latest')


def test_a_tilde_is_the_home_folder(folder, monkeypatch):
    monkeypatch.setenv('HOME', str(folder.parent))
    assert ssanet_jax.load('~/net').classes == ssanet_jax.load(folder).classes


def test_the_preprocessing_of_files_is_pillows(folder, tmp_path):
    """Resized to 10 bicubically, the central 8: by Pillow alone, then normalized by NumPy."""
    from PIL import Image

    from ssanet_jax import data

    trained = ssanet_jax.load(folder)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8))
    file = io.BytesIO()
    image.save(file, 'png')
    (batch,) = data.file_batches([file.getvalue()], trained.dataset, 1)
    expected = np.asarray(image.resize((8, 8), Image.Resampling.BICUBIC, (2, 2, 18, 18)))
    np.testing.assert_array_equal(batch.image[0], expected)
    found = np.asarray(trained.preprocess(jax.numpy.asarray(batch.image)))[0]
    expected = (expected / 255 - [0.1, 0.2, 0.3]) / [0.4, 0.5, 0.6]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert Preprocessing.from_config(trained.dataset) == trained.preprocessing
