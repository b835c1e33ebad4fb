"""Compilation for devices that are not here: counts, bounds, messages."""

import importlib.util
import itertools
import json
import math
from dataclasses import dataclass
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from ssanet_jax.analysis.jaxpr_macs import least_macs, nonzero_macs_of
from ssanet_jax.analysis.schedule import (
    Exchange,
    _accesses,
    estimated_cycles,
    exchanges,
    memory_traffic,
)
from ssanet_jax.errors import ConfigError, RunError
from ssanet_jax.targets import DEVICE_TYPES, compile_environment, find_topology
from ssanet_jax.targets.bound import Bound, bound, link_bytes
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
from tests.helpers import ROOT, load_config, mesh_of, run_tool

# ml_collections reads recipes by a deprecated method.
pytestmark = pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')

V5E = DEVICE_TYPES['v5e']


@pytest.mark.parametrize(
    ('text', 'kind', 'num_devices'),
    [
        ('v5e:4x4', 'v5e', 16),
        ('V4:2x2x2', 'v4', 8),
        ('v5p:4x4x8', 'v5p', 128),
        ('v6e:1x1', 'v6e', 1),
        ('h100x8', 'h100', 8),
        ('a100', 'a100', 1),
        ('l4', 'l4', 1),
    ],
)
def test_a_topology_has_a_device_type_and_a_number_of_devices(text, kind, num_devices):
    found, name, number = find_topology(text)
    assert (found.name, name, number) == (kind, text.lower(), num_devices)


@pytest.mark.parametrize(
    ('text', 'nearest'),
    [
        ('v5e:3x5', 'v5e:4x4, v5e:2x4'),  # 16 and 8 devices; 15 are asked for
        ('h100x16', 'h100x8, h100x4'),
        ('v6e', 'v6e:1x1, v6e:2x2'),
        ('h10', 'h100'),
    ],
)
def test_a_topology_that_does_not_exist_is_refused_with_the_nearest(text, nearest):
    with pytest.raises(ConfigError, match=f'{text} does not exist; nearest: {nearest}') as raised:
        find_topology(text)
    assert '\n' not in str(raised.value)


def test_every_device_type_has_figures_with_a_source():
    for kind in DEVICE_TYPES.values():
        assert kind.source
        assert 1e9 < kind.link_bandwidth < kind.bandwidth < kind.peak_flops
        assert 8e9 < kind.usable_memory <= kind.memory < 1e12


def test_a_bound_is_the_slowest_of_arithmetic_memory_and_links():
    """197 TFLOP/s, 819 GB/s, 200 GB/s; an all-reduce of 16 sends 2 x 15/16 of its bytes."""
    exchange = Exchange('all-reduce', bytes=160 * 10**9, group_size=16, overlapped=None)
    limit = bound(V5E, flops=2 * 197e12, traffic=3 * 819e9, exchanges=[exchange])
    assert limit == pytest.approx(Bound(arithmetic=2, memory=3, links=1.5))
    assert (limit.seconds, limit.limited_by) == (pytest.approx(3), 'memory')


@pytest.mark.parametrize(
    ('kind', 'switch', 'expected'),
    [
        ('all-reduce', False, 2 * 3 / 4 * 100),
        ('all-reduce', True, 100),
        ('all-gather', False, 3 / 4 * 100),
        ('reduce-scatter', False, 3 * 100),
        ('collective-permute', False, 100),
    ],
)
def test_bytes_that_cross_the_links(kind, switch, expected):
    exchange = Exchange(kind, bytes=100, group_size=4, overlapped=None)
    assert link_bytes(exchange, switch) == expected


def compiled_text(f, *arguments):
    return jax.jit(f).lower(*arguments).compile().as_text()


