import gzip
import resource
import sys
import zipfile
from types import SimpleNamespace

import flax.serialization
import jax
import numpy as np
import pytest

from ssanet_jax import create_model
from ssanet_jax.weights import load, save, to_arrays, torch_file
from ssanet_jax.weights.convert import to_numpy, variable_shapes


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        'conv1.weight': rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
        'half': rng.normal(size=5).astype(np.float16),
        'bn1.num_batches_tracked': np.array(7),
    }


def test_saved_weights_are_loaded(arrays, tmp_path):
    path = tmp_path / 'weights.safetensors'
    save(path, arrays)
    found = load(path)
    assert found.keys() == arrays.keys()
    for name, value in arrays.items():
        np.testing.assert_array_equal(found[name], value, strict=True)
    assert [file.name for file in tmp_path.iterdir()] == ['weights.safetensors']


@pytest.mark.parametrize('share', [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_reported(arrays, tmp_path, share):
    path = tmp_path / 'weights.safetensors'
    save(path, arrays)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match='is not a complete safetensors file'):
        load(path)


def test_an_unknown_kind_of_file_lists_the_known_ones(tmp_path):
    path = tmp_path / 'weights.h5'
    path.touch()
    with pytest.raises(ValueError, match=r'expected \.safetensors, \.pth, '):
        load(path)


@pytest.mark.parametrize('name', ['weights.safetensors', 'weights.pth', 'weights.h5', ''])
def test_a_missing_file_is_reported(tmp_path, name):
    with pytest.raises(FileNotFoundError, match='is not a file; expected weights'):
        load(tmp_path / name)


def test_only_safetensors_are_saved(arrays, tmp_path):
    with pytest.raises(ValueError, match=r'must end in \.safetensors'):
        save(tmp_path / 'weights.pth', arrays)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('there', [False, True])
def test_a_failed_save_keeps_the_old_file(arrays, tmp_path, there):
    path = tmp_path / 'weights.safetensors'
    if there:
        save(path, arrays)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(Exception, match='object'):
        save(path, arrays | {'names': np.array(['a', None], dtype=object)})
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_save_that_runs_out_of_space_keeps_the_old_file(arrays, tmp_path):
    path = tmp_path / 'weights.safetensors'
    save(path, arrays)
    before = path.read_bytes()

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))  # bytes in a file
    try:
        with pytest.raises(OSError, match='File too large'):
            save(path, arrays | {'half': arrays['half'] + 1})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [file.name for file in tmp_path.iterdir()] == ['weights.safetensors']
    assert path.read_bytes() == before


@pytest.mark.parametrize('suffix', ['.pth', '.pt', '.bin', '.tar'])
def test_torch_files_without_torch_name_the_remedy(tmp_path, monkeypatch, suffix):
    monkeypatch.setitem(sys.modules, 'torch', None)
    path = tmp_path / f'weights{suffix}'
    path.touch()
    with pytest.raises(ImportError, match=r'pip install torch, or convert it to \.safetensors'):
        load(path)


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """A function that creates a file in which a stand-in for torch finds the given content."""

    def save(content):
        def load(path, *, map_location, weights_only):
            assert (map_location, weights_only) == ('cpu', True)
            if isinstance(content, Exception):
                raise content
            return content

        torch = SimpleNamespace(load=load, Tensor=np.ndarray, __version__='2.13.0+cpu')
        monkeypatch.setitem(sys.modules, 'torch', torch)
        path = tmp_path / 'weights.pth'
        path.touch()
        return path

    return save


@pytest.mark.parametrize('key', [None, 'state_dict', 'model', 'net'])
def test_weights_are_found_where_training_scripts_put_them(arrays, saved, key):
    content = arrays if key is None else {'epoch': 3, key: arrays}
    assert load(saved(content)) == arrays


@pytest.mark.parametrize('content', [3, [np.zeros(2)], {'epoch': 3}, {'state_dict': {'lr': 0.1}}])
def test_a_file_without_weights_is_rejected(saved, content):
    with pytest.raises(ValueError, match='holds no state_dict'):
        load(saved(content))


