import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from ssanet_jax.weights import read, write


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        'conv1.weight': rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
        'half': rng.normal(size=5).astype(np.float16),
        'bn1.num_batches_tracked': np.array(7),
    }


def test_what_was_written_is_read(arrays, tmp_path):
    path = tmp_path / 'weights.safetensors'
    write(path, arrays)
    found = read(path)
    assert found.keys() == arrays.keys()
    for name, value in arrays.items():
        np.testing.assert_array_equal(found[name], value, strict=True)
    assert [file.name for file in tmp_path.iterdir()] == ['weights.safetensors']


@pytest.mark.parametrize('share', [0.0, 0.01, 0.5, 0.99])
def test_a_file_that_was_cut_short_is_told(arrays, tmp_path, share):
    path = tmp_path / 'weights.safetensors'
    write(path, arrays)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match='is no complete safetensors file'):
        read(path)


def test_another_kind_of_file_is_told_which_are_known(tmp_path):
    path = tmp_path / 'weights.h5'
    path.touch()
    with pytest.raises(ValueError, match=r'expected \.safetensors, \.pth, '):
        read(path)


@pytest.mark.parametrize('name', ['weights.safetensors', 'weights.pth', 'weights.h5', ''])
def test_a_file_that_is_not_there_is_told(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=r'is no file; expected weights'):
        read(tmp_path / name)


def test_only_safetensors_are_written(arrays, tmp_path):
    with pytest.raises(ValueError, match=r'must end in \.safetensors'):
        write(tmp_path / 'weights.pth', arrays)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('there', [False, True])
def test_a_write_that_fails_leaves_what_there_was(arrays, tmp_path, there):
    path = tmp_path / 'weights.safetensors'
    if there:
        write(path, arrays)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(Exception, match='object'):
        write(path, arrays | {'names': np.array(['a', None], dtype=object)})
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_write_that_is_cut_off_leaves_what_there_was(arrays, tmp_path, monkeypatch):
    path = tmp_path / 'weights.safetensors'
    write(path, arrays)
    before = path.read_bytes()

    class Full(io.FileIO):
        def write(self, data):
            super().write(data[:10])
            raise OSError('No space left on device')

    monkeypatch.setattr('ssanet_jax.weights.files.open', Full, raising=False)
    with pytest.raises(OSError, match='No space left'):
        write(path, arrays | {'half': arrays['half'] + 1})
    assert [file.name for file in tmp_path.iterdir()] == ['weights.safetensors']
    assert path.read_bytes() == before


@pytest.mark.parametrize('suffix', ['.pth', '.pt', '.bin', '.tar'])
def test_torchs_files_without_torch_are_told_the_remedy(tmp_path, monkeypatch, suffix):
    monkeypatch.setitem(sys.modules, 'torch', None)
    path = tmp_path / f'weights{suffix}'
    path.touch()
    with pytest.raises(ImportError, match=r'pip install torch, or save it as \.safetensors'):
        read(path)


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """A function that puts a file where a stand-in for torch will find the content given."""

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
    assert read(saved(content)) == arrays


@pytest.mark.parametrize('content', [3, [np.zeros(2)], {'epoch': 3}, {'state_dict': {'lr': 0.1}}])
def test_what_holds_no_weights_is_refused(saved, content):
    with pytest.raises(ValueError, match='holds no state_dict'):
        read(saved(content))


def test_what_would_have_to_be_run_is_refused(saved):
    error = RuntimeError('Weights only load failed. Set weights_only=False to run it.')
    with pytest.raises(ValueError, match=r'plain weights \(Weights only load failed\)'):
        read(saved(error))