def test_exchanges_of_a_program_for_eight_devices():
    def f(x):
        pairs = [[0, 1], [2, 3], [4, 5], [6, 7]]
        return jax.lax.psum(x, 'data', axis_index_groups=pairs), jax.lax.psum(x[:3], 'data')

    mapped = jax.shard_map(f, mesh=mesh_of(8), in_specs=P('data'), out_specs=P(), check_vma=False)
    found = exchanges(compiled_text(mapped, jnp.ones((8 * 16, 4))), 8)
    assert sorted(found, key=lambda e: e.bytes) == [
        Exchange('all-reduce', bytes=4 * 3 * 4, group_size=8, overlapped=None),
        Exchange('all-reduce', bytes=4 * 16 * 4, group_size=2, overlapped=None),
    ]


OVERLAPPED = """HloModule jit_train, is_scheduled=true

%body (param_0: f32[64]) -> f32[64] {
  %param_0 = f32[64]{0} parameter(0)
  ROOT %negate = f32[64]{0} negate(%param_0)
}

%fused_slice (param_0: f32[64]) -> f32[4] {
  %param_0.1 = f32[64]{0} parameter(0)
  %bitcast = f32[64]{0} bitcast(%param_0.1)
  ROOT %slice = f32[4]{0} slice(%bitcast), slice={[0:4]}
}

ENTRY %main (a: f32[64], b: f32[8,64]) -> f32[4] {
  %a = f32[64]{0} parameter(0)
  %b = f32[8,64]{1,0:T(8,128)} parameter(1)
  %all-reduce-start = f32[64]{0} all-reduce-start(%a), replica_groups=[2,8]<=[16], to_apply=%add
  %copy-start = (f32[8,64]{1,0:T(8,128)S(1)}, f32[8,64]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%b)
  %fusion.1 = f32[64]{0} fusion(%a), calls=%body, backend_config={"estimated_cycles":"30"}
  %copy-done = f32[8,64]{1,0:T(8,128)S(1)} copy-done(%copy-start)
  %fast = f32[8,64]{1,0:T(8,128)S(1)} negate(%copy-done), backend_config={"estimated_cycles":"12"}
  %all-reduce-done = f32[64]{0} all-reduce-done(%all-reduce-start)
  %sync = f32[64]{0} all-reduce-start(%fusion.1), replica_groups={}, backend_config={"is_sync":true}
  %sync-done = f32[64]{0} all-reduce-done(%sync)
  ROOT %fusion.2 = f32[4]{0} fusion(%all-reduce-done), kind=kLoop, calls=%fused_slice
}
"""


def test_an_exchange_that_runs_beside_other_operations_is_overlapped():
    assert exchanges(OVERLAPPED, 16) == [
        Exchange('all-reduce', bytes=256, group_size=8, overlapped=3),
        Exchange('all-reduce', bytes=256, group_size=16, overlapped=None),
    ]


# Of a program that XLA compiled for eight H100, shortened.
STARTS = """ENTRY %main (x: f32[16,4]) -> f32[2,4] {
  %x = f32[16,4]{1,0} parameter(0)
  %dot = f32[16,4]{1,0} custom-call(%x)
  %all-to-all-start = ((f32[16,4]{1,0}), f32[16,4]{1,0}) all-to-all-start(%dot)
  %all-to-all-done = f32[16,4]{1,0} all-to-all-done(%all-to-all-start)
  %reduce-scatter-start = ((f32[16,4]{1,0}), f32[2,4]{1,0}) reduce-scatter-start(%x)
  %all-gather-start = (f32[16,4]{1,0}, f32[128,4]{1,0}) all-gather-start(%x)
  %dot.1 = f32[16,4]{1,0} custom-call(%dot)
  %all-gather-done = f32[128,4]{1,0} all-gather-done(%all-gather-start)
  ROOT %reduce-scatter-done = f32[2,4]{1,0} reduce-scatter-done(%reduce-scatter-start)
}
"""


