"""A short run, for tests of what happens in and around it."""

import pytest


@pytest.fixture
def short(digits):
    """30 steps; nothing that happens now and then falls on the same step."""
    digits.num_train_steps = 30
    digits.log_every_steps = 7
    digits.eval_every_steps = 10
    digits.checkpoint_every_steps = 4
    digits.model.name = 'ssa_resnet20'
    return digits
