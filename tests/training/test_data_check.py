"""The check of a run's data before its first step, and what the workdir remembers of it."""

import io
import os
import shutil

import pytest
from rich.console import Console

from ssanet_jax import data
from ssanet_jax.data.datasets.image_folder import open_folder
from ssanet_jax.errors import ConfigError, DataFileError
from ssanet_jax.training import data_check
from ssanet_jax.training.storage import data_files, run_history
from ssanet_jax.training.storage.workdir import Workdir
from tests import fabricate, stored_digits
from tests.helpers import load_config


@pytest.fixture
def root(tmp_path):
    return fabricate.image_folder(tmp_path / 'trees', per_class=4)


@pytest.fixture
def config(root):
    config = load_config('folder')
    config.dataset.data_dir = str(root)
    config.dataset.image_size = 16
    config.dataset.train_crop = 'padded'
    return config


@pytest.fixture
def workdir(tmp_path):
    workdir = Workdir(tmp_path / 'run')
    workdir.make()
    return workdir


def start(config, workdir, step=0):
    """What a start of a run does about its data; returns notes, and what was printed."""
    open_folder.cache_clear()  # each start is a process of its own
    info, console = data.dataset_info(config), Console(file=io.StringIO(), width=200)
    notes = run_history.check_same_run(config, info, workdir, False)
    notes += data_check.check(config, workdir, console)
    run_history.record(config, info, workdir, step)
    (workdir.checkpoints / '5').mkdir(parents=True, exist_ok=True)
    return ' '.join(notes), console.file.getvalue()


def test_all_bad_images_are_listed_with_a_remedy_that_works(config, root, workdir):
    (root / 'train' / 'ash' / '1.jpg').write_bytes(b'')
    (root / 'train' / 'beech' / '2.jpg').write_bytes(b'none')
    (root / 'validation' / 'cedar' / '3.jpg').write_bytes(b'\xff\xd8\xff')
    console = Console(file=io.StringIO(), width=40)
    with pytest.raises(DataFileError, match='2 of 12 training images and 1 of 12 ev') as raised:
        data_check.check(config, workdir, console)
    printed = console.file.getvalue().splitlines()
    bad = [root / 'train/ash/1.jpg', root / 'train/beech/2.jpg', root / 'validation/cedar/3.jpg']
    assert sorted(line.partition(': ')[0] for line in printed) == [*map(str, bad)]
    assert printed[0].endswith(': The file is empty.') or 'The file is empty.' in '\n'.join(printed)
    with config.unlocked():
        for flag in str(raised.value).rstrip('.').split():
            if flag.startswith('--config.dataset.'):
                name, value = flag.removeprefix('--config.dataset.').split('=')
                config.dataset[name] = type(config.dataset[name])(value)
    notes, _ = start(config, workdir)
    assert 'Others replace them in training' in notes
    batch = next(data.train_batches(config))
    assert (batch['label'] >= 0).all()
    labels = [b['label'][b['mask']] for b in data.eval_batches(config, 'validation')]
    assert sum((label == -1).sum() for label in labels) == 1


@pytest.mark.parametrize('remedy', ['repair', 'remove'])
@pytest.mark.parametrize('split', ['train', 'validation'])
def test_a_run_goes_on_after_the_remedy_of_its_error(split, remedy, config, root, workdir):
    start(config, workdir)
    path = root / split / 'ash' / '1.jpg'
    good = path.read_bytes()
    path.write_bytes(b'')
    with pytest.raises(DataFileError, match=r'1 of 12 .* cannot be decoded: .*ash/1\.jpg\. Rep'):
        start(config, workdir, step=5)
    path.unlink() if remedy == 'remove' else path.write_bytes(good)
    notes, _ = start(config, workdir, step=5)
    what = {'repair': 'repaired', 'remove': 'removed'}[remedy]
    assert f'1 data files were {what}: {split}/ash/1.jpg.' in notes
    assert 'Changed' not in start(config, workdir, step=5)[0]


@pytest.mark.parametrize('split', ['train', 'validation'])
def test_a_file_named_in_the_middle_of_a_run_may_be_removed(split, config, root, workdir):
    start(config, workdir)
    path = root / split / 'ash' / '1.jpg'
    path.write_bytes(b'')
    with (
        pytest.raises(DataFileError, match=r'ash/1\.jpg'),
        data_files.remembering_bad_files(config.dataset, workdir),
    ):
        list(
            data.eval_batches(config, split)
            if split == 'validation'
            else zip(range(9), data.train_batches(config), strict=False)
        )
    path.unlink()
    assert 'were removed' in start(config, workdir, step=5)[0]


def test_a_bad_file_is_remembered_until_it_is_decoded_again(config, root, workdir):
    start(config, workdir)
    (root / 'train/ash/1.jpg').write_bytes(b'')
    with pytest.raises(DataFileError, match='Repair or remove'):
        start(config, workdir, step=5)
    config.dataset.check_images = False
    for _ in range(2):
        assert 'repaired' not in start(config, workdir, step=5)[0]
    (root / 'train/ash/1.jpg').unlink()
    assert 'were removed' in start(config, workdir, step=5)[0]


