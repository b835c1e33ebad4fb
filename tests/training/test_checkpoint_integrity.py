"""Damaged checkpoints, and those that cannot be read now."""

import errno
import shutil

import pytest

from ssanet_jax.errors import ConfigError, RunError, SaveError
from ssanet_jax.training.checkpoints import integrity
from ssanet_jax.training.checkpoints.reader import CheckpointReader
from ssanet_jax.training.checkpoints.writer import Checkpoints
from ssanet_jax.training.storage import atomic_io
from tests.helpers import assert_trees_equal
from tests.training.test_checkpoint import good_checkpoints, tree


def largest(folder):
    return max((folder / 'default').rglob('d/*'), key=lambda path: path.stat().st_size)


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 4
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def replace(folder, other):
    shutil.rmtree(folder)
    shutil.copytree(other, folder)


DAMAGE = {
    'a bit of the data': lambda step: flip(largest(step), 0.5),
    'the first bit': lambda step: flip(largest(step), 0.0),
    'a bit of the metadata': lambda step: flip(step / 'default' / '_METADATA', 0.3),
    'a bit of the checksums': lambda step: flip(step / 'default' / 'checksums.json', 0.7),
    'cut': lambda step: cut(largest(step)),
    'emptied': lambda step: largest(step).write_bytes(b''),
    'a file deleted': lambda step: largest(step).unlink(),
    'the manifest deleted': lambda step: (step / 'default' / 'manifest.ocdbt').unlink(),
    'the checksums cut': lambda step: cut(step / 'default' / 'checksums.json'),
    'the checksums deleted': lambda step: (step / 'default' / 'checksums.json').unlink(),
    'its arrays deleted': lambda step: shutil.rmtree(step / 'default'),
    'a bit of its own metadata': lambda step: flip(step / '_CHECKPOINT_METADATA', 0.2),
    'another checkpoint': lambda step: replace(step, step.with_name('2')),
    'the arrays of another': lambda step: replace(
        step / 'default', step.with_name('2') / 'default'
    ),
    'its own metadata cut': lambda step: (step / '_CHECKPOINT_METADATA').write_text('{"item'),
    'nothing left': lambda step: [shutil.rmtree(step), step.mkdir()],
}


@pytest.mark.parametrize('damage', DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_is_moved_away_for_the_one_before(damage, tmp_path):
    good_checkpoints(tmp_path, 1, 2, 3)
    damage(tmp_path / 'checkpoints' / '3')
    with Checkpoints(tmp_path) as checkpoints:
        good, damaged = checkpoints.newest_good()
        assert (good, list(damaged)) == (2, [3])
        assert damaged[3]
        assert_trees_equal(checkpoints.restore(2, tree(0)), tree(2))
        assert list(checkpoints.evaluations) == [1, 2]
        checkpoints.save(3, tree(3), wait=True)  # the next save reuses the name
        assert checkpoints.newest_good() == (3, {})
    assert (tmp_path / 'damaged' / '3').is_dir()


def test_nothing_is_changed_where_all_checkpoints_are_damaged(tmp_path):
    good_checkpoints(tmp_path, 1, 2)
    for step in ('1', '2'):
        flip(largest(tmp_path / 'checkpoints' / step), 0.5)
    before = sorted(tmp_path.rglob('*'))
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(ConfigError, match='All checkpoints'):
        checkpoints.newest_good()
    assert sorted(tmp_path.rglob('*')) == before


def test_a_checkpoint_stays_good_where_the_code_moves(tmp_path, monkeypatch):
    good_checkpoints(tmp_path, 1)
    monkeypatch.setattr(integrity, '__name__', 'elsewhere')
    monkeypatch.setattr(integrity.CheckedHandler, '__module__', 'elsewhere')
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(2, tree(2), wait=True)
        assert checkpoints.damage(1) == checkpoints.damage(2) == ''


def test_a_damaged_checkpoint_is_not_evaluated(tmp_path):
    good_checkpoints(tmp_path, 1, 2)
    flip(largest(tmp_path / 'checkpoints' / '2'), 0.5)
    with CheckpointReader(tmp_path) as checkpoints:
        with pytest.raises(ConfigError, match=r'step 2 .* is damaged: default/.* there are 1'):
            checkpoints.find('best')
        assert checkpoints.find('1') == 1


ERRORS = [errno.ESTALE, errno.EIO, errno.EACCES, errno.ENOMEM, errno.ETIMEDOUT]


def raises(error):
    def read(*arguments):
        raise error

    return read


@pytest.mark.parametrize('number', ERRORS)
def test_a_checkpoint_that_cannot_be_read_now_stays_where_it_is(number, tmp_path, monkeypatch):
    good_checkpoints(tmp_path, 1, 2)
    with Checkpoints(tmp_path) as checkpoints:
        monkeypatch.setattr(integrity, '_digest', raises(OSError(number, 'later')))
        with pytest.raises(RunError, match=r'checkpoints/2 cannot be read: .* Nothing was changed'):
            checkpoints.newest_good()
        monkeypatch.undo()
        failed = ValueError(f"UNKNOWN: Error reading [os_error_code='{number}']")  # TensorStore's
        monkeypatch.setattr(checkpoints._manager, 'metadata', raises(failed))
        with pytest.raises(RunError, match=r'checkpoints/2 cannot be read: UNKNOWN: Error reading'):
            checkpoints.newest_good()
        monkeypatch.setattr(checkpoints._manager, 'restore', raises(failed))
        with pytest.raises(RunError, match=r'checkpoints/2 cannot be read: UNKNOWN: Error reading'):
            checkpoints.restore(2, tree(0))
        assert checkpoints.steps() == [1, 2]


# Where one array is missing, TensorStore may read others after Orbax's event loop has closed.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_older_checkpoints_stay_until_the_new_one_is_known_to_be_readable(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic_io, 'RETRY_DELAYS_S', (0.0,))
    good_checkpoints(tmp_path, 1)
    with Checkpoints(tmp_path) as checkpoints:
        with monkeypatch.context() as patch:
            patch.setattr(integrity.LiteralPath, 'glob', lambda *_: iter(()))
            with pytest.raises(SaveError, match=r'step 2 .*: it does not read back: NOT_FOUND'):
                checkpoints.save(2, tree(2), wait=True)
        assert checkpoints.steps() == [1]
        assert checkpoints.newest_good() == (1, {})
        checkpoints.save(2, tree(2), wait=True)
        assert checkpoints.newest_good() == (2, {})


def test_a_file_in_the_way_of_checkpoints_is_one_line(tmp_path):
    (tmp_path / 'checkpoints').write_text('')
    with pytest.raises(ConfigError, match=r'checkpoints cannot be created: File exists\. Move'):
        Checkpoints(tmp_path)
    (tmp_path / 'checkpoints').unlink()
    good_checkpoints(tmp_path, 1, 2)
    cut(largest(tmp_path / 'checkpoints' / '2'))
    (tmp_path / 'damaged').write_text('')
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(SaveError, match=r'cannot be cleared of damaged .* File exists'):
            checkpoints.newest_good()
        assert checkpoints.steps() == [1, 2]
