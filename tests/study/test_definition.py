import pytest

from configs import digits_ssa20
from ssanet_jax.errors import ConfigError
from ssanet_jax.study import Study, Variant, load_study

FILE = """
from ssanet_jax.study import Study, Variant
from configs import digits_ssa20
def get_study():
    {body}
"""


def make(**changes):
    options = {
        'question': 'Does it help?',
        'config': digits_ssa20.get_config(),
        'variants': {'none': Variant({'model.name': 'resnet20'}), 'ssa': Variant()},
        'seeds': range(2),
        'smallest_effect': 0.3,
    }
    return Study(**options | changes)


def test_pairs_follow_each_other():
    assert list(make().runs()) == [('none', 0), ('ssa', 0), ('none', 1), ('ssa', 1)]


def test_a_run_differs_from_the_config_in_overrides_and_seed_alone():
    study = make()
    config = study.run_config('none', 1)
    assert (config.model.name, config.seed) == ('resnet20', 1)
    config.model.name, config.seed = study.config.model.name, study.config.seed
    config.eval_every_steps = study.config.eval_every_steps  # the last step only
    assert config.to_dict() == study.config.to_dict()


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'baseline': 'plain'}, "baseline='plain' is not among the variants: none, ssa"),
        ({'corruptions': ['fog_1']}, "'fog_1', which is unknown; choose among gaussian_noise_1"),
        ({'seeds': [0, 0]}, 'has a seed twice'),
        ({'seeds': []}, 'seeds is empty'),
        ({'seeds': [0, -1]}, "Variant 'none': config.seed"),
        ({'smallest_effect': 0.0}, 'smallest_effect=0.0: expected points of accuracy above 0'),
        ({'smallest_effect': float('nan')}, 'smallest_effect=nan'),
        ({'variants': {'none': Variant(), 'a/b': Variant()}}, "Variant 'a/b': expected lowercase"),
        (
            {'variants': {'none': Variant({'model.nam': 'x'})}},
            "Variant 'none': config.model.nam does not",
        ),
        ({'variants': {'none': Variant({'batch_size': 0})}}, "Variant 'none': config.batch_size"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        make(**changes)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (None, 'is not a file'),
        ('x = 1', 'but it does not exist'),
        (FILE.format(body='return 1'), 'but it returns int'),
        (FILE.format(body='return Study(1)'), 'fails: TypeError'),
        ('import', 'fails: SyntaxError'),
    ],
)
def test_a_file_that_defines_no_study_is_refused(text, message, tmp_path):
    path = tmp_path / 'mine.py'
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_study(path)
