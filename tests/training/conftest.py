"""A short run, for tests of the training loop."""

import contextlib
import io
import shutil

import jax
import pytest

from ssanet_jax.training import loop
from ssanet_jax.training.storage.workdir import Workdir
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


@pytest.fixture(scope='session')
def uninterrupted(tmp_path_factory, data_dir):
    """The workdir of an uninterrupted run, its last state and its output."""
    config = short_config(data_dir)
    config.profile_start_step, config.profile_num_steps = 2, 2
    workdir, printed = tmp_path_factory.mktemp('uninterrupted'), io.StringIO()
    with contextlib.redirect_stdout(printed):
        state = loop.train_and_evaluate(config, workdir)
    return workdir, jax.device_get(state), printed.getvalue()


@pytest.fixture
def finished(uninterrupted, tmp_path):
    """A copy of that workdir."""
    return Workdir(shutil.copytree(uninterrupted[0], tmp_path / 'finished'))
