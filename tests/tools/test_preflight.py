"""tools.preflight: the largest batch, the host, the report, messages."""

import importlib.util
import json
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from ssanet_jax.analysis.schedule import Collective
from ssanet_jax.errors import ConfigError, RunError
from ssanet_jax.targets import DEVICE_TYPES, compile_environment, find_topology
from ssanet_jax.targets.tpu import Tpu
from ssanet_jax.tools import preflight as module
from ssanet_jax.tools import preflight_data
from ssanet_jax.tools.batch_search import Attempt, largest_batch
from ssanet_jax.tools.compile_step import (
    Request,
    StepCost,
    TooLarge,
    _decode,
    _encode,
    failure,
    too_large,
)
from ssanet_jax.tools.preflight_data import DATASETS, DECODE_RATE, Sizes, host_decode_rate
from ssanet_jax.tools.preflight_report import Target, table, verdict
from ssanet_jax.tools.preflight_report import data as report_data
from tests.helpers import ROOT, load_config, run_tool

# ml_collections reads recipes by a deprecated method.
pytestmark = pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')

V5E = DEVICE_TYPES['v5e']


@pytest.mark.parametrize('first', [1, 8, 300, 500])
@pytest.mark.parametrize('tells', [True, False])
def test_the_search_finds_a_batch_close_to_the_largest(first, tells):
    """Memory grows by steps and in proportion; 388 images are the most that fit."""

    def attempt(batch):
        needed = 40 * batch + 3 * batch // 32 + 500
        fits = needed <= 16_060
        return Attempt(fits, needed if fits or tells else None)

    calls = []

    def counted(batch):
        calls.append(batch)
        return attempt(batch)

    tried = largest_batch(counted, {first: attempt(first)}, fixed=500, available=16_060, limit=4096)
    best = max(batch for batch, a in tried.items() if a.fits)
    assert 388 * 0.8 < best <= 388
    assert len(calls) <= 3


def test_a_missing_compiler_is_named_with_its_extra():
    @dataclass(frozen=True, kw_only=True)
    class Missing(Tpu):
        compiler = 'no_such_compiler'

    kind = Missing(**vars(V5E))
    with pytest.raises(
        ConfigError, match=r"no_such_compiler.*pip install 'ssanet-jax\[preflight-tpu\]'"
    ):
        module.check_compiler(kind)


def test_a_compiler_that_aborts_is_reported_in_one_line():
    log = 'I0000 start\nF1129 tiling.cc:12] Check failed: a == b (784 vs. 56) \n*** SIGABRT ***\n'
    error = failure(-6, log)
    assert isinstance(error, RunError)
    assert str(error) == (
        'The compiler aborted (SIGABRT): F1129 tiling.cc:12] Check failed: a == b (784 vs. 56)'
    )


def test_a_lock_of_another_process_is_reported_with_the_remedy():
    error = failure(1, 'ABORTED: Internal error when accessing libtpu multi-process lockfile.')
    assert isinstance(error, ConfigError)
    assert 'remove /tmp/libtpu_lockfile' in str(error)


def test_the_compilers_refusal_says_how_much_is_needed():
    message = (
        'RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space '
        'hbm. Used 24.50G of 15.75G hbm. Exceeded hbm capacity by 8.75G.'
    )
    assert too_large(message) == TooLarge(int(24.5 * 2**30), int(15.75 * 2**30))
    assert too_large('INTERNAL: no tile sizes') is None


