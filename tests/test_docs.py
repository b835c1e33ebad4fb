"""The code in docs/ runs, its links resolve, and its tables are current."""

import re
from functools import partial
from unittest.mock import create_autospec

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from PIL import Image

import ssanet_jax
from ssanet_jax import SSABlock, create_model, data, weights
from ssanet_jax.attention import ATTENTION
from ssanet_jax.config import attention_fields
from ssanet_jax.training import losses, metrics, trainer_setup
from ssanet_jax.training.storage.workdir import Workdir
from tests.helpers import ROOT, assert_trees_equal, quick_jit

PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]


@pytest.mark.parametrize('path', PAGES, ids=lambda path: path.stem)
def test_links_to_files_resolve(path):
    targets = re.findall(r'\]\((?!https?:)([^)#]+)', path.read_text())
    assert targets, f'{path.name} links to no file'
    for target in targets:
        assert (path.parent / target).exists(), target


def test_the_reference_lists_every_public_name():
    page = (ROOT / 'docs/api/ssanet_jax.rst').read_text()
    listed = re.findall(r'^ {3}~[\w.]+\.(\w+)$', page, re.MULTILINE)
    assert sorted([*listed, '__version__']) == sorted(ssanet_jax.__all__)


def test_the_custom_block_and_network_work():
    code = re.findall(r'```python\n(.*?)```', (ROOT / 'docs/extending.md').read_text(), re.DOTALL)
    names = {}
    for block in code:
        exec(block, names)
    images = jnp.ones((2, 32, 32, 3))

    shapes = jax.eval_shape(lambda: names['model'].init(jax.random.key(0), images, train=False))
    assert 'mine' in shapes['params']['denseblock4_denselayer16']

    mine = partial(names['MagnitudeBlock'], name='mine')
    model = names['Plain'](num_classes=5, attention=mine, attention_stages=(2,))
    run = quick_jit(partial(model.init_with_output, train=False, mutable=True))
    logits, variables = run(jax.random.key(0), images)
    assert logits.shape == (2, 5)
    gate = variables.pop('intermediates')['layer2_0']['mine']['gate'][0]
    assert gate.shape == (2, 8, 8, 1)
    assert 'mine' in variables['params']['layer2_0']
    assert 'mine' not in variables['params']['layer1_0']
    arrays = weights.to_arrays(variables, model, naming='mine')
    assert 'layers.2.0.mine.bn.weight' in arrays
    assert_trees_equal(weights.from_torch(arrays, model), variables)


def test_a_named_block_has_the_options_of_the_page(monkeypatch):
    page = (ROOT / 'docs/extending.md').read_text()
    names = {}
    exec(re.search(r'```python\n(.*?)```', page, re.DOTALL).group(1), names)
    block = names['MagnitudeBlock']
    monkeypatch.setitem(ATTENTION, 'my_block', block)
    model = create_model('my_block_resnet20', num_classes=3, attention_options={'offset': 0.1})
    assert model.attention(parent=None) == block(name='my_block', offset=0.1, parent=None)
    (option,) = attention_fields._attention_options('magnitude', block)
    assert f'--config.{option.name}' in page


def test_the_gates_and_features_of_an_nnx_model_are_those_of_the_page():
    page = (ROOT / 'docs/extending.md').read_text().split('## NNX models')[1].split('\n## ')[0]
    names = {'jnp': jnp}
    native, captured, bridged = re.findall(r'```python\n(.*?)```', page, re.DOTALL)
    exec(native + captured, names)
    net, images = names['net'], jnp.ones((2, 32, 32, 3))
    features = net.bn(net.conv(images))
    variables = {'params': {'bn': {'scale': np.ones(1), 'bias': np.zeros(1)}}}
    variables['batch_stats'] = {'bn': {'mean': np.zeros(1), 'var': np.ones(1)}}
    variables = jax.tree.map(np.float32, variables)
    y, sown = SSABlock(train=False).apply(variables, features, mutable=['intermediates'])
    np.testing.assert_allclose(names['gate'], sown['intermediates']['gate'][0], rtol=1e-6)
    np.testing.assert_allclose(names['y'], jax.nn.relu(y), rtol=1e-6)
    np.testing.assert_array_equal(names['features'], net.conv(images))

    exec(bridged, names)
    assert names['gate'].shape == (2, 1, 1, 64)


