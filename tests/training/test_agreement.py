import hashlib
import json

import jax
import numpy as np
import pytest

from ssanet_jax.errors import ConfigError
from ssanet_jax.training.multihost import agreement, hosts
from ssanet_jax.training.storage.run_history import batch_norm_images
from tests.helpers import load_config


@pytest.fixture
def two_hosts(monkeypatch):
    """Makes this process the first of two hosts; returns changes to what the second one sends."""
    changes = {}
    monkeypatch.setattr(hosts, 'several', lambda: True)
    monkeypatch.setattr(
        hosts, 'exchange', lambda value, what: json.loads(json.dumps([value, {**value, **changes}]))
    )
    return changes


def refused(check, *arguments):
    with pytest.raises(ConfigError) as error:
        check(*arguments)
    return str(error.value)


def test_differences_name_field_values_and_hosts():
    facts = [{'a': 1, 'b': 2}, {'a': 1, 'b': 3}, {'a': 1}, {'a': 1, 'b': 2}]
    (text,) = agreement.disagreements(facts)
    assert text == 'b is 2 on hosts 0, 3, 3 on host 1 and missing on host 2'
    assert agreement.disagreements(facts[:1] * 4) == []
    (text,) = agreement.disagreements([{'a': 0}] * 63 + [{'a': 1}])
    assert text == 'a is 0 on hosts 0, 1, 2, 3 and 59 more and 1 on host 63'


def test_a_single_host_computes_and_sends_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(hosts, 'exchange', None)
    for name in ('_source', '_digest', '_environment'):
        monkeypatch.setattr(agreement, name, None)
    agreement.check_same_start(load_config('digits_ssa20'), 'train')
    agreement.check_same_state(0, {'w': np.zeros(3)})
    agreement.check_same_data(None)
    agreement.check_shared_workdir(tmp_path)
    assert not list(tmp_path.iterdir())


def test_processes_that_cannot_be_compared_are_refused(monkeypatch):
    monkeypatch.setattr(jax, 'process_count', lambda: 4)
    text = refused(agreement.check_same_start, load_config('digits_ssa20'), 'train')
    assert text.startswith('This is one of 4 processes; call jax.distributed.initialize() in each')


def test_equal_hosts_agree(two_hosts):
    agreement.check_same_start(load_config('digits_ssa20'), 'train')
    agreement.check_same_state(3, {'w': jax.numpy.zeros(3)})


@pytest.mark.parametrize(
    ('name', 'ours', 'theirs'),
    [
        ('config.optimizer.learning_rate', '0.1', '0.5'),
        ('config.seed', '0', '7'),
        ('config.dataset.crop_area', '(0.08, 1.0)', '(0.5, 1.0)'),
        ('the command', 'train', 'evaluate best'),
        ('the version of jax', jax.__version__, '0.9.0'),
        ('jax_enable_x64', 'False', 'True'),
    ],
)
def test_a_different_start_is_refused(name, ours, theirs, two_hosts):
    two_hosts[name] = theirs
    assert refused(agreement.check_same_start, load_config('digits_ssa20'), 'train') == (
        f'The hosts disagree: {name} is {ours} on host 0 and {theirs} on host 1. Start every host '
        'with the same command, code, packages and data.'
    )


def test_other_code_is_refused(two_hosts):
    two_hosts['the code of ssanet_jax'] = 'other'
    text = refused(agreement.check_same_start, load_config('digits_ssa20'), 'train')
    assert f'is {agreement._source()} on host 0 and other on host 1' in text


def test_the_code_is_that_of_all_source_files(tmp_path, monkeypatch):
    (tmp_path / 'inner').mkdir()
    files = [tmp_path / '__init__.py', tmp_path / 'inner' / 'a.py']
    monkeypatch.setattr(agreement, '_PACKAGE', tmp_path)
    seen = []
    for name, text in ((0, ''), (1, ''), (1, 'x = 1\n'), (0, 'x = 1\n')):
        files[name].write_text(text)
        seen.append(agreement._source())
    (tmp_path / 'inner' / 'notes.txt').write_text('no code')
    assert len(set(seen)) == 4
    assert agreement._source() == seen[-1]


