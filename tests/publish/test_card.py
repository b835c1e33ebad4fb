"""The model card: results, code that runs, licenses and metadata."""

import json
import re
import sys
from functools import partial
from unittest.mock import MagicMock

import pytest
import yaml

import ssanet_jax
from ssanet_jax.config import flatten
from ssanet_jax.errors import ConfigError
from ssanet_jax.export.program import as_trained, describe
from ssanet_jax.publish.card import find_results, model_card, torch_constructor
from ssanet_jax.tools import publish
from ssanet_jax.training.storage.workdir import Workdir
from tests.helpers import quick_jit, run_tool


def parts(text):
    """The front matter and the text of a model card."""
    _, front, text = re.split(r'^---$', text, maxsplit=2, flags=re.M)
    return yaml.safe_load(front), text


@pytest.fixture(scope='module')
def card(out):
    return parts((out / 'README.md').read_text())


def write_card(trained, run, license_name='mit'):
    """The parts of the card of weights without other files."""
    arguments = {'source': 'net', 'from_files': '', 'license_name': license_name}
    return parts(model_card(trained, Workdir(run), **arguments))


def test_the_card_has_the_results_of_the_run(card, trained, digits_run):
    front, text = card
    lines = map(json.loads, (digits_run / 'metrics.jsonl').read_text().splitlines())
    (logged,) = (m for m in lines if m['split'] == 'eval' and m['step'] == trained.step)
    (model,) = front['model-index']
    (result,) = model['results']
    assert [m['value'] for m in result['metrics']] == [logged['top1'], logged['top5']]
    assert result['task']['type'] == front['pipeline_tag'] == 'image-classification'
    assert (front['license'], front['library_name']) == ('apache-2.0', 'ssanet-jax')
    correct = round(logged['top1'] * 3.6)
    assert f'| top-1 accuracy | {logged["top1"]:.2f} % | {correct} of 360 |' in text
    assert str(trained.config.dataset.data_dir) not in text


def test_the_code_of_the_card_runs(card, out, trained, images, capsys):
    _, text = card
    in_jax, _, recipe = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
    exec(in_jax.replace('hf://me/digits', str(out)), {'images': images})
    apply = quick_jit(partial(trained.model.apply, train=False))
    logits = apply(trained.variables, trained.preprocess(images))
    assert capsys.readouterr().out.strip() == trained.classes[int(logits[0].argmax())]

    names: dict = {}
    exec(recipe, names)
    paths = {'dataset.data_dir': None, 'dataset.manual_dir': None}
    expected = {**flatten(trained.config), **paths}
    assert {**flatten(names['get_config']()), **paths} == expected


def trained_as(trained, name, **model):
    """The run with the config of another network."""
    config = trained.config.copy_and_resolve_references()
    config.model.update({'name': name, **model})
    changed = trained._replace(config=config)
    model = ssanet_jax.create_model(name, num_classes=len(trained.classes), **changed.options)
    return changed._replace(model=model)


@pytest.mark.parametrize(
    ('name', 'made'),
    [
        ('resnet50', 'torchvision.models.resnet50(num_classes=10)'),
        ('vgg16', 'torchvision.models.vgg16_bn(num_classes=10)'),
        (
            'googlenet',
            'torchvision.models.googlenet(num_classes=10, aux_logits=False, init_weights=False)',
        ),
        ('preact_resnet18', "timm.create_model('resnetv2_18', num_classes=10)"),
        ('ssa_resnet50', None),
        ('se_resnet50', None),  # with torchvision's names
        ('residual_attention56', None),
    ],
)
def test_the_card_makes_the_networks_of_the_library_whose_names_the_weights_have(
    trained, name, made
):
    assert torch_constructor(trained_as(trained, name)) == made


def test_the_card_makes_no_network_that_evaluates_otherwise(trained):
    for change in ({'stem': 'cifar'}, {'variant': 'v1'}, {'batch_norm_epsilon': 1e-3}):
        assert torch_constructor(trained_as(trained, 'resnet50', **change)) is None
    same = trained_as(trained, 'resnet50', dropout=0.1, stochastic_depth=0.1, tail='plain')
    assert torch_constructor(same) == 'torchvision.models.resnet50(num_classes=10)'


