"""What input_doctor says of its measurements."""

import pytest

from ssanet_jax.tools import input_advice
from ssanet_jax.tools.input_advice import Rates, advice, verdict
from tests.helpers import load_config

RATES = Rates(
    read=9000.0, decode=2000.0, input=1800.0, transfer=50000.0, step=3000.0, together=1750.0
)
INPUT = (
    'The input is the bottleneck: it delivers 1,800 images/s; the training step could take 3,000'
)


@pytest.mark.parametrize(
    ('changed', 'lines'),
    [
        (
            {'transfer': 1500.0},
            ['The transfer to the devices is the bottleneck: 1,500 images/s; the training step'],
        ),
        ({'step': 900.0}, ['The training step is the bottleneck: it takes 900 images/s; the inp']),
        ({'read': 1900.0}, [INPUT, 'Its slowest part is reading.', 'Set it.']),
        ({}, [INPUT, 'Its slowest part is decoding. About 4 cores like these 2 would', 'Set it.']),
        ({'read': None, 'decode': None}, [INPUT, 'About 4 cores like these 2 would', 'Set it.']),
    ],
)
def test_the_bottleneck_is_the_slowest_part(changed, lines):
    found = verdict(RATES._replace(**changed), 2, ['Set it.'])
    assert [line[: len(start)] for line, start in zip(found, lines, strict=True)] == lines


@pytest.mark.parametrize(('step', 'close'), [(1600.0, True), (1200.0, False)])
def test_an_input_that_is_barely_fast_enough_is_said_to_be_close(step, close):
    (line,) = verdict(RATES._replace(step=step), 2, [])
    assert line.endswith('It is close: other work on these cores may reverse it.') == close


def test_settings_that_would_speed_up_the_input_are_offered(monkeypatch):
    monkeypatch.setattr(input_advice, 'num_cores', lambda: 8)
    config = load_config('imagenet_ssa50')
    dataset = config.dataset
    dataset.antialias, dataset.num_threads = True, 2
    antialias, threads, smaller, hint = advice(config, 'A hint.')
    assert antialias.startswith('--config.dataset.antialias=False ')
    assert threads.startswith('--config.dataset.num_threads=-1 ')
    assert 'ssanet prepare --dataset=imagenet2012:5.*.*' in smaller.replace("'", '')
    assert '--short_side=384 ' in smaller  # 1.5 times the 256 from which evaluation crops 224
    assert hint == 'A hint.'
    dataset.antialias, dataset.num_threads = False, 8
    dataset.name = 'imagenet2012_384px:5.*.*'
    assert advice(config, '') == []
    dataset.antialias = dataset.in_memory = True
    assert advice(config, 'A hint.') == [antialias]
