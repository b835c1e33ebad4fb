import json

import pytest

from ssanet_jax.config.validation import changed_fields, check_same_model
from ssanet_jax.data import DatasetInfo
from ssanet_jax.errors import ConfigError
from ssanet_jax.training.storage.run_history import check_nothing_lost, check_same_run, record
from ssanet_jax.training.storage.workdir import Workdir


def leave(workdir, *lines, start=0):
    """Writes metrics.jsonl with lines (step, split), and starts.jsonl with one start."""
    text = ''.join(json.dumps({'step': step, 'split': split}) + '\n' for step, split in lines)
    (workdir / 'metrics.jsonl').write_text(text)
    (workdir / 'starts.jsonl').write_text(json.dumps({'step': start}) + '\n')


@pytest.mark.parametrize('lines', [[(5, 'train')], [(500, 'train'), (500, 'eval')]])
def test_a_run_killed_before_its_first_checkpoint_starts_over_and_says_so(lines, tmp_path):
    leave(tmp_path, *lines)
    (note,) = check_nothing_lost(Workdir(tmp_path))
    assert f'has metrics up to step {lines[-1][0]}, but no checkpoint; starting over' in note


def test_a_run_that_lost_its_checkpoints_does_not_start_over(tmp_path):
    leave(tmp_path, (25, 'train'), (25, 'eval'), (50, 'train'), (50, 'eval'))
    with pytest.raises(ConfigError, match=r'up to step 50, but no checkpoint\. Put'):
        check_nothing_lost(Workdir(tmp_path))


def test_a_finished_run_does_not_start_over_without_checkpoints(tmp_path):
    leave(tmp_path, (500, 'train'), (500, 'eval'))
    (tmp_path / 'summary.json').write_text('{}')
    with pytest.raises(ConfigError, match='but no checkpoint'):
        check_nothing_lost(Workdir(tmp_path))


def test_a_run_that_resumed_once_does_not_start_over_without_checkpoints(tmp_path):
    leave(tmp_path, (5, 'train'), start=4)
    with pytest.raises(ConfigError, match='but no checkpoint'):
        check_nothing_lost(Workdir(tmp_path))


def test_a_new_workdir_passes(tmp_path):
    assert check_nothing_lost(Workdir(tmp_path)) == []


@pytest.mark.parametrize(('schedule', 'harmless'), [('cosine', False), ('step', True)])
def test_another_length_changes_the_learning_rates_of_a_cosine(schedule, harmless, digits):
    digits.optimizer.schedule = schedule
    saved = json.loads(digits.to_json())
    digits.num_epochs += 1
    assert [bool(texts) for texts in changed_fields(digits, saved)] == [not harmless, harmless]


@pytest.mark.parametrize(
    ('field', 'value', 'refused'),
    [
        ('dataset.image_size', 12, True),
        ('dataset.name', 'fashion_mnist_idx', True),
        ('dataset.mean', (0.1, 0.1, 0.1), True),
        ('dtype', 'bfloat16', True),
        ('dataset.eval_size', 12, False),
        ('dataset.eval_split', 'train', False),
        ('dataset.data_dir', '/elsewhere', False),
        ('optimizer.learning_rate', 0.5, False),
        ('dataset.cutout', 2, False),
    ],
)
def test_an_evaluation_reads_images_as_the_run_did(field, value, refused, digits):
    saved = json.loads(digits.to_json())
    digits.update_from_flattened_dict({field: value})
    if not refused:
        return check_same_model(digits, saved)
    with pytest.raises(ConfigError, match=f'has another config: {field} was .* Restore the old'):
        check_same_model(digits, saved)


def start_on(devices, config, folder):
    """Records a start of `config` on so many devices; returns what a start on these 8 would see."""
    info = DatasetInfo(1437, 360, 10, tuple('0123456789'), 'a set in memory', '', 'digits/1.0.0 0')
    (folder / 'checkpoints' / '10').mkdir(parents=True)
    workdir = Workdir(folder)
    record(config, info, workdir, 0)
    workdir.write_starts([{**workdir.read_starts()[0], 'devices': devices}])
    return config, info, workdir


@pytest.mark.parametrize(
    ('group', 'devices', 'before', 'now'), [(1, 1, 64, 8), (1, 2, 32, 8), (2, 16, 8, 16)]
)
def test_another_number_of_devices_must_not_change_what_local_batch_norm_covers(
    group, devices, before, now, digits, tmp_path
):
    digits.batch_size, digits.model.batch_norm_group_size = 64, group
    run = start_on(devices, digits, tmp_path)
    change = (
        f'each BatchNorm statistic was of {before} images, on {devices} devices with '
        f'model.batch_norm_group_size={group}, and is of {now}, on 8'
    )
    with pytest.raises(ConfigError, match=f'different run: {change}.*or pass --allow_config_chan'):
        check_same_run(*run, allow_config_change=False)
    assert f'Changed since the last start: {change}.' in check_same_run(*run, True)


@pytest.mark.parametrize(('group', 'devices'), [(1, 8), (-1, 1), (-1, 32)])
def test_devices_may_change_where_batch_norm_covers_the_same_images(
    group, devices, digits, tmp_path
):
    digits.model.batch_norm_group_size = group
    notes = check_same_run(*start_on(devices, digits, tmp_path), allow_config_change=False)
    expected = (
        [] if devices == 8 else [f'Changed since the last start: devices was {devices} and is 8.']
    )
    assert notes == expected
