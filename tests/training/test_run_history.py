import json
from fractions import Fraction

import pytest

from ssanet_jax.config import TrainPlan
from ssanet_jax.config.validation import changed_fields
from ssanet_jax.errors import ConfigError
from ssanet_jax.training.run_history import check_nothing_lost
from ssanet_jax.training.workdir import Workdir

# Saves at 10, 20, 25, 30, ... and evaluates at 25, 50, ...
PLAN = TrainPlan(Fraction(25), 100, Fraction(25), 10, 0.1)


def leave(workdir, *lines, start=0):
    """Writes metrics.jsonl with lines (step, split), and starts.jsonl with one start."""
    text = ''.join(json.dumps({'step': step, 'split': split}) + '\n' for step, split in lines)
    (workdir / 'metrics.jsonl').write_text(text)
    (workdir / 'starts.jsonl').write_text(json.dumps({'step': start}) + '\n')


@pytest.mark.parametrize('lines', [[(5, 'train')], [(15, 'train')], [(20, 'train')]])
def test_a_run_killed_before_its_first_checkpoint_starts_over_and_says_so(lines, tmp_path):
    leave(tmp_path, *lines)
    (note,) = check_nothing_lost(Workdir(tmp_path), PLAN)
    assert 'ended before its first checkpoint; starting over' in note


@pytest.mark.parametrize('lines', [[(21, 'train')], [(25, 'train'), (25, 'eval')]])
def test_a_run_that_lost_its_checkpoints_does_not_start_over(lines, tmp_path):
    leave(tmp_path, *lines)
    with pytest.raises(ConfigError, match=rf'up to step {lines[-1][0]}, but no checkpoint\. Put'):
        check_nothing_lost(Workdir(tmp_path), PLAN)


def test_a_run_that_resumed_once_does_not_start_over_without_checkpoints(tmp_path):
    leave(tmp_path, (5, 'train'), start=4)
    with pytest.raises(ConfigError, match='but no checkpoint'):
        check_nothing_lost(Workdir(tmp_path), PLAN)


def test_a_new_workdir_passes(tmp_path):
    assert check_nothing_lost(Workdir(tmp_path), PLAN) == []


@pytest.mark.parametrize(('schedule', 'harmless'), [('cosine', False), ('step', True)])
def test_another_length_changes_the_learning_rates_of_a_cosine(schedule, harmless, digits):
    digits.optimizer.schedule = schedule
    saved = json.loads(digits.to_json())
    digits.num_epochs += 1
    assert [bool(texts) for texts in changed_fields(digits, saved)] == [not harmless, harmless]
