import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax.config import ConfigError
from ssanet_jax.training.checkpoint import Checkpoints, quality
from tests.helpers import assert_trees_equal


def evaluation(top1, loss=1.0):
    return {'top1': top1, 'top5': 100.0, 'loss': loss, 'num_examples': 10}


def tree(step):
    return {'step': jnp.int32(step), 'kernel': jnp.full((3, 4), step / 7)}


def test_the_best_stays_when_it_is_no_longer_new_and_after_reopening(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step, top1 in ((1, 50.0), (2, 90.0), (3, 10.0)):
            checkpoints.save(step, tree(step), evaluation(top1))
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step, top1 in ((4, 20.0), (5, 90.0), (6, 30.0), (7, 40.0)):
            checkpoints.save(step, tree(step), evaluation(top1, loss=2.0))
        checkpoints.save(8, tree(8), None)
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.best_step() == 2  # 5 is as right, with a higher loss
        assert (checkpoints.find('best'), checkpoints.find('latest'), checkpoints.find('7')) == (
            2,
            8,
            7,
        )
        assert_trees_equal(checkpoints.restore(2, tree(0)), tree(2))
    assert {int(path.name) for path in tmp_path.iterdir()} == {2, 7, 8}


def test_what_was_saved_is_what_the_state_was_then(tmp_path):
    """Saving goes on in the background while training overwrites its buffers."""
    import jax

    double = jax.jit(lambda state: jax.tree.map(lambda a: a * 2, state), donate_argnums=0)
    state = {'kernel': jnp.arange(100_000.0)}
    with Checkpoints(tmp_path, keep=5) as checkpoints:
        for step in range(1, 4):
            state = double(state)
            checkpoints.save(step, state, None)
            for _ in range(3):
                state = double(state)
        for step in range(1, 4):
            restored = checkpoints.restore(step, state)
            np.testing.assert_array_equal(
                restored['kernel'], np.arange(100_000.0) * 2 ** (4 * step - 3)
            )


def test_reading_leaves_the_folder_as_it_is(tmp_path):
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, tree(1), evaluation(50.0))
    unfinished = tmp_path / '2.orbax-checkpoint-tmp'
    unfinished.mkdir()
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.find('best') == 1
    assert unfinished.exists()


def test_a_checkpoint_that_was_not_evaluated_is_not_called_the_best(tmp_path):
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, tree(1), None)
        with pytest.raises(ConfigError, match='choose --checkpoint=latest'):
            checkpoints.find('best')


def test_a_diverged_evaluation_is_never_the_best():
    assert quality(evaluation(10.0, loss=float('nan'))) < quality(evaluation(10.0, loss=99.0))
    assert quality(evaluation(9.0, loss=0.1)) < quality(evaluation(10.0, loss=float('nan')))
