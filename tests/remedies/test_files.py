"""The remedies in messages about data, images, exports and weights."""

import io
import re
import shlex
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from ssanet_jax import data, weights
from ssanet_jax.config import base
from ssanet_jax.data import builders
from ssanet_jax.data.tfrecords import TfRecords
from ssanet_jax.export.export import require_packages
from ssanet_jax.tools import (
    cli,
    export,
    gates,
    input_files,
    prepare,
)
from tests import fabricate
from tests.helpers import load_config, own_flags, run_tool
from tests.remedies.helpers import after, listed, refused


def test_files_are_written_where_the_message_says(tmp_path):
    for suffix in listed('must end in ', refused('must end in', gates._check_out, Path('x.gif'))):
        gates._check_out(tmp_path / f'x.{suffix.strip(".")}')
    deep = tmp_path / 'new' / 'x.png'
    refused('create it first', gates._check_out, deep)
    deep.parent.mkdir()
    gates._check_out(deep)


@pytest.fixture
def of_export():
    flags = ['export', '--workdir=w', '--format=saved_model', '--out=x']
    with own_flags(export):
        cli.parse(flags)
        yield


def test_exports_are_written_where_the_message_says(of_export, tmp_path):
    out = tmp_path / 'out'
    out.mkdir()
    refused('exists; choose a new folder', export._check_out, out)
    export._check_out(tmp_path / 'other')
    (tmp_path / 'other.failed').mkdir()
    refused('is left from a failed export; remove it first', export._check_out, tmp_path / 'other')
    (tmp_path / 'other.failed').rmdir()
    export._check_out(tmp_path / 'other')
    refused('is not a folder; create it first', export._check_out, tmp_path / 'a' / 'b')
    refused('SavedModel from it; choose another name', export._check_out, tmp_path / 'a*')
    export._check_out(tmp_path / 'a')


def test_the_formats_that_are_listed_exist():
    message = refused('is not a format; choose one of ', require_packages, 'onx')
    for name in listed('choose one of ', message):
        require_packages(name)


def test_images_are_found_as_the_message_says(tmp_path, monkeypatch):
    find = input_files.find
    refused('Name images, folders of them or globs', find, [])
    message = refused('holds no image', find, [str(tmp_path)])
    refused('matches no file; correct the pattern', find, [f'{tmp_path}/*.jpg'])
    for suffix in re.search(r'holds no image \((.*?)\)', message)[1].split(', '):
        path = tmp_path / f'x{suffix}'
        path.write_bytes(b'x')
        assert find([str(tmp_path)]) == find([f'{tmp_path}/*']) == [path]
        path.unlink()
    monkeypatch.setattr(sys, 'stdin', SimpleNamespace(buffer=io.BytesIO(b'')))
    refused('Standard input is empty; give an image', find, ['-'])
    monkeypatch.setattr(sys, 'stdin', SimpleNamespace(buffer=io.BytesIO(b'a.jpg\nb.jpg\n')))
    assert find(['-']) == [Path('a.jpg'), Path('b.jpg')]


def test_the_datasets_and_splits_that_are_named_exist(data_dir):
    message = refused('is not a dataset of TFDS', builders.find_builder, 'ciafr10', None)
    known = {'folder', *builders.LOCAL_BUILDERS, *tfds.list_builders()}
    assert set(listed('nearest: ', message)) <= known
    config = load_config('digits_ssa20')
    config.dataset.data_dir = str(data_dir)
    builder = builders.open_builder(config.dataset)
    message = refused('has no split', builders.split_size, builder, 'training')
    *names, _ = listed('nearest: ', message)
    for split in (*names, re.search('like "(.*)"', message)[1]):
        assert builders.split_size(builder, split) > 0
    refused('is empty; choose another', builders.split_size, builder, 'train[:0]')


def test_as_many_hosts_as_examples_work():
    source = TfRecords.__new__(TfRecords)
    source.size, source._split = 2, 'train'
    source._files = [SimpleNamespace(filename='x', skip=0, take=2)]
    refused('use at most as many hosts as examples', source._part, data.HostShard(0, 3))
    assert source._part(data.HostShard(1, 2)).size == 1


@pytest.fixture
def photos(tmp_path):
    """The config of a folder with an image that cannot be decoded in each split."""
    for split in ('train', 'validation'):
        for number in range(8):
            path = tmp_path / 'photos' / split / 'ab'[number % 2] / f'{number}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new('RGB', (8, 8), (number, 0, 0)).save(path)
        path.write_bytes(path.read_bytes()[:40])
    config = base()
    config.batch_size = 8
    config.dataset.update(name='folder', data_dir=str(tmp_path / 'photos'), image_size=8)
    return config


def test_bad_images_count_as_incorrect_with_the_flag_that_is_named(photos):
    def evaluate():
        return list(data.eval_batches(photos, 'validation'))

    message = refused('Repair it, or count such images', evaluate)
    field, value = after('--config.', message).split('=')
    photos.update_from_flattened_dict({field: value})
    (batch,) = evaluate()
    assert (batch['label'] == -1).sum() == 1


def test_more_bad_images_may_be_allowed_or_repaired(photos):
    message = refused('Repair them, or allow more', lambda: next(data.train_batches(photos)))
    photos.dataset.max_bad_fraction = 1 / 8
    next(data.train_batches(photos))
    photos.dataset.max_bad_fraction = 0.001
    bad = re.search(r'the last is (\S+):', message)[1]
    shutil.copy(Path(bad).with_name('1.png'), bad)
    next(data.train_batches(photos))


def test_imagenet_is_prepared_with_the_command_and_the_files_that_are_named(tmp_path, capsys):
    config = base().dataset
    config.data_dir, config.manual_dir = str(tmp_path / 'my data'), str(tmp_path / 'tars')
    message = refused('is not prepared in', builders.open_builder, config)
    command = shlex.split(re.search('Prepare it once with: (.*)$', message)[1])
    assert command[:2] == ['ssanet', 'prepare']
    arguments = [*command[2:], '--dry_run']
    message = refused('download them from ', run_tool, prepare, *arguments)
    assert 'ILSVRC2012_img_train.tar (148 GB) and ILSVRC2012_img_val.tar (6.74 GB)' in message
    assert 'Needs about 155 GB' in capsys.readouterr().out
    other = tmp_path / 'other'
    fabricate.imagenet_archives(other)
    (tmp_path / 'tars').mkdir()
    (other / 'ILSVRC2012_img_val.tar').rename(tmp_path / 'tars' / 'ILSVRC2012_img_val.tar')
    message = refused('needs ', run_tool, prepare, *arguments)
    assert 'ILSVRC2012_img_train.tar (148 GB) in ' in message
    (other / 'ILSVRC2012_img_train.tar').rename(tmp_path / 'tars' / 'ILSVRC2012_img_train.tar')
    run_tool(prepare, *arguments)


def test_weights_are_written_and_read_with_the_suffixes_that_are_named(tmp_path):
    arrays = {'a': np.zeros(3, np.float32)}
    message = refused(' must end in .safetensors', weights.save, tmp_path / 'x.npz', arrays)
    path = tmp_path / f'x{re.search("end in (.safetensors)", message)[1]}'
    weights.save(path, arrays)
    other = tmp_path / 'x.weights'
    other.write_bytes(b'neither')
    message = refused('is not a known kind of weight file; ', weights.load, other)
    assert path.suffix in message
    assert weights.load(path)['a'].shape == (3,)