@pytest.mark.slow
def test_a_custom_block_loss_metric_and_evaluator_train_as_the_page_says(
    digits, tmp_path, monkeypatch
):
    code = re.findall(r'```python\n(.*?)```', (ROOT / 'docs/extending.md').read_text(), re.DOTALL)
    names = {}
    for block in code:
        exec(block, names)
    digits.model.name = 'resnet8'
    digits.num_train_steps = digits.log_every_steps = digits.eval_every_steps = 1
    state = names['train'](digits, tmp_path / 'run')
    trained, evaluated = Workdir(tmp_path / 'run').read_metrics()

    mine = partial(names['MagnitudeBlock'], name='mine')
    setup = trainer_setup.build(digits, num_classes=10, num_train_examples=1437, attention=mine)
    assert 'mine' in state.params['layer1_0']
    forward = jax.jit(
        lambda variables, images: jax.nn.log_softmax(
            setup.model.apply(
                variables, setup.objective.preprocess(images), train=True, mutable=['batch_stats']
            )[0]
        )
    )
    initial, batch = jax.device_get(setup.init().variables), next(data.train_batches(digits))
    shares = batch['image'].reshape(8, 8, 8, 8, 3)  # eight devices, with local statistics
    log_p = np.concatenate([forward(initial, images) for images in shares])
    log_p = log_p[np.arange(64), batch['label']].astype(np.float64)
    assert trained['loss'] == pytest.approx((-((1 - np.exp(log_p)) ** 2) * log_p).mean(), rel=1e-4)

    predict, confident = jax.jit(partial(setup.model.apply, train=False)), []
    for batch in data.eval_batches(digits, 'test'):
        images = setup.objective.preprocess(jnp.asarray(batch['image']))
        logits = predict(jax.device_get(state.variables), images)
        confident += list(scipy.special.softmax(logits, axis=1).max(axis=1)[batch['mask']] > 0.5)
    assert evaluated['confident'] == pytest.approx(100 * np.mean(confident), abs=0.3)  # one image
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(state.params)))
    assert evaluated['weights/norm'] == pytest.approx(norm, rel=1e-5)

    for registry, name in ((losses.LOSSES, 'focal'), (metrics.METRICS, 'confident')):
        monkeypatch.setitem(registry, name, None)  # The recipe's entries are removed afterwards.
    assert losses.make_loss(names['get_config']().loss) is names['focal']


def test_the_code_for_a_trained_run_works(digits_run, tmp_path, monkeypatch, capsys):
    pytest.importorskip('gradio')
    from ssanet_jax.tools import demo

    serve = create_autospec(demo.serve)  # checks arguments, opens no port
    monkeypatch.setattr(demo, 'serve', serve)
    monkeypatch.chdir(tmp_path)
    page = (ROOT / 'docs/trained.md').read_text().replace('runs/digits', str(digits_run))
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    paths = [tmp_path / f'{number}.png' for number in range(4)]
    for path, image in zip(paths, images, strict=False):  # the last is missing
        Image.fromarray(image).save(path)
    names = {'images': images, 'paths': paths}
    blocks = re.findall(r'```python\n(.*?)```', page, re.DOTALL)
    export = (ROOT / 'docs/export.md').read_text()
    blocks += re.findall(r'```python\n([^`]*export_trained.*?)```', export, re.DOTALL)
    for block in blocks:
        exec(block, names)
    assert names['logits'].shape == (3, 10)
    *guesses, bad, difference = capsys.readouterr().out.splitlines()
    likeliest = [str(label) for label in np.argmax(names['logits'], axis=1)]
    assert [guess.split()[0] for guess in guesses] == likeliest
    assert bad == "{3: 'It cannot be read: No such file or directory.'}"
    assert (tmp_path / 'digits.html').read_text().startswith('<!DOCTYPE html>')
    assert float(difference) < 1e-5
    assert (tmp_path / 'digits_hlo' / 'model.stablehlo').exists()
    serve.return_value.block_thread.assert_called_once_with()


def test_the_ssa_block_of_the_models_page_runs():
    page = (ROOT / 'docs/models.md').read_text()
    names = {}
    exec(re.search(r'```python\n([^`]*SSABlock.*?)```', page, re.DOTALL)[1], names)
    assert names['y'].shape == names['x'].shape
    assert names['updates'].keys() == {'batch_stats'}