def test_an_exchange_that_was_started_has_the_size_of_its_result():
    assert exchanges(STARTS, 8) == [
        Exchange('all-to-all', bytes=256, group_size=8, overlapped=0),
        Exchange('reduce-scatter', bytes=32, group_size=8, overlapped=1),
        Exchange('all-gather', bytes=2048, group_size=8, overlapped=1),
    ]
    # Five operations read and write 256 bytes but for two results, of 32 and 2,048.
    assert memory_traffic(STARTS) == 3 * (256 + 256) + (256 + 32) + (256 + 2048)


def test_memory_traffic_leaves_out_fast_memory_and_unread_parts():
    reads_and_writes = 256 + 256
    assert memory_traffic(OVERLAPPED) == sum(
        [
            reads_and_writes,  # all-reduce-start
            8 * 256,  # copy-start reads from memory, writes to fast memory
            reads_and_writes,  # fusion.1
            reads_and_writes,  # sync-start
            4 * 4 + 4 * 4,  # fusion.2 reads a slice
        ]
    )


def chain(*lines):
    """The text of a program on f32[64] arrays, 256 bytes each, from 'b = a' lines."""
    body = [f'  %{result} = f32[64]{{0}} add({read})' for result, read in lines]
    return '\n'.join(
        ['ENTRY %main (a: f32[64]) -> f32[64] {', '  %a = f32[64]{0} parameter(0)', *body, '}']
    )


@pytest.mark.parametrize(
    ('cache', 'expected'),
    [
        # Reads of a, b, a, c, d and b; writes of b, c, d and e.
        (0, 256 * (6 + 4)),
        # One array is kept between operations: b, then c, d and the result. What else is read
        # comes from memory: a twice, b, and one of a and c; b has to be written to be read again.
        # The cache may begin with a.
        (256, 256 * (3 + 1) - 256),
        (1024, 0),
    ],
)
def test_a_cache_keeps_what_is_used_soonest(cache, expected):
    text = chain(('b', '%a'), ('c', '%b, %a'), ('d', '%c'), ('e', '%d, %b'))
    assert memory_traffic(text, cache) == expected


def least_traffic(accesses, cache):
    """Of all choices of what to keep, for arrays of one unit: every set of arrays is a state."""
    last = {array: step for step, access in enumerate(accesses) for array in access.reads}
    states = {frozenset(): 0}  # of (array, whether memory lacks it): least traffic until here
    for step, (reads, writes) in enumerate(accesses):
        following = {}
        for state, traffic in states.items():
            held = dict(state)
            traffic += len(reads.keys() - held)
            held = {**dict.fromkeys(reads, False), **held, **dict.fromkeys(writes, True)}
            held = {a: lacks for a, lacks in held.items() if last.get(a, math.inf) > step}
            for size in range(min(cache, len(held)) + 1):
                for kept in itertools.combinations(sorted(held), size):
                    total = traffic + sum(held[a] for a in held.keys() - set(kept))
                    after = frozenset((a, held[a]) for a in kept)
                    following[after] = min(total, following.get(after, math.inf))
        states = following
    return min(states.values())


def test_no_choice_of_what_a_cache_keeps_beats_the_bound():
    rng = np.random.default_rng(0)
    tight = 0
    for cache in (1, 2, 3) * 8:
        names, lines = ['a'], []
        for result in 'bcdefg':
            read = rng.choice(names, min(len(names), rng.integers(1, 3)), replace=False)
            lines.append((result, ', '.join(f'%{name}' for name in read)))
            names.append(result)
        text = chain(*lines)
        bound_ = memory_traffic(text, 256 * cache)
        least = 256 * least_traffic(_accesses(text), cache)
        assert max(0, least - 256 * cache) >= bound_
        tight += max(0, least - 256 * cache) == bound_
    assert tight > 12


def test_memory_traffic_of_a_compiled_program():
    text = compiled_text(lambda x: jnp.sin(x) + 1, jnp.ones(8))
    assert memory_traffic(text) == 2 * 8 * 4


