"""tools.nonfinite on runs that diverged."""

import contextlib
import io
import re
from unittest.mock import Mock

import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax.errors import ConfigError, DivergedError
from ssanet_jax.tools import nonfinite as module
from ssanet_jax.trained.inspection import ArrayStats, Edge
from ssanet_jax.trained.nonfinite import Diagnosis, NonFiniteSource
from ssanet_jax.training import loop, parallel, trainer_setup
from ssanet_jax.training.steps import TrainState
from ssanet_jax.training.storage import run_history
from tests.helpers import run_tool


def nonfinite(workdir, *arguments):
    """Runs the command in this process; returns its output."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        run_tool(module, f'--workdir={workdir}', *arguments)
    return printed.getvalue()


def files(folder):
    """{path: content} of a folder."""
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in folder.rglob('*')
    }


@pytest.fixture
def tiny(digits):
    """12 steps, with checkpoints at 3, 6, ..."""
    digits.num_train_steps = 12
    digits.log_every_steps = 3
    digits.eval_every_steps = 12
    digits.checkpoint_every_steps = 3
    digits.model.name = 'resnet8'
    return digits


def stops_at(config, workdir):
    """The step of the DivergedError."""
    with pytest.raises(DivergedError) as raised:
        loop.train_and_evaluate(config, str(workdir))
    return re.match(r'At step ([\d,]+) ', str(raised.value)).group(1)


@pytest.mark.slow
def test_a_diverged_run_without_a_checkpoint(tiny, tmp_path):
    tiny.optimizer.learning_rate, tiny.optimizer.schedule = 1e30, 'constant'
    step = stops_at(tiny, tmp_path)
    before = files(tmp_path)
    first, *lines = nonfinite(tmp_path).splitlines()
    assert re.match(rf'Step {step}: loss \S+, learning rate 1e\+30\.$', first)
    assert re.search(r'First to turn non-finite: \S+ \(\w+\), ', '\n'.join(lines))
    assert files(tmp_path) == before
    with pytest.raises(ConfigError, match='holds no checkpoint; train there'):
        nonfinite(tmp_path, '--checkpoint=best')
    good = int(step) - 1
    assert f'None of the {good} steps' in nonfinite(tmp_path, f'--max_steps={good}')


@pytest.mark.slow
def test_an_exploding_loss_is_found_from_a_checkpoint(tiny, tmp_path):
    tiny.num_train_steps, tiny.optimizer.schedule = 6, 'constant'
    loop.train_and_evaluate(tiny, str(tmp_path))
    assert 'None of the 0 steps from 6 to 6 is bad.' in nonfinite(tmp_path)
    assert 'None of the 3 steps from 3 to 6 is bad.' in nonfinite(tmp_path, '--checkpoint=3')
    tiny.num_train_steps, tiny.max_loss = 12, 1e-3
    step = stops_at(tiny, tmp_path)
    printed = nonfinite(tmp_path)
    assert printed.startswith(f'Step {step}: loss ')
    assert step == '7'
    assert 'Everything is finite' in printed
    assert 'The loss is above config.max_loss=0.001.' in printed
    (row,) = (line for line in printed.splitlines() if 'conv1' in line and 'layer' not in line)
    assert row.count('│') == 4


def test_the_bad_step_is_found_and_described(tiny, tmp_path, monkeypatch, capsys):
    """With a stand-in for training, whose fourth step is bad."""
    params = {'fc': {'bias': np.array([np.nan, 1.0], np.float32)}}

    def train_step(state, batch, total):
        step = state.step + 1
        return state.replace(step=step), Mock(bad_step=4 if step >= 4 else 0)

    setup = Mock(train_step=train_step, schedule=lambda step: 0.1 * step)
    setup.plan.num_train_steps = 12
    start = TrainState(jnp.int32(1), params, {}, ())
    monkeypatch.setattr(trainer_setup, 'build', lambda *_, **__: setup)
    monkeypatch.setattr(run_history, 'check_same_run', lambda *_, **__: ['Another version.'])
    monkeypatch.setattr(parallel, 'to_devices', lambda batches, mesh: batches)
    monkeypatch.setattr(module, '_restore', lambda *_: start)
    monkeypatch.setattr(module, 'first_nonfinite', lambda *_, **__: diagnosis(float('inf')))

    module.replay(tiny, tmp_path, 'latest', max_steps=2)
    assert capsys.readouterr() == (
        'None of the 2 steps from 1 to 3 is bad. --max_steps=4 searches further.\n',
        'Another version.\n',
    )
    module.replay(tiny, tmp_path, 'latest', max_steps=100)
    assert capsys.readouterr().out.splitlines() == [
        'Step 4: loss inf, learning rate 0.3.',
        'Not finite before the step: the parameters fc/bias (1 of 2 values).',
        'All modules are finite, the logits up to 3.2e+37, but the loss is not.',
    ]


def test_a_folder_without_a_run_is_refused_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match='holds no checkpoints/') as raised:
        nonfinite(tmp_path)
    assert '\n' not in str(raised.value)


GOOD, BAD = ArrayStats(0, 4096, 3.2e37), ArrayStats(12, 4096, 1.0)
WEIGHTS = np.array([1.0, -3.2e37], np.float32)


def diagnosis(loss=2.5, images=GOOD, grads=WEIGHTS, forward=None, backward=None):
    edges = [Edge('', 'ResNet', '', True, images, GOOD), Edge('', 'ResNet', '', False, GOOD, GOOD)]
    names = [f'layer{i}_0/bn/scale' for i in range(5)]
    return Diagnosis(loss, dict.fromkeys(names, grads), edges, forward, backward)


@pytest.mark.parametrize(
    ('found', 'lines'),
    [
        (
            diagnosis(
                float('nan'), forward=NonFiniteSource('layer3_1/bn2', 'BatchNorm', '', BAD, GOOD)
            ),
            [
                'First to turn non-finite: layer3_1/bn2 (BatchNorm), 12 of 4,096 values; its '
                'input is finite, up to 3.2e+37.'
            ],
        ),
        (
            diagnosis(forward=NonFiniteSource('layer3_1', 'Basic', 'layer3_1/ssa', BAD, GOOD)),
            [
                'First to turn non-finite: layer3_1 (Basic), in its own code next to '
                'layer3_1/ssa, 12 of 4,096 values; its input is finite, up to 3.2e+37.'
            ],
        ),
        (
            diagnosis(
                grads=np.array([np.nan, 1]), backward=NonFiniteSource('', 'ResNet', 'fc', BAD, GOOD)
            ),
            [
                'The forward pass is finite. First to turn non-finite in the backward pass: the '
                'network (ResNet), in its own code next to fc, 12 of 4,096 values; its output '
                'gradient is finite, up to 3.2e+37.',
                'Gradients that are not finite: layer0_0/bn/scale (1 of 2 values), '
                'layer1_0/bn/scale (1 of 2 values), layer2_0/bn/scale (1 of 2 values) and 2 more.',
            ],
        ),
        (
            diagnosis(float('inf')),
            ['All modules are finite, the logits up to 3.2e+37, but the loss is not.'],
        ),
        (
            diagnosis(grads=np.full(9, 1e20, np.float32)),
            [
                'Everything is finite; the largest |parameter| is 3.2e+37, in '
                "conv1/kernel. The gradient's norm, 6.7e+20, is too large to be squared in "
                'float32.'
            ],
        ),
        (
            diagnosis(float('nan'), images=BAD),
            ['The preprocessed images are not finite: 12 of 4,096 values.'],
        ),
    ],
)
def test_a_diagnosis_is_described_in_plain_lines(found, lines):
    params = {'conv1/kernel': WEIGHTS, 'conv1/bias': np.ones(3)}
    assert module.describe(found, params, max_loss=1000.0) == lines


def test_the_largest_gradients_are_by_module():
    grads = {'a/kernel': np.full(4, 3.0), 'a/bias': np.full(1, 8.0), 'b/kernel': np.ones(4)}
    table = module.largest_gradients(grads, dict.fromkeys(grads, np.array([-2.0, 1.0])))
    assert table.rows == [('a', 10.0, 2.0), ('b', 2.0, 2.0)]