def test_a_file_that_would_have_to_be_executed_is_rejected(saved):
    error = RuntimeError('Weights only load failed. Set weights_only=False to run it.')
    with pytest.raises(ValueError, match=r'plain weights \(Weights only load failed\)'):
        load(saved(error))


def contents(tmp_path):
    """Files that are not weights of torch, by kind."""
    h5py = pytest.importorskip('h5py')

    tree = {'params': {'fc': {'bias': np.ones(2, np.float32)}}}
    with h5py.File(tmp_path / 'h5', 'w') as file:
        file['kernel'] = np.ones(3)
    np.savez(tmp_path / 'x.npz', **{'fc.bias': np.ones(2)})
    np.save(tmp_path / 'x.npy', np.ones(3))
    with zipfile.ZipFile(tmp_path / 'keras', 'w') as archive:
        archive.writestr('config.json', '{}')
        archive.writestr('model.weights.h5', 'x')
    return {
        'flax': flax.serialization.to_bytes(tree),
        'HDF5': (tmp_path / 'h5').read_bytes(),
        'Keras model': (tmp_path / 'keras').read_bytes(),
        'NumPy archive': (tmp_path / 'x.npz').read_bytes(),
        'NumPy array': (tmp_path / 'x.npy').read_bytes(),
        'Git LFS': b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n',
        'web page': b'<!DOCTYPE html><html>Sign in</html>',
        'gzip': gzip.compress(b'weights'),
    }


@pytest.mark.parametrize('name', ['weights.pth', 'weights.safetensors', 'weights.h5', 'weights'])
def test_files_of_other_kinds_are_named(tmp_path, name):
    for kind, content in contents(tmp_path).items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ValueError, match=kind) as error:
            load(path)
        assert '\n' not in str(error.value)


def test_a_numpy_archive_is_converted_as_the_message_says(arrays, tmp_path):
    np.savez(tmp_path / 'x.npz', **arrays)
    with pytest.raises(
        ValueError, match=r"weights\.save\('weights\.safetensors', dict\(numpy\.load"
    ):
        load(tmp_path / 'x.npz')
    save(tmp_path / 'weights.safetensors', dict(np.load(tmp_path / 'x.npz')))
    assert load(tmp_path / 'weights.safetensors').keys() == arrays.keys()


def test_a_msgpack_file_is_converted_as_the_message_says(tmp_path):
    model = create_model('resnet8', num_classes=2)
    shapes = variable_shapes(model, 8)
    variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    path = tmp_path / 'x.msgpack'
    path.write_bytes(flax.serialization.to_bytes(variables))
    message = r'msgpack_restore, then weights\.save\(.*weights\.to_arrays\(variables, model\)'
    with pytest.raises(ValueError, match=message):
        load(path)
    restored = flax.serialization.msgpack_restore(path.read_bytes())
    save(tmp_path / 'weights.safetensors', to_arrays(restored, model))
    assert load(tmp_path / 'weights.safetensors').keys() == to_arrays(variables, model).keys()


@pytest.mark.parametrize('name', ['model.bin', 'model.pth', 'model', 'model.st'])
def test_safetensors_are_recognized_under_any_name(arrays, tmp_path, name):
    save(tmp_path / 'x.safetensors', arrays)
    (tmp_path / 'x.safetensors').rename(tmp_path / name)
    assert load(tmp_path / name).keys() == arrays.keys()


def test_bfloat16_safetensors_are_read(tmp_path):
    import ml_dtypes

    path = tmp_path / 'x.safetensors'
    save(path, {'fc.bias': np.array([0.5, -1.5], ml_dtypes.bfloat16)})
    np.testing.assert_array_equal(to_numpy(load(path)['fc.bias']), np.float32([0.5, -1.5]))


def test_a_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'is not a file; .* It is a folder; .*--workdir='):
        load(tmp_path)


def test_the_reason_of_torch_is_kept_without_its_advice():
    advice = 'Weights only load failed. Re-run it with `weights_only` False, if trusted source.\n\n'
    cause = 'Trying to load unsupported GLOBAL posix.system whose module posix is blocked.'
    error = ValueError(f'{advice}{cause}\n\nCheck the documentation of torch.load.')
    assert torch_file._reason(error) == cause.rstrip('.')
    assert torch_file._reason(EOFError()) == 'EOFError'
