"""hf:// against a stand-in of the Hub's HTTP protocol."""

import os
import subprocess
import sys

import pytest

import ssanet_jax
from ssanet_jax.errors import ConfigError
from tests.helpers import ROOT, assert_trees_equal
from tests.hub_server import TOKEN


def refused(source, message):
    with pytest.raises(ConfigError, match=message) as raised:
        ssanet_jax.load(source)
    assert '\n' not in str(raised.value)


def test_a_repository_is_fetched_once_and_then_loads_offline(hub, files, folder, monkeypatch):
    hub.add('me/net', {**files, 'huge.bin': b'not wanted'})
    fetched = ssanet_jax.load('hf://me/net')
    expected = ssanet_jax.load(folder)
    assert fetched.classes == ('cat', 'dog', 'owl')
    assert fetched.model == expected.model
    assert fetched.preprocessing == expected.preprocessing
    assert_trees_equal(fetched.variables, expected.variables)
    assert not [request for request in hub.requests if 'huge.bin' in request]

    hub.requests.clear()
    ssanet_jax.load('hf://me/net')
    assert not [request for request in hub.requests if 'resolve' in request]

    monkeypatch.setattr('huggingface_hub.constants.ENDPOINT', 'http://127.0.0.1:9')  # closed
    assert_trees_equal(ssanet_jax.load('hf://me/net').variables, expected.variables)
    refused('hf://me/other', 'not in the cache, and the Hub cannot be reached')


def test_a_revision_is_loaded_by_its_commit(hub, files):
    first = hub.add('me/net', files)
    renamed = files['config.json'].replace(b'owl', b'emu')
    hub.add('me/net', {**files, 'config.json': renamed})
    assert ssanet_jax.load('hf://me/net').classes[2] == 'emu'
    assert ssanet_jax.load(f'hf://me/net@{first}').classes[2] == 'owl'
    refused('hf://me/net@v2', 'no such revision')


def test_other_weights_than_those_of_the_config_are_refused(hub, files):
    content = bytearray(files['model.safetensors'])
    content[-1] ^= 1
    hub.add('me/net', {**files, 'model.safetensors': bytes(content)})
    refused('hf://me/net', r'does not match its recorded SHA-256.*hf cache rm model/me/net')


def test_a_missing_or_private_repository_is_one_line(hub, files, monkeypatch):
    refused('hf://me/none', 'does not exist, or is private')
    refused('hf://net', 'write USER/NAME')
    refused('hf://../../etc', 'write USER/NAME')
    hub.add('me/net', files, private=True)
    refused('hf://me/net', 'is private.*hf auth login or set HF_TOKEN')
    monkeypatch.setenv('HF_TOKEN', TOKEN)
    assert ssanet_jax.load('hf://me/net').name == 'ssa_resnet8'


def test_a_repository_without_a_network_is_one_line(hub):
    hub.add('me/text', {'README.md': b'hello'})
    refused('hf://me/text', 'does not describe a network: there is no such file')


def test_only_jax_flax_safetensors_and_huggingface_hub_are_needed(hub, files, tmp_path):
    hub.add('me/net', files)
    hidden = ['clu', 'cv2', 'jinja2', 'ml_collections', 'PIL', 'platformdirs', 'sklearn']
    hidden += ['tensorflow', 'tensorflow_datasets', 'torch']
    code = (
        f'import sys\nfor name in {hidden}: sys.modules[name] = None\n'
        'import jax, ssanet_jax\n'
        "trained = ssanet_jax.load('hf://me/net')\n"
        'import numpy as np\n'
        'images = np.zeros((1, 8, 8, 3), np.uint8)\n'
        'x = trained.preprocess(images)\n'
        'apply = lambda v, x: trained.model.apply(v, x, train=False)\n'
        'print(jax.eval_shape(apply, trained.variables, x).shape)\n'
    )
    environment = {
        **os.environ,
        'HF_ENDPOINT': hub.address,
        'HF_HOME': str(tmp_path / 'home'),
        'HF_HUB_DISABLE_XET': '1',
        'PYTHONPATH': str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, '-c', code], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.stdout == '(1, 3)\n', done.stderr