def test_hosts_that_fail_at_once_remember_the_files_of_both(config, root, workdir):
    start(config, workdir)
    paths = [str(root / f'train/ash/{number}.jpg') for number in (1, 2)]
    read = data_files.read
    before = read(workdir)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data_files, 'read', lambda _: before)  # before either wrote
        for path in paths:
            with (
                pytest.raises(DataFileError, match='bad'),
                data_files.remembering_bad_files(config.dataset, workdir),
            ):
                raise DataFileError('bad', [path])
    bad = {name for name, file in read(workdir).items() if file.problem}
    assert bad == {'train/ash/1.jpg', 'train/ash/2.jpg'}


def test_a_full_disk_does_not_hide_the_bad_file(config, root, workdir, monkeypatch):
    start(config, workdir)
    monkeypatch.setattr(data_files, '_lines', lambda files: 1 / 0)
    monkeypatch.setattr(data_files, 'file_errors', lambda *others: (ZeroDivisionError,))
    with (
        pytest.raises(DataFileError, match='ash'),
        data_files.remembering_bad_files(config.dataset, workdir),
    ):
        raise DataFileError('ash', [str(root / 'train/ash/1.jpg')])


def test_a_line_that_was_cut_short_loses_no_other(config, root, workdir):
    start(config, workdir)
    before = data_files.read(workdir)
    with workdir.data_files.open('a') as file:
        file.write('["train/ash/1.j')
    assert data_files.read(workdir) == before
    with (
        pytest.raises(DataFileError, match='ash'),
        data_files.remembering_bad_files(config.dataset, workdir),
    ):
        raise DataFileError('ash', [str(root / 'train/ash/1.jpg')])
    after = data_files.read(workdir)
    assert after.keys() == before.keys()
    assert [name for name, file in after.items() if file.problem] == ['train/ash/1.jpg']


def test_removing_a_good_image_is_another_run(config, root, workdir):
    start(config, workdir)
    (root / 'train' / 'ash' / '1.jpg').unlink()
    with pytest.raises(ConfigError, match=r'different run: its dataset was image_folder'):
        start(config, workdir, step=5)


def test_removing_a_class_is_another_run_even_if_all_of_it_is_bad(config, root, workdir):
    config.dataset.max_bad_fraction, config.dataset.bad_eval_images = 1.0, 'incorrect'
    for path in root.glob('*/ash/*.jpg'):
        path.write_bytes(b'')
    start(config, workdir)
    for path in root.glob('*/ash/*.jpg'):
        path.unlink()
    with pytest.raises(ConfigError, match='different run'):
        start(config, workdir, step=5)


def test_replaced_images_are_noted_and_copies_are_not(config, root, workdir):
    start(config, workdir)
    for path in root.rglob('*.jpg'):
        os.utime(path, ns=(1, 1))
    assert 'Changed' not in start(config, workdir, step=5)[0]
    shutil.copy(root / 'train/ash/0.jpg', root / 'train/ash/1.jpg')
    notes, _ = start(config, workdir, step=5)
    expected = '1 data files were replaced by others of the same name: train/ash/1.jpg.'
    assert f'Changed since the last start: {expected}' in notes


def test_unchanged_images_are_not_decoded_again(config, workdir, monkeypatch):
    start(config, workdir)
    monkeypatch.setattr('ssanet_jax.data.checks.scan.decode_whole', None)
    start(config, workdir, step=5)


def test_images_may_go_unchecked(config, root, workdir, monkeypatch):
    config.dataset.check_images = False
    monkeypatch.setattr('ssanet_jax.data.checks.scan.decode_whole', None)
    start(config, workdir)
    (root / 'train' / 'ash' / '1.jpg').write_bytes(b'')
    assert '1 data files were replaced' in start(config, workdir, step=5)[0]


def test_a_leak_is_said(config, root, workdir):
    shutil.copy(root / 'train/ash/0.jpg', root / 'validation/ash/0.jpg')
    assert 'Leakage: 1 evaluation images are training images too' in start(config, workdir)[0]


def test_limits_of_the_data_are_said_with_numbers(config, root, workdir):
    shutil.rmtree(root / 'train' / 'cedar')
    (root / 'train' / 'notes.txt').touch()
    notes, _ = start(config, workdir)
    assert 'never learned: cedar with 4 evaluation images' in notes
    assert '12 evaluation images: the standard error of top-1 is up to 14.4 points' in notes
    assert 'Left out: not named like an image, 1 (train/notes.txt).' in notes


def test_a_replaced_shard_is_noted(digits, tmp_path, workdir):
    stored_digits.use(digits, stored_digits.prepare(tmp_path / 'data', 'array_record', 3))
    start(digits, workdir)
    assert 'Changed' not in start(digits, workdir, step=5)[0]
    first, second, _ = sorted((tmp_path / 'data').rglob('*train*array_record*'))
    shutil.copy(first, second)
    expected = f'1 data files were replaced by others of the same name: {second.name}.'
    assert expected in start(digits, workdir, step=5)[0]


def test_a_damaged_memory_of_the_files_is_made_anew(config, workdir):
    start(config, workdir)
    workdir.data_files.write_text('{"damaged')
    start(config, workdir, step=5)
    assert len(workdir.data_files.read_text().splitlines()) == 24