def test_folders_and_threads_of_a_host_are_its_own(two_hosts):
    config = load_config('digits_ssa20')
    sent = agreement._fields(config)
    for name in ('dataset.data_dir', 'dataset.manual_dir', 'dataset.num_threads', 'init.weights'):
        assert f'config.{name}' not in sent
    assert sent['config.batch_size'] == repr(config.batch_size)


def test_many_differences_are_counted(two_hosts):
    two_hosts.update({f'config.{name}': 'x' for name in ('seed', 'loss', 'dtype', 'max_loss')})
    text = refused(agreement.check_same_start, load_config('digits_ssa20'), 'train')
    assert text.count(' on host 1') == 3
    assert '; and 1 more. Start' in text


def test_arrays_are_compared_by_value_dtype_and_shape(two_hosts):
    w = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = hashlib.sha256(b'float32(2, 3)' + w.tobytes()).hexdigest()[:12]
    two_hosts['the checksum of params/w'] = 'fedcba987654'
    state = {'params': {'w': jax.numpy.asarray(w)}, 'step': jax.numpy.zeros((), 'int32')}
    assert refused(agreement.check_same_state, 0, state).startswith(
        f'The hosts disagree: the checksum of params/w is {expected} on host 0 and fedcba987654 on '
        'host 1.'
    )
    variants = [w, w + 1e-7, -w, w.astype(np.float16), w.reshape(3, 2)]
    assert len({agreement._digest(jax.numpy.asarray(v)) for v in variants}) == 5


def test_another_step_is_refused(two_hosts):
    two_hosts['the step to start from'] = 30
    text = refused(agreement.check_same_state, 20, {})
    assert 'the step to start from is 20 on host 0 and 30 on host 1' in text


@pytest.fixture
def second_host(monkeypatch):
    """Makes this process the second of two hosts, whose first writes no file."""
    monkeypatch.setattr(hosts, 'several', lambda: True)
    monkeypatch.setattr(hosts, 'exchange', lambda value, what: ['hosts-1.partial', value])
    monkeypatch.setattr(hosts, 'raise_on_all_hosts', lambda attempt, what: attempt())
    monkeypatch.setattr(jax, 'process_index', lambda: 1)
    monkeypatch.setattr(agreement, 'VISIBLE_WITHIN_S', 0.1)


def test_a_workdir_that_is_not_shared_is_refused(second_host, tmp_path):
    text = refused(agreement.check_shared_workdir, tmp_path)
    assert f'--workdir={tmp_path} is not the folder that host 0 sees' in text
    text = refused(agreement.check_shared_workdir, tmp_path / 'missing')
    assert 'is not the folder that host 0 sees' in text


def test_a_shared_workdir_keeps_no_trace(second_host, monkeypatch, tmp_path):
    (tmp_path / 'hosts-1.partial').touch()
    agreement.check_shared_workdir(tmp_path)
    monkeypatch.setattr(jax, 'process_index', lambda: 0)
    (tmp_path / 'hosts-1.partial').unlink()
    agreement.check_shared_workdir(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('batch', 'parts', 'group', 'devices', 'images'),
    [
        (64, 1, 1, 1, 64),
        (64, 1, 1, 4, 16),
        (64, 1, 2, 4, 32),
        (64, 1, -1, 4, 64),
        (64, 1, 4, 4, 64),
        (64, 4, 1, 1, 16),
        (64, 4, 2, 4, 8),
        (64, 4, -1, 4, 16),
    ],
)
def test_images_of_a_batch_norm_statistic(batch, parts, group, devices, images):
    config = load_config('digits_ssa20')
    config.batch_size, config.micro_batches = batch, parts
    config.model.batch_norm_group_size = group
    assert batch_norm_images(config, devices) == images