def test_the_environment_keeps_the_flags_of_the_user(monkeypatch):
    monkeypatch.setenv('XLA_FLAGS', '--xla_dump_to=/tmp/dump')
    flags = compile_environment()['XLA_FLAGS']
    assert flags == '--xla_dump_to=/tmp/dump --xla_gpu_autotune_level=0'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--topology=v5e:3x5'], 'does not exist'),
        (['--topology=v5e:4x4', '--config.batch_size=100'], 'cannot be split over 16 devices'),
        (['--topology=v5e:2x2', '--config.dataset.name=mnist'], '--num_classes=N and --num_train'),
        (['--topology=v5e:2x2', '--config.dataset.train_split=train[:9%]'], '--num_train_exam'),
    ],
)
def test_invalid_arguments_are_refused_in_one_line(arguments, message):
    with pytest.raises(ConfigError, match=message) as raised:
        run_tool(module, '--config=configs/digits_ssa20.py', *arguments)
    assert '\n' not in str(raised.value)


def test_the_known_sizes_of_the_digits_are_those_of_the_data():
    from sklearn.datasets import load_digits

    target = load_digits().target
    num_classes, splits = DATASETS['digits']
    assert num_classes == len(set(target))
    assert splits == {'train': len(target) - 360, 'test': 360}


def cost(images):
    """197 GFLOPs and 819 MB an image: 1 ms each on a v5e; 1 GiB, and 1/8 GiB an image."""
    return StepCost(
        arguments=2**29,
        outputs=0,
        temporaries=2**27 * images,
        code=2**29,
        flops=197 * 10**9 * images,
        bytes_accessed=10**9 * images,
        traffic=2 * 819 * 10**6 * images,
        cycles=None,
        collectives=[Collective('all-reduce', 8, 8, None)],
        compile_seconds=1.0,
    )


def found(*, search=False, decode_rate=None, costs=cost, **overrides):
    """The preflight of the digits, 1437 and 360, on eight v5e, with those costs."""
    config = load_config('digits_ssa20')
    with config.unlocked():
        config.update(overrides)
    target = Target(*find_topology('v5e:2x4'))
    sizes = Sizes(10, 1437, 360)
    return config, module.preflight(
        config,
        target,
        sizes,
        lambda step, images: costs(images),
        search=search,
        decode_rate=decode_rate,
    )


def test_the_bound_of_a_schedule():
    """60 epochs of 1437 / 64 batches, 8 images a device at 2 ms; one evaluation per epoch."""
    config, result = found()
    assert result.images == {'train': 8, 'eval': 45}
    assert result.bounds['train'].seconds == pytest.approx(0.016)
    steps = round(60 * 1437 / 64)
    seconds = steps * 0.016 + 60 * 1 * 0.090
    assert result.device_hours == pytest.approx(8 * seconds / 3600)
    line = verdict(config, result)
    assert '\n' not in line
    for part in ('2 GiB of 16 GiB', 'not a measurement', '16 ms a step (memory)', '4,000 images/s'):
        assert part in line
    written = json.loads(json.dumps(report_data(config, result, {})))
    assert written['steps']['train']['bound_images_per_second'] == pytest.approx(4000)


def test_numbers_for_images_that_grow_are_those_of_the_largest():
    dataset = {'image_size': 12, 'initial_size': 8, 'train_crop': 'resized', 'eval_size': 16}
    config, result = found(dataset=dataset)
    assert 'for the schedule at 12 pixels.' in verdict(config, result)
    evaluation, growth = table(config, result, {}).notes[:2]
    assert evaluation == 'Images of the evaluation step have 16 pixels.'
    assert growth.startswith('Training images grow from 8 to 12 pixels. All numbers are for 12')
    config, result = found()
    assert not any('pixels' in note for note in table(config, result, {}).notes)


@pytest.mark.parametrize(('rate', 'cores'), [(999.0, 5), (1001.0, 4), (None, None)])
def test_host_cores_keep_up_with_the_bound(rate, cores):
    """The bound is 64 images in 16 ms, 4,000 images/s."""
    config, result = found(decode_rate=rate)
    assert result.host_cores == cores
    (row,) = (r for r in table(config, result, {}).rows if r[0].startswith('host cores'))
    assert row[1:] == ('-' if cores is None else str(cores), '-')
    assert json.loads(json.dumps(report_data(config, result, {})))['host_cores'] == cores


