"""A short run, for tests of the training loop."""

import pytest

from tests.helpers import load_config


def short_config(data_dir):
    """30 steps on the digits; logs, evaluations and checkpoints seldom fall on the same step."""
    config = load_config('digits_ssa20')
    config.dataset.data_dir = str(data_dir)
    config.num_train_steps = 30
    config.log_every_steps = 7
    config.eval_every_steps = 10
    config.checkpoint_every_steps = 4
    config.model.name = 'ssa_resnet8'
    return config


@pytest.fixture
def short(data_dir):
    return short_config(data_dir)
