"""torchvision:// and timm://: the table, and downloads from stand-ins of their servers."""

import hashlib
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

import ssanet_jax
from ssanet_jax import create_model, weights
from ssanet_jax.errors import ConfigError
from ssanet_jax.pretrained import hosted
from tests.export.fabricated import random_variables
from tests.helpers import assert_trees_equal

V1 = 'torchvision://resnet18.IMAGENET1K_V1'
A1 = 'timm://resnet18.a1_in1k'


@pytest.fixture(scope='module')
def model():
    return create_model('resnet18', num_classes=1000)


@pytest.fixture(scope='module')
def variables(model):
    return random_variables(model, 224)


@pytest.fixture(scope='module')
def content(model, variables, tmp_path_factory):
    """A weight file; its content, not its name, decides how it is read."""
    path = tmp_path_factory.mktemp('weights') / 'a.safetensors'
    weights.save(path, weights.to_arrays(variables, model))
    return path.read_bytes()


@pytest.fixture
def server(content, tmp_path, monkeypatch):
    """The folder that a server hosts in place of torchvision's, with the file of V1."""
    folder, published = tmp_path / 'served', tmp_path / 'torch'
    folder.mkdir()
    monkeypatch.setenv('TORCH_HOME', str(published))

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(('127.0.0.1', 0), Handler) as http:
        Thread(target=http.serve_forever, daemon=True).start()
        digest = hashlib.sha256(content).hexdigest()[:8]
        (folder / f'resnet18-{digest}.pth').write_bytes(content)
        address = f'http://127.0.0.1:{http.server_port}/resnet18-{digest}.pth'
        table = hosted.hosted_weights()
        entry = table[V1]._replace(address=address, sha256=digest)
        monkeypatch.setattr(hosted, 'hosted_weights', lambda: {**table, V1: entry})
        yield folder
        http.shutdown()


def test_a_file_is_downloaded_once_into_the_cache_of_torch(server, variables, tmp_path):
    loaded = ssanet_jax.load(V1)
    assert_trees_equal(loaded.variables, variables)
    assert (loaded.name, loaded.classes[0], len(loaded.classes)) == ('resnet18', 'tench', 1000)
    assert loaded.preprocessing.resize == 256
    (served,) = server.iterdir()
    (cached,) = (tmp_path / 'torch').rglob('*.*')
    assert cached == tmp_path / 'torch/hub/checkpoints' / served.name

    served.unlink()
    assert_trees_equal(ssanet_jax.load(V1).variables, variables)
    cached.write_bytes(cached.read_bytes()[:-1])
    with pytest.raises(ConfigError, match=r'does not match its recorded SHA-256.* remove it'):
        ssanet_jax.load(V1)


def test_a_file_with_another_checksum_is_not_kept(server, tmp_path):
    (served,) = server.iterdir()
    served.write_bytes(served.read_bytes()[:-1])
    with pytest.raises(ConfigError, match='is not the published file: its SHA-256 begins with'):
        ssanet_jax.load(V1)
    assert not [path for path in (tmp_path / 'torch').rglob('*') if path.is_file()]


def test_a_missing_file_or_an_unknown_name_is_one_line(server):
    (served,) = server.iterdir()
    served.unlink()
    for source, message in (
        (V1, 'cannot be downloaded .*File not found'),
        ('torchvision://resnet50.V3', 'nearest: torchvision://resnet50.IMAGENET1K_V'),
    ):
        with pytest.raises(ConfigError, match=message) as raised:
            ssanet_jax.load(source)
        assert '\n' not in str(raised.value)


def test_weights_of_timm_come_from_the_hub_and_damage_in_the_cache_is_found(
    hub, content, variables
):
    hub.add('timm/resnet18.a1_in1k', {'model.safetensors': content, 'pytorch_model.bin': b'no'})
    loaded = ssanet_jax.load(A1)
    assert_trees_equal(loaded.variables, variables)
    assert loaded.preprocessing.interpolation == 'bicubic'
    (blob,) = Path(hub.cache).rglob(f'blobs/{hashlib.sha256(content).hexdigest()}')
    blob.write_bytes(content[:-1] + b'x')
    with pytest.raises(ConfigError, match='hf cache rm model/timm/resnet18'):
        ssanet_jax.load(A1)


def test_the_table_has_the_published_values():
    """Of torchvision's documentation, and of results-imagenet.csv of timm."""
    table = hosted.hosted_weights()
    v1, v2 = (table[f'torchvision://resnet50.IMAGENET1K_V{n}'] for n in (1, 2))
    assert (v1.top1, v1.sha256, v2.top1, v2.sha256) == (76.13, '0676ba61', 80.858, '11ad3fa6')
    assert (v2.preprocessing.size, v2.preprocessing.resize) == (224, 232)
    a1 = table['timm://resnet50.a1_in1k']
    assert (a1.top1, a1.address, a1.license) == (80.382, 'timm/resnet50.a1_in1k', 'apache-2.0')
    assert (a1.preprocessing.size, a1.preprocessing.resize) == (224, 235)
    for source, entry in table.items():
        create_model(entry.network, num_classes=1000)
        assert entry.sha256 is None or f'-{entry.sha256}.pth' in entry.address, source
        assert (entry.sha256 is None) == source.startswith('timm://')


def test_the_table_is_that_of_the_installed_torchvision_and_timm():
    torchvision, timm = pytest.importorskip('torchvision'), pytest.importorskip('timm')
    for source, entry in hosted.hosted_weights().items():
        scheme, _, name = source.partition('://')
        shown = entry.preprocessing
        if scheme == 'timm':
            config = timm.get_pretrained_cfg(name)
            assert entry.address == config.hf_hub_id
            assert (shown.mean, shown.std) == (config.mean, config.std)
            assert shown.resize == int(config.input_size[-1] / config.crop_pct)
            assert shown.size == config.input_size[-1]
            assert shown.interpolation == config.interpolation
        else:
            network, _, variant = name.partition('.')
            published = torchvision.models.get_model_weights(network)[variant]
            assert entry.address == published.url
            assert entry.top1 == published.meta['_metrics']['ImageNet-1K']['acc@1']
            transforms = published.transforms()
            assert [shown.size] == transforms.crop_size
            assert [shown.resize] == transforms.resize_size