def test_the_decode_rate_is_the_measured_one_and_only_for_photographs(monkeypatch):
    measured = json.loads((ROOT / 'benchmarks' / 'results' / 'input.json').read_text())
    rate = measured['images_per_second']['ours, array_record']['median']
    assert pytest.approx(rate / measured['machine']['cores'], rel=1e-3) == DECODE_RATE
    for given, expected in (
        (None, {'imagenet_ssa50': DECODE_RATE, 'cifar10_ssa50': None}),
        (700.0, {'imagenet_ssa50': 700.0, 'cifar10_ssa50': 700.0}),
    ):
        monkeypatch.setattr(preflight_data, 'FLAGS', SimpleNamespace(decode_rate=given))
        assert {name: host_decode_rate(load_config(name)) for name in expected} == expected


def test_the_largest_batch_is_searched():
    """(16 - 1) GiB hold 120 images of 1/8 GiB."""
    _, result = found(search=True)
    assert 112 <= result.largest_batch <= 120


def test_a_compiler_that_fails_during_the_search_is_reported():
    def costs(images):
        if images > 100:
            raise RunError('The compiler was killed.')
        return cost(images)

    config, result = found(search=True, costs=costs)
    assert result.largest_batch <= 100
    (note,) = (n for n in table(config, result, {}).notes if n.startswith('Images in the training'))
    assert '8 fits (2 GiB)' in note
    assert 'fails (The compiler was killed.)' in note


def test_the_largest_batch_can_be_split_into_micro_batches():
    _, result = found(search=True, batch_size=72, micro_batches=3)
    assert all(batch % 3 == 0 for batch in result.batches)
    assert 108 <= result.largest_batch <= 120


def test_a_batch_that_does_not_fit_is_refused_with_the_largest_that_does():
    message = 'A batch of 128 per device does not fit v5e:2x4: .* needs 17 GiB of 16 GiB; '
    with pytest.raises(ConfigError, match=f'{message}120 would fit: --config.batch_size=960 on 8'):
        found(batch_size=1024, search=True)
    with pytest.raises(ConfigError, match=r'of 16 GiB; lower --config\.batch_size'):
        found(batch_size=1024)
    message = 'An evaluation batch of 128 per device does not fit v5e:2x4; lower --config.eval_ba'
    with pytest.raises(ConfigError, match=message):
        found(eval_batch_size=1024)


@pytest.mark.parametrize('topology', ['v5e:2x2', 'h100x4'])
def test_a_config_compiles_for_a_device_that_is_not_here(topology, capfd):
    kind, _, _ = find_topology(topology)
    if importlib.util.find_spec(kind.compiler) is None:
        pytest.skip(f'{kind.compiler} is not installed: pip install -e .[{kind.extra}]')
    run_tool(
        module,
        '--config=configs/digits_ssa20.py',
        f'--topology={topology}',
        '--nosearch',
        '--format=json',
    )
    written = json.loads(capfd.readouterr().out)
    train = written['steps']['train']
    assert train['images_per_device'] == 16
    # Parameters, running means and variances of the BatchNorms and nine gates, 4 sums of metrics.
    statistics = 2 * (7 * 16 + 6 * 32 + 6 * 64 + 9)
    assert sum(c['bytes'] for c in train['collectives']) == 4 * (269_740 + statistics + 4)
    assert (train['cycles'] is not None) == (kind.compiler == 'libtpu')
    assert written['verdict'].startswith(f'Compiles and fits {topology}')


@pytest.mark.parametrize('recipe', ['digits_ssa20', 'imagenet_se50'])
def test_a_request_reaches_the_other_process_unchanged(recipe):
    config = load_config(recipe)
    config.optimizer.train_only = ('*/bn/*', 'fc/*')
    request = Request(config, 'v5e:2x4', 'train', 8, 10, 1437)
    received = _decode(_encode(request))
    assert received.config.to_dict() == config.to_dict()
    assert received[1:] == request[1:]
