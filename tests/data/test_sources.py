"""Order, names and errors of the readers."""

import errno
import os
import shutil
from functools import partial

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from ssanet_jax import data
from ssanet_jax.data import HostShard
from ssanet_jax.data.builders import open_builder, open_source
from ssanet_jax.data.read_errors import unreadable
from ssanet_jax.data.sources import shuffled
from ssanet_jax.errors import ConfigError, RunError


def order(seed, epoch, size):
    return shuffled(np.arange(size), seed, np.full(size, epoch), size)


@pytest.mark.parametrize('size', [1, 2, 7, 65_537])
def test_every_epoch_is_a_permutation(size):
    for epoch in (0, 1, 2**31):
        assert sorted(order(3, epoch, size)) == list(range(size))


def test_the_shuffle_is_uniform():
    """Positions of 20 examples in 4,000 epochs are uniform, and so is the order of neighbors."""
    size, epochs = 20, 4000
    orders = np.stack([order(0, epoch, size) for epoch in range(epochs)])
    counts = np.stack([np.bincount(orders[:, place], minlength=size) for place in range(size)])
    expected = epochs / size
    chi_square = ((counts - expected) ** 2 / expected).sum()
    freedom = (size - 1) ** 2
    assert abs(chi_square - freedom) < 5 * np.sqrt(2 * freedom)
    place = np.argsort(orders, axis=1)
    first = (place[:, :-1] < place[:, 1:]).mean(axis=0)
    assert np.abs(first - 0.5).max() < 5 * 0.5 / np.sqrt(epochs)


def test_neighbors_of_a_large_dataset_are_separated():
    """As in a random permutation, they are a third of the dataset apart on average."""
    orders = order(0, 0, 100_000).astype(int)
    distance = np.abs(np.diff(orders)).mean() / 100_000
    assert abs(distance - 1 / 3) < 0.01
    assert abs(np.corrcoef(orders, np.arange(100_000))[0, 1]) < 0.01


@pytest.mark.parametrize('name', ['imagenet', 'imagenet_tfrecord'])
def test_names_equal_tfds_ids(name, request):
    """The oracle is TFDS, which can add its ids to examples."""
    config = request.getfixturevalue(name)
    source = open_source(config.dataset, 'train[5:40]')
    chunks = list(source.evaluation(HostShard(0, 1)))
    ours = {
        source.name(number): (file, label)
        for chunk in chunks
        for number, file, label in zip(chunk.number, chunk.files, chunk.label, strict=True)
    }
    builder = open_builder(config.dataset)
    if name == 'imagenet':  # TFDS has no ids here; its data source has the order
        decoders = {'image': tfds.decode.SkipDecoding()}
        theirs = [
            (x['image'], x['label'])
            for x in builder.as_data_source('train[5:40]', decoders=decoders)
        ]
        assert list(ours.values()) == theirs
        assert all('imagenet2012-train.array_record-0000' in name for name in ours)
    else:
        config = tfds.ReadConfig(add_tfds_id=True)
        dataset = builder.as_dataset(
            split='train[5:40]',
            decoders={'image': tfds.decode.SkipDecoding()},
            read_config=config,
        )
        theirs = {
            x['tfds_id'].decode(): (x['image'], x['label']) for x in dataset.as_numpy_iterator()
        }
        assert ours == theirs


def test_a_folder_of_images_is_a_dataset(folder):
    info = data.dataset_info(folder)
    assert (info.num_train, info.num_eval, info.num_classes) == (27, 27, 3)
    assert info.class_names == ('ash', 'beech', 'cedar')
    batch = next(data.train_batches(folder))
    brightest = batch['image'].mean(axis=(1, 2)).argmax(axis=1)
    np.testing.assert_array_equal(brightest, batch['label'])
    labels = np.concatenate(
        [b['label'][b['mask']] for b in data.eval_batches(folder, 'validation')]
    )
    assert np.bincount(labels).tolist() == [9, 9, 9]


def test_a_slice_of_a_folder(folder):
    folder.dataset.train_split, folder.dataset.eval_split = 'train[:20]', 'train[20:]'
    info = data.dataset_info(folder)
    assert (info.num_train, info.num_eval) == (20, 7)
    parts = [open_source(folder.dataset, s) for s in ('train[:20]', 'train[20:]', 'train')]
    names = [[source.name(n) for n in range(source.size)] for source in parts]
    assert names[0] + names[1] == names[2]


@pytest.mark.parametrize('content', [None, 'empty', 'file'])
def test_a_folder_without_images_has_an_error_with_the_layout(folder, tmp_path, content):
    path = tmp_path / 'other'
    if content == 'empty':
        path.mkdir()
    elif content == 'file':
        path.write_text('')
    folder.dataset.data_dir = str(path)
    with pytest.raises(ConfigError, match='must hold images as CLASS/NAME'):
        data.dataset_info(folder)


