import dataclasses
import json
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

import ssanet_jax
from ssanet_jax import data, feature_maps
from ssanet_jax.errors import ConfigError
from ssanet_jax.tools import gates as module
from ssanet_jax.trained import load
from ssanet_jax.training import trainer_setup
from ssanet_jax.training.checkpoints.writer import Checkpoints
from tests.helpers import load_config, quick_jit, run_tool


def tool(workdir, *arguments):
    """Runs the command in this process."""
    run_tool(module, f'--workdir={workdir}', *arguments)


@pytest.fixture(scope='module')
def workdir(tmp_path_factory, data_dir):
    """A run with two gates and random weights."""
    folder = epath.Path(tmp_path_factory.mktemp('run'))
    config = load_config('digits_ssa20')
    config.dataset.data_dir = str(data_dir)
    config.model.name = 'ssa_resnet8'
    config.model.attention_stages, config.model.attention_blocks = (1, 3), (0,)
    info = data.dataset_info(config)
    setup = trainer_setup.build(
        config, num_classes=info.num_classes, num_train_examples=info.num_train
    )
    rng = np.random.default_rng(1)

    def weights(path, leaf):
        value = rng.normal(size=leaf.shape, scale=0.2)
        return (np.abs(value) if path[-1].key == 'var' else value).astype(leaf.dtype)

    state = jax.eval_shape(setup.init)
    variables = jax.tree_util.tree_map_with_path(weights, state.variables)
    state = dataclasses.replace(state, step=jnp.int32(7), opt_state=(), **variables)
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(7, (state, setup.zero_metrics().sums), wait=True)
    (folder / 'config.json').write_text(config.to_json())
    return folder


def test_it_prints_draws_and_ablates(workdir, tmp_path, capsys):
    tool(
        workdir, '--checkpoint=latest', '--format=json', '--ablation', f'--out={tmp_path}/gates.png'
    )
    printed = capsys.readouterr()
    statistics, changes = json.loads(printed.out)
    assert statistics['title'] == 'ssa_resnet8, step 7, on 360 images of digits test'
    assert f'Written to {tmp_path}/gates.png' in printed.err
    assert (tmp_path / 'gates.png').read_bytes().startswith(b'\x89PNG')

    trained = ssanet_jax.load(str(workdir), 'latest')
    batches = list(data.eval_batches(trained.config, 'test'))
    image, label = (
        np.concatenate([batch[name][batch['mask']] for batch in batches])
        for name in ('image', 'label')
    )
    images = trained.preprocess(image)
    maps = feature_maps(trained.model, trained.variables, images, ['*/ssa/gate'])
    assert [(row['gate'], row['size']) for row in statistics['rows']] == [
        ('layer1_0/ssa', '8 x 8'),
        ('layer3_0/ssa', '2 x 2'),
    ]
    for row in statistics['rows']:
        gate = np.asarray(maps[f'{row["gate"]}/gate'], np.float64)
        assert row['mean'] == pytest.approx(gate.mean(), rel=1e-5)
        assert row['std within images'] == pytest.approx(gate.std(axis=(1, 2)).mean(), rel=1e-3)
        assert row['low'] == pytest.approx((gate < 0.05).mean(), abs=1e-6)
        assert row['high'] == pytest.approx((gate > 0.95).mean(), abs=1e-6)

    apply = quick_jit(partial(trained.model.apply, train=False))
    logits = np.asarray(apply(trained.variables, images))
    top1 = 100 * (logits.argmax(axis=1) == label).mean()
    assert f'top-1 {top1:.2f} %' in changes['title']
    assert [row['gate'] for row in changes['rows']] == ['all', 'layer1_0/ssa', 'layer3_0/ssa']
    for row in changes['rows']:
        found = [v for name, v in row.items() if name.startswith('loss, ')]
        assert len(found) == 3
        assert all(np.isfinite(found))
        assert found[0] != 0


def test_fewer_images_and_another_split_leave_the_config_unchanged(workdir, capsys, monkeypatch):
    trained = load.load_trained(str(workdir), '7')
    monkeypatch.setattr(load, 'load_trained', lambda *_: trained)
    before = trained.config.to_json()
    tool(workdir, '--checkpoint=7', '--format=markdown', '--split=train[:100]', '--images=10')
    printed = capsys.readouterr().out
    assert '**ssa_resnet8, step 7, on 10 images of digits train[:100]**' in printed
    assert '| layer1_0/ssa | 8 x 8 |' in printed
    assert trained.config.to_json() == before


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['more'], "Unexpected argument 'more'"),
        (['--checkpoint=best'], 'No checkpoint .* was evaluated; choose'),
        (['--out=gates.jpg'], r'--out=gates.jpg must end in .png, .svg or .pdf'),
        (['--out=/nowhere/gates.png'], 'no folder /nowhere; create it first'),
        (['--checkpoint=7', '--split=tset'], 'tset'),
    ],
)
def test_invalid_arguments_are_refused(arguments, message, workdir):
    with pytest.raises(ConfigError, match=message):
        tool(workdir, *arguments)


def test_a_run_without_gates_is_refused(workdir, tmp_path):
    shutil.copytree(workdir, tmp_path / 'run')
    path = tmp_path / 'run/config.json'
    config = json.loads(path.read_text())
    config['model'] |= {
        'name': 'resnet8',
        'attention_stages': None,
        'attention_blocks': None,
    }
    path.write_text(json.dumps(config))
    with pytest.raises(ConfigError, match='resnet8 has no gates; choose a run of a network'):
        tool(tmp_path / 'run', '--checkpoint=latest')