def test_cycles_are_those_that_the_compiler_estimates():
    assert estimated_cycles(OVERLAPPED) == 42
    assert estimated_cycles('ENTRY %main') is None


@pytest.mark.parametrize('groups', [1, 2])
@pytest.mark.parametrize('dilation', [1, 2])
@pytest.mark.parametrize(('stride', 'padding'), [(1, 1), (2, 0), (2, 3)])
def test_nonzero_macs_are_the_sum_of_a_convolution_of_ones(stride, padding, dilation, groups):
    def conv(x, w):
        return jax.lax.conv_general_dilated(
            x,
            w,
            (stride, stride),
            [(padding, padding)] * 2,
            lhs_dilation=(dilation, 1),
            rhs_dilation=(1, dilation),
            dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
            feature_group_count=groups,
        )

    x, w = jnp.ones((2, 7, 9, 4)), jnp.ones((3, 3, 4 // groups, 6))
    (eqn,) = jax.make_jaxpr(conv)(x, w).eqns
    assert nonzero_macs_of(eqn) == int(np.sum(conv(x, w)))


def test_of_alternatives_for_platforms_the_cheapest_counts():
    def f(x, w):
        return jax.lax.platform_dependent(x, w, cpu=lambda x, w: x @ w @ w, default=jnp.matmul)

    x, w = jnp.ones((2, 3)), jnp.ones((3, 3))
    assert least_macs(jax.make_jaxpr(f)(x, w).jaxpr) == 2 * 3 * 3
    assert least_macs(jax.make_jaxpr(jax.jit(jax.grad(lambda w: f(x, w).sum())))(w).jaxpr) >= 18


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
        @property
        def compiler(self):
            return 'no_such_compiler'

    kind = Missing(**vars(V5E))
    with pytest.raises(
        ConfigError, match=r"no_such_compiler.*pip install -e '\.\[preflight-tpu\]'"
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
        exchanges=[Exchange('all-reduce', 8, 8, None)],
        compile_seconds=1.0,
    )


def found(*, search=False, decode_rate=None, **overrides):
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
        lambda step, images: cost(images),
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


def test_a_batch_that_does_not_fit_is_refused_with_the_largest_that_does():
    with pytest.raises(ConfigError, match=r'128 images a device do not fit v5e:2x4') as raised:
        found(batch_size=1024, search=True)
    assert 'needs 17 GiB of 16 GiB; 120 fit: --config.batch_size=960 on 8' in str(raised.value)
    with pytest.raises(ConfigError, match=r'of 16 GiB; lower --config\.batch_size'):
        found(batch_size=1024)


@pytest.mark.skipif(
    importlib.util.find_spec('libtpu') is None,
    reason='libtpu is not installed: pip install -e .[preflight-tpu]',
)
def test_a_config_compiles_for_a_tpu(capfd):
    run_tool(
        module,
        '--config=configs/digits_ssa20.py',
        '--topology=v5e:2x2',
        '--nosearch',
        '--format=json',
    )
    written = json.loads(capfd.readouterr().out)
    train = written['steps']['train']
    assert train['images_per_device'] == 16
    (exchange,) = train['exchanges']
    # Parameters, running means and variances of the BatchNorms and nine gates, 4 sums of metrics.
    statistics = 2 * (7 * 16 + 6 * 32 + 6 * 64 + 9)
    assert exchange['bytes'] == 4 * (269_740 + statistics + 4)
    assert train['cycles'] > 0
    assert written['verdict'].startswith('Compiles and fits v5e:2x2')


@pytest.mark.parametrize('recipe', ['digits_ssa20', 'imagenet_se50'])
def test_a_request_reaches_the_other_process_unchanged(recipe):
    config = load_config(recipe)
    config.optimizer.train_only = ('*/bn/*', 'fc/*')
    request = Request(config, 'v5e:2x4', 'train', 8, 10, 1437)
    received = _decode(_encode(request))
    assert received.config.to_dict() == config.to_dict()
    assert received[1:] == request[1:]