def test_a_folders_order_and_labels_are_tfds_own(folder):
    """Oracle: TFDS's public as_dataset, which names each file as it reads it."""
    source = open_source(folder.dataset, 'train')
    theirs = tfds.ImageFolder(folder.dataset.data_dir).as_dataset(split='train').as_numpy_iterator()
    expected = [(x['image/filename'].decode(), x['label']) for x in theirs]
    labels = np.concatenate([batch.label for batch in source.evaluation(HostShard(0, 1))])
    assert [(source.name(n), labels[n]) for n in range(source.size)] == expected


def test_tfrecord_comes_with_a_hint(imagenet, imagenet_tfrecord):
    assert data.dataset_info(imagenet).hint == ''
    assert data.dataset_info(imagenet).order == 'array_record files'
    assert data.dataset_info(imagenet_tfrecord).order == 'tfrecord files on 1 host(s)'
    hint = data.dataset_info(imagenet_tfrecord).hint
    assert "ssanet prepare '--dataset=imagenet2012:5.*.*' --data_dir=" in hint


@pytest.mark.parametrize('in_memory', [False, True])
@pytest.mark.parametrize('damage', ['missing', 'empty', 'half', 'flipped'])
@pytest.mark.parametrize('file_format', ['array_record', 'tfrecord'])
def test_damaged_files_have_a_one_line_error(
    file_format, damage, in_memory, imagenet, tmp_path, request
):
    imagenet.dataset.in_memory = in_memory
    fixture = {'array_record': 'imagenet_dir', 'tfrecord': 'imagenet_tfrecord_dir'}[file_format]
    shutil.copytree(request.getfixturevalue(fixture) / 'imagenet2012', tmp_path / 'imagenet2012')
    imagenet.dataset.data_dir = str(tmp_path)
    (path,) = tmp_path.rglob('*train*-00001-of-00003')
    content = bytearray(path.read_bytes())
    if damage == 'missing':
        path.unlink()
    elif damage == 'flipped':
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
    else:
        path.write_bytes(content[: 0 if damage == 'empty' else len(content) // 2])
    for read in (partial(data.eval_batches, split='train'), data.train_batches):
        with pytest.raises(ConfigError, match=r'imagenet2012/5\.1\.0 cannot be read: ') as raised:
            list(read(imagenet))
        assert not {'\n', '{', '['} & set(str(raised.value))
        assert f'or remove {tmp_path}/imagenet2012/5.1.0 and prepare it' in str(raised.value)


@pytest.mark.parametrize(
    ('error', 'expected'),
    [
        (OSError(errno.ESTALE, os.strerror(errno.ESTALE)), RunError),
        (tf.errors.UnavailableError(None, None, 'gs:// is away'), RunError),
        (RuntimeError('read() failed: Input/output error; reading /x'), RunError),
        (RuntimeError('Corrupted Riegeli/records file: block header hash mismatch'), ConfigError),
        (tf.errors.NotFoundError(None, None, '/x; No such file or directory'), ConfigError),
        (tf.errors.DataLossError(None, None, 'corrupted record at 0'), ConfigError),
    ],
    ids=['stale', 'unavailable', 'input', 'corrupt', 'missing', 'lost'],
)
def test_transient_errors_are_not_config_errors(error, expected):
    assert isinstance(unreadable('/data', error, 'repair it.'), expected)


@pytest.mark.parametrize('name', ['imagenet2012:', 'imagenet_resized/99x99', 'mnist/x=1', ''])
def test_a_malformed_name_has_a_one_line_error(name, imagenet):
    imagenet.dataset.name = name
    with pytest.raises(ConfigError, match=r'config\.dataset\.name=') as raised:
        data.dataset_info(imagenet)
    assert '\n' not in str(raised.value)


def test_a_dataset_that_is_not_for_classification_is_refused(imagenet, tmp_path):
    builder = Texts(data_dir=tmp_path)
    builder.download_and_prepare()
    imagenet.dataset.name, imagenet.dataset.data_dir = 'texts', str(tmp_path)
    with pytest.raises(ConfigError, match="no features 'image' and 'label', but text"):
        data.dataset_info(imagenet)


class Texts(tfds.core.GeneratorBasedBuilder):
    """One sentence."""

    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
        features = tfds.features.FeaturesDict({'text': tfds.features.Text()})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {'train': iter([(0, {'text': 'one'})])}

    def _generate_examples(self):
        raise NotImplementedError
