"""Data commands on a small ImageNet in the real format."""

import contextlib
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from etils import epath
from PIL import Image

from ssanet_jax import data
from ssanet_jax.data.builders import open_builder, open_source
from ssanet_jax.data.conversion import Conversion, is_prepared
from ssanet_jax.errors import ConfigError
from ssanet_jax.tools import prepare as module
from ssanet_jax.tools import show_batch
from tests import fabricate, stored_digits  # noqa: F401 - registers the dataset
from tests.conftest import imagenet_config
from tests.helpers import ROOT, run_tool


def tool(name, *arguments, timeout=300):
    return subprocess.run(
        [sys.executable, '-m', f'ssanet_jax.tools.{name}', *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, 'XLA_FLAGS': ''},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def prepare(*arguments):
    """Runs the command in this process; returns its output."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        run_tool(module, *arguments)
    return printed.getvalue()


@pytest.fixture
def tfrecord(imagenet_tfrecord_dir, tmp_path):
    """The folder of a copy in tfrecord files, to be converted."""
    shutil.copytree(imagenet_tfrecord_dir / 'imagenet2012', tmp_path / 'imagenet2012')
    return tmp_path


def files(config, split='train'):
    source = open_source(config.dataset, split)
    return [file for chunk in source.evaluation(data.HostShard(0, 1)) for file in chunk.files]


def test_a_raw_set_becomes_array_record_and_is_trained_on(tmp_path):
    fabricate.imagenet_archives(tmp_path / 'tars')
    arguments = ['--dataset=imagenet2012:5.*.*', f'--data_dir={tmp_path}']
    dry = prepare(*arguments, f'--manual_dir={tmp_path / "tars"}', '--dry_run')
    assert 'Needs about' in dry
    assert not (tmp_path / 'imagenet2012').exists()
    printed = prepare(*arguments, f'--manual_dir={tmp_path / "tars"}')
    assert '--config.dataset.name=imagenet2012:5.*.*' in printed
    config = imagenet_config(tmp_path)
    assert open_builder(config.dataset).info.file_format.value == 'array_record'
    assert next(data.train_batches(config))['mask'].all()


def test_tfrecord_files_get_array_record_files_in_addition(tfrecord):
    config = imagenet_config(tfrecord)
    before = files(config)
    assert data.dataset_info(config).hint
    arguments = ['--dataset=imagenet2012', f'--data_dir={tfrecord}']
    assert 'Converting 9 shards' in prepare(*arguments)
    assert 'is prepared as array_record' in prepare(*arguments)
    open_builder.__globals__['_open'].cache_clear()
    assert data.dataset_info(config).hint == ''
    assert files(config) == before
    assert len(list(tfrecord.rglob('*.tfrecord-*'))) == 9  # they stay


def test_a_smaller_copy(tfrecord):
    """Larger images shrink to the requested short side; the others stay as they are."""
    config = imagenet_config(tfrecord)
    before = files(config)
    printed = prepare('--dataset=imagenet2012', f'--data_dir={tfrecord}', '--short_side=100')
    assert '--config.dataset.name=imagenet2012_100px_q90' in printed
    config.dataset.name = 'imagenet2012_100px_q90'
    after = files(config)
    assert data.dataset_info(config).num_train == 48
    shrunk = 0
    for old, new in zip(before, after, strict=True):
        old_image, new_image = (Image.open(io.BytesIO(x)) for x in (old, new))
        if min(old_image.size) <= 100:
            assert new == old
            continue
        shrunk += 1
        assert min(new_image.size) == 100
        assert (new_image.format, new_image.mode) == ('JPEG', 'RGB')
        expected = old_image.convert('RGB').resize(new_image.size, Image.Resampling.BICUBIC)
        assert np.abs(np.asarray(new_image, float) - np.asarray(expected)).mean() < 6
    assert shrunk > 5
    batch = next(data.train_batches(config))
    assert batch['image'].shape == (16, 32, 32, 3)


def test_a_stopped_conversion_resumes(tfrecord, monkeypatch):
    builder = tfds.builder('imagenet2012', data_dir=tfrecord)
    folder = Path(builder.data_path)
    conversion = Conversion(builder, 'array_record', epath.Path(folder))

    def stop(done):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        conversion.run(1, stop)
    (folder / 'incomplete.XYZ.imagenet2012-train.array_record-00000-of-00003').write_text('half')
    done = Conversion(builder, 'array_record', epath.Path(folder)).num_done
    assert 4 <= done < 9
    assert tfds.builder('imagenet2012', data_dir=tfrecord).info.alternative_file_formats == []
    Conversion(builder, 'array_record', epath.Path(folder)).run(2, lambda done: None)
    config = imagenet_config(tfrecord)
    assert len(files(config)) == 48


@pytest.mark.parametrize('file_format', ['tfrecord', 'array_record'])
def test_a_shard_that_lost_examples_is_not_converted(tfrecord, file_format):
    """The shard was truncated between two records, as by an interrupted copy."""
    builder = tfds.builder('imagenet2012', data_dir=tfrecord)
    folder = Path(builder.data_path)
    shard = folder / 'imagenet2012-train.tfrecord-00001-of-00003'
    records = [r.numpy() for r in tf.data.TFRecordDataset(str(shard))]
    with tf.io.TFRecordWriter(str(shard)) as writer:
        for record in records[:5]:
            writer.write(record)
    new = tfrecord / 'new' if file_format == 'tfrecord' else folder
    conversion = Conversion(builder, file_format, epath.Path(new))
    with pytest.raises(
        ValueError, match=r'train\.tfrecord-00001\S+ holds 5 examples instead of 16'
    ):
        conversion.run(1, lambda done: None)
    assert not is_prepared(epath.Path(new), 'array_record')
    with pytest.raises(ConfigError, match=r'cannot be read: .* 16 elements but contained only 5'):
        list(data.eval_batches(imagenet_config(tfrecord), 'train'))


def test_copies_of_different_kinds_have_different_names(tmp_path):
    names = set()
    for quality in (80, 90):
        arguments = ['--dataset=stored_digits', f'--data_dir={tmp_path}', '--short_side=4']
        printed = prepare(*arguments, f'--jpeg_quality={quality}')
        names.add(printed.split('config.dataset.name=')[1].split()[0])
    assert names == {'stored_digits_4px_q80', 'stored_digits_4px_q90'}


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--dataset=folder'], 'nothing to prepare'),
        (['--dataset=digits'], 'nothing to prepare'),
        (['--dataset=ciafr10'], 'nearest: '),
        (['--dataset=imagenet2012', '--data_dir=NONE'], r'ILSVRC2012_img_train\.tar'),
    ],
)
def test_a_mistake_has_a_one_line_error(arguments, message, tmp_path):
    with pytest.raises(ConfigError, match=message) as raised:
        prepare(*(argument.replace('NONE', str(tmp_path)) for argument in arguments))
    assert '\n' not in str(raised.value)


@pytest.mark.slow
def test_an_invalid_flag_has_a_one_line_error_and_exit_code_2():
    result = tool('prepare', '--dataset=digits', '--file_format=riegeli')
    assert (result.returncode, result.stderr.count('\n')) == (2, 1), result.stderr
    assert '--help lists the flags' in result.stderr


def test_a_full_disk_is_refused_beforehand(tmp_path):
    with pytest.raises(ConfigError, match=r'GB free, and 1e\+06 GB are needed'):
        module._check_disk(epath.Path(tmp_path / 'new'), 10**15)


@pytest.mark.slow
def test_show_batch_draws_a_grid(imagenet_dir, tmp_path):
    result = tool(
        'show_batch', '--config=configs/imagenet_ssa50.py', f'--out={tmp_path / "batch.png"}',
        f'--config.dataset.data_dir={imagenet_dir}', '--config.dataset.image_size=32',
        '--config.batch_size=16',
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    with Image.open(tmp_path / 'batch.png') as image:
        picture = np.asarray(image.convert('RGB'), float)
    assert min(picture.shape[:2]) > 200
    assert picture.std() > 20


@pytest.mark.slow
def test_input_doctor_gives_a_verdict(data_dir, tmp_path):
    result = tool(
        'input_doctor', '--config=configs/digits_ssa20.py', '--seconds=0.3',
        f'--config.dataset.data_dir={data_dir}', f'--out={tmp_path / "timeline.png"}',
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert 'The training step is the bottleneck' in result.stdout
    for word in ('the whole input', 'transfer to the devices', 'all together'):
        assert word in result.stdout
    with Image.open(tmp_path / 'timeline.png') as picture:
        assert picture.width > 500


def test_class_names_are_no_formulas_to_the_plot(tmp_path):
    show_batch.draw(
        np.zeros((2, 4, 4, 3), np.uint8), ['$\\bad$', 'a\x07'], '$\\bad$', tmp_path / 'a.png'
    )
    assert (tmp_path / 'a.png').stat().st_size > 1000
