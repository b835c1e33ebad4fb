"""The remedies in messages about losses, parameters and networks."""

import re

import pytest

from ssanet_jax.models import create_model
from ssanet_jax.training.losses import make_loss
from ssanet_jax.training.optimizer import check_train_only
from ssanet_jax.training.trainer_setup import build_model
from ssanet_jax.weights.convert import variable_shapes
from tests.helpers import with_fields
from tests.remedies.helpers import after, listed, refused


def test_the_losses_that_are_listed_exist():
    for name in listed('choose one of ', refused('is not known; choose', make_loss, 'hinge'))[:-1]:
        assert make_loss(name)


def test_a_loss_without_smoothing_takes_none(monkeypatch):
    monkeypatch.setitem(make_loss.__globals__['LOSSES'], 'mine', lambda logits, label: logits)
    message = refused('has no effect with config.loss', make_loss, 'mine', label_smoothing=0.1)
    assert make_loss('mine', label_smoothing=float(after('set it to ', message)))


def test_the_patterns_that_are_named_match_parameters():
    params = variable_shapes(create_model('resnet8', num_classes=3))['params']
    config = with_fields(optimizer__train_only=('layr1_0/*/kernel',)).optimizer
    message = refused('which matches no parameter', check_train_only, config, params)
    for pattern in listed('nearest: ', message):
        config.train_only = (pattern,)
        check_train_only(config, params)


@pytest.mark.parametrize(
    ('fields', 'phrase', 'remedy'),
    [
        ({'name': 'ssa_resnt50'}, 'No model is called', 'Nearest: '),
        ({'name': 'sssa_resnet50'}, 'No model is called', 'Nearest: '),
        ({'name': 'cbm_resnet20'}, 'No model is called', 'Nearest: '),
        ({'name': 'resnet50', 'attention_stages': (3,)}, 'has no attention', 'another model, as '),
        ({'name': 'ssa_resnet20', 'variant': 'v1'}, 'leave it', None),
    ],
)
def test_the_networks_that_are_named_exist(fields, phrase, remedy):
    config = with_fields(**{f'model__{name}': value for name, value in fields.items()})
    message = refused(phrase, build_model, config, 10)
    for name in listed(remedy, message) if remedy else ['ssa_resnet20']:
        assert create_model(name, num_classes=10)


@pytest.mark.slow
def test_the_stages_and_blocks_that_are_named_exist():
    config = with_fields(model__name='ssa_resnet20', model__stem='cifar', dataset__image_size=8)
    config.model.attention_stages = (7,)
    stages = listed('the stages are ', refused('names stage', build_model, config, 10))
    assert stages == ['1', '2', '3']
    config.model.attention_stages = tuple(map(int, stages))
    config.model.attention_blocks = (9,)
    message = refused('names block', build_model, config, 10)
    longest = int(re.search(r'has (\d+)', message)[1])
    config.model.attention_blocks = (longest - 1, -longest)
    build_model(config, 10)