@pytest.mark.parametrize(
    ('name', 'library'), [('resnet50', 'torchvision'), ('resnet50d', 'timm'), ('ssa_resnet20', '')]
)
def test_the_torch_code_of_the_card_loads_its_weights(
    trained, digits_run, monkeypatch, name, library
):
    _, text = write_card(trained_as(trained, name), digits_run)
    _, in_torch, _ = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
    module, loader = MagicMock(), MagicMock()
    monkeypatch.setitem(sys.modules, 'safetensors.torch', loader)
    monkeypatch.setitem(sys.modules, library or 'torchvision', module)
    exec(in_torch, {})
    loader.load_file.assert_called_once_with('model.safetensors')
    loads = [call for call in module.mock_calls if '.load_state_dict' in str(call)]
    assert [call.args for call in loads] == ([(loader.load_file(),)] if library else [])


@pytest.fixture
def fine_tuned(trained):
    """A run that started from other weights."""
    config = trained.config.copy_and_resolve_references()
    with config.unlocked():
        config.init.weights, config.init.head = '/mine/resnet18.pth', 'new'
        config.dataset.name = 'imagenet2012:5.*.*'
    return trained._replace(config=config)


def test_the_card_names_the_weights_that_the_run_started_from(fine_tuned, digits_run):
    _, text = write_card(fine_tuned, digits_run, 'cc-by-nc-4.0')
    assert 'Started from `resnet18.pth`.' in text
    assert '/mine' not in text
    names: dict = {}
    exec(re.findall(r'```python\n(.*?)```', text, re.DOTALL)[-1], names)
    init = names['get_config']().init
    assert (init.weights, init.head) == ('resnet18.pth', 'new')
    metadata = describe(fine_tuned, as_trained(fine_tuned, preprocessing=True), 'safetensors', ())
    assert metadata['run']['init'] == {**init.to_dict()}


def test_the_license_of_weights_made_of_others_must_be_named(fine_tuned, monkeypatch, tmp_path):
    monkeypatch.setattr('ssanet_jax.publish.folder.load_trained', lambda *_: fine_tuned)
    with pytest.raises(ConfigError, match=r'started from resnet18\.pth.* --license'):
        run_tool(publish, f'--workdir={tmp_path}', f'--out={tmp_path}/out')
    run_tool(publish, f'--workdir={tmp_path}', f'--out={tmp_path}/out', '--license=cc-by-nc-4.0')
    assert 'license: cc-by-nc-4.0' in (tmp_path / 'out/README.md').read_text()


@pytest.mark.parametrize(
    ('name', 'plain', 'on_the_hub'),
    [
        ('imagenet2012:5.*.*', 'imagenet2012', 'ILSVRC/imagenet-1k'),
        ('imagenet2012_336px_q90', 'imagenet2012_336px_q90', 'ILSVRC/imagenet-1k'),
        ('fashion_mnist_idx', 'fashion_mnist_idx', 'zalando-datasets/fashion_mnist'),
        ('imagenet_v2/top-images', 'imagenet_v2', None),
    ],
)
def test_the_metadata_name_the_dataset_without_its_version(
    name, plain, on_the_hub, fine_tuned, digits_run
):
    fine_tuned.config.dataset.name = name
    front, _ = write_card(fine_tuned, digits_run)
    assert front.get('datasets') == (on_the_hub and [on_the_hub])
    (model,) = front['model-index']
    assert model['name'].endswith(f' on {plain}')
    assert model['results'][0]['dataset'] == {
        'name': plain,
        'type': on_the_hub or plain,
        'split': 'test',
    }


def test_results_are_of_the_published_weights_and_step(trained, tmp_path):
    common = {'split': 'eval', 'loss': 1.0, 'top5': 100.0, 'num_examples': 3}
    lines = [
        {'step': trained.step, 'top1': 100 / 3, 'raw/top1': 200 / 3, 'raw/top5': 100.0}
        | {'raw/loss': 2.0, **common},
        {'step': trained.step + 1, 'top1': 0.0, **common},
    ]
    (tmp_path / 'metrics.jsonl').write_text(''.join(json.dumps(x) + '\n' for x in lines))
    workdir = Workdir(tmp_path)
    assert find_results(trained, workdir).metrics[0].correct == 1
    raw = find_results(trained, workdir, raw=True)
    assert (raw.metrics[0].correct, raw.loss) == (2, 2.0)
    later = {'step': trained.step, 'top1': 100.0, **common, 'split': 'test'}
    (tmp_path / 'evaluation.json').write_text(json.dumps(later))
    assert find_results(trained, workdir).split == 'test'
    assert find_results(trained._replace(step=7), workdir) is None
