"""What `ssanet preflight` found, as a table, as JSON and as one line."""

import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from ssanet_jax.tables import Column, Table, si_format, thousands
from ssanet_jax.targets.bound import Bound
from ssanet_jax.targets.device_type import DeviceType
from ssanet_jax.tools.batch_search import Attempt
from ssanet_jax.tools.compile_step import Step, StepCost
from ssanet_jax.tools.preflight_data import size_notes


class Target(NamedTuple):
    """What to compile for."""

    kind: DeviceType
    topology: str
    num_devices: int


class Preflight(NamedTuple):
    """What was found.

    Attributes:
      images: in the batch of one device, for each step.
      costs: of each compiled step.
      bounds: of each compiled step.
      batches: training batches of one device that were tried, with the memory that they need.
      device_hours: of the whole schedule at the bound.
      decode_rate: images per second that one host core prepares, or None if not known.
    """

    target: Target
    images: dict[Step, int]
    costs: dict[Step, StepCost]
    bounds: dict[Step, Bound]
    batches: dict[int, Attempt]
    device_hours: float
    decode_rate: float | None

    @property
    def host_cores(self) -> int | None:
        """Cores, on all hosts, whose input is as fast as the bound; None if not known."""
        if self.decode_rate is None:
            return None
        images = self.images['train'] * self.target.num_devices
        return math.ceil(images / self.bounds['train'].seconds / self.decode_rate)

    @property
    def largest_batch(self) -> int:
        """The largest batch of one device that was compiled and fits."""
        return max(batch for batch, attempt in self.batches.items() if attempt.fits)


def verdict(config: ConfigDict, found: Preflight) -> str:
    """One line: whether it compiles and fits, the bound and what follows from it."""
    kind, topology, num_devices = found.target
    cost, limit = found.costs['train'], found.bounds['train']
    rate = config.batch_size / limit.seconds
    larger = f'; the largest batch that was compiled and fits has {found.largest_batch}'
    larger = larger if len(found.batches) > 1 else ''
    return (
        f'Compiles and fits {topology}: {binary(cost.memory)} of {binary(kind.usable_memory)} on a '
        f'device with {found.images["train"]} images{larger}. Bound, not a measurement: '
        f'{_duration(limit.seconds)} a step ({limit.limited_by}), at most {rate:,.0f} '
        f'images/s on {num_devices} {plural("device", num_devices)}, at least '
        f'{found.device_hours:,.3g} device-hours for the schedule at '
        f'{config.dataset.image_size} pixels.'
    )


def does_not_fit(images: int, batches: dict[int, Attempt], target: Target, available: float) -> str:
    needed = batches[images].needed
    needs = f'needs {binary(needed)}' if needed else 'exceeds the memory'
    fitting = max((batch for batch, attempt in batches.items() if attempt.fits), default=0)
    remedy = 'lower --config.batch_size, or use more devices'
    if fitting:
        remedy = (
            f'{fitting} would fit: --config.batch_size={fitting * target.num_devices} on '
            f'{target.num_devices} {plural("device", target.num_devices)}'
        )
    failures = [f' A batch of {b} fails: {a.error}' for b, a in batches.items() if a.error]
    return (
        f'A batch of {images} per device does not fit {target.topology}: the training step '
        f'{needs} of {binary(available)}; {remedy}.{"".join(failures)}'
    )


def table(config: ConfigDict, found: Preflight, versions: dict[str, str]) -> Table:
    """The table of both steps, with notes; `versions` are those of `versions_of`."""
    columns = [
        Column('on one device', left=True),
        Column('training step'),
        Column('evaluation step'),
    ]
    steps = [(found.images[s], found.costs[s], found.bounds[s]) for s in ('train', 'eval')]
    rows = [(name, *(text(*step) for step in steps)) for name, text in _rows(found.target).items()]
    cores = '-' if found.host_cores is None else thousands(found.host_cores)
    rows.append(('host cores that keep all devices busy', cores, '-'))
    title = (
        f'{config.model.name}, {config.dtype}, {config.dataset.image_size} pixels, batch '
        f'{config.batch_size} on {found.target.topology} '
        f'({found.target.num_devices} {plural("device", found.target.num_devices)})'
    )
    return Table(title, columns, rows, [*size_notes(config), *_notes(found, versions)])


def _rows(target: Target) -> dict[str, Callable[[int, StepCost, Bound], str]]:
    """The rows of the table: functions of a step's images, cost and bound."""
    kind, _, num_devices = target
    usable = kind.usable_memory
    return {
        'images': lambda n, cost, limit: thousands(n),
        'arguments': lambda n, cost, limit: binary(cost.arguments),
        'outputs': lambda n, cost, limit: binary(cost.outputs),
        'temporaries': lambda n, cost, limit: binary(cost.temporaries),
        'program': lambda n, cost, limit: binary(cost.code),
        f'memory, of {binary(usable)}': lambda n, cost, limit: (
            f'{binary(cost.memory)}, {100 * cost.memory / usable:.1f}%'
        ),
        'FLOPs': lambda n, cost, limit: _count(cost.flops),
        'bytes accessed': lambda n, cost, limit: _count(cost.bytes_accessed),
        'bytes from and to memory, at least': lambda n, cost, limit: _count(cost.traffic),
        'cycles, estimated by the compiler': lambda n, cost, limit: (
            '-' if cost.cycles is None else _count(cost.cycles)
        ),
        'collectives between devices': lambda n, cost, limit: describe_collectives(cost),
        'bound: compute': lambda n, cost, limit: _duration(limit.compute),
        'bound: memory': lambda n, cost, limit: _duration(limit.memory),
        'bound: interconnect': lambda n, cost, limit: _duration(limit.interconnect),
        'no step is faster than': lambda n, cost, limit: _duration(limit.seconds),
        'images/s on all devices, at most': lambda n, cost, limit: thousands(
            round(n * num_devices / limit.seconds)
        ),
        'compile time': lambda n, cost, limit: f'{cost.compile_seconds:.0f} s',
    }


def describe_collectives(cost: StepCost) -> str:
    """'1 all-reduce, 102.4 M bytes, not overlapped'."""
    if not cost.collectives:
        return 'none'
    parts = []
    for kind in dict.fromkeys(collective.kind for collective in cost.collectives):
        same = [collective for collective in cost.collectives if collective.kind == kind]
        size = sum(collective.bytes for collective in same)
        overlapped = sum(bool(collective.overlapped) for collective in same)
        parts.append(f'{len(same)} {kind}, {_count(size)} bytes, {overlapped or "not"} overlapped')
    return '; '.join(parts)


def _notes(found: Preflight, versions: dict[str, str]) -> list[str]:
    kind = found.target.kind
    notes = [
        'The bound follows from published peak rates and is not a measurement: real steps are '
        f'slower. Rates of {kind.name}: {kind.peak_flops / 1e12:g} TFLOP/s in bfloat16, memory '
        f'{kind.bandwidth / 1e9:g} GB/s, interconnect {kind.link_bandwidth / 1e9:g} GB/s '
        f'({kind.source}).',
        f'Schedule at the bound: {found.device_hours:,.3g} device-hours.',
    ]
    if found.decode_rate is not None:
        notes.append(
            f'Host cores at the bound, if one prepares {found.decode_rate:,.0f} images/s '
            '(--decode_rate).'
        )
    if kind.usable_memory < kind.memory:
        notes.append(
            f'{binary(kind.usable_memory)} of {binary(kind.memory)} is what JAX allocates; set '
            'XLA_CLIENT_MEM_FRACTION for more.'
        )
    if len(found.batches) > 1:
        tried = ', '.join(
            f'{batch} {_outcome(attempt)}' for batch, attempt in sorted(found.batches.items())
        )
        notes.append(f'Images in the training batch of a device: {tried}.')
    return [*notes, f'Compiled with {", ".join(f"{k} {v}" for k, v in versions.items())}.']


def _outcome(attempt: Attempt) -> str:
    if attempt.error:
        return f'fails ({attempt.error})'
    needs = '' if attempt.needed is None else f' ({binary(attempt.needed)})'
    return f'{"fits" if attempt.fits else "does not"}{needs}'


def data(config: ConfigDict, found: Preflight, versions: dict[str, str]) -> dict[str, Any]:
    """What --format=json prints and --out writes; bytes, seconds and counts."""
    kind, topology, num_devices = found.target
    return {
        'verdict': verdict(config, found),
        'config': json.loads(config.to_json_best_effort()),
        'topology': topology,
        'num_devices': num_devices,
        'device': {
            'name': kind.name,
            'memory': kind.memory,
            'usable_memory': kind.usable_memory,
            'bandwidth': kind.bandwidth,
            'peak_flops': kind.peak_flops,
            'link_bandwidth': kind.link_bandwidth,
            'source': kind.source,
        },
        'versions': versions,
        'steps': {
            step: {
                'images_per_device': found.images[step],
                **found.costs[step]._asdict(),
                'memory': found.costs[step].memory,
                'collectives': [c._asdict() for c in found.costs[step].collectives],
                'bound_seconds': {**limit._asdict(), 'step': limit.seconds},
                'bound_images_per_second': found.images[step] * num_devices / limit.seconds,
            }
            for step, limit in found.bounds.items()
        },
        'largest_images_per_device': found.largest_batch if len(found.batches) > 1 else None,
        'tried_images_per_device': {b: a._asdict() for b, a in sorted(found.batches.items())},
        'bound_device_hours': found.device_hours,
        'decode_images_per_second_per_core': found.decode_rate,
        'host_cores': found.host_cores,
    }


def binary(size: float) -> str:
    """Formats bytes with four digits and a unit.

    >>> binary(5.5 * 2**20)
    '5.5 MiB'
    """
    for unit, power in (('KiB', 10), ('MiB', 20), ('GiB', 30)):  # noqa: B007
        if size < 1000 * 2**power:
            break
    return f'{size / 2**power:.4g} {unit}'


def _count(value: float) -> str:
    return si_format(value) if value >= 1e6 else thousands(round(value))


def _duration(seconds: float) -> str:
    """'5.13 ms' or '51.3 µs'."""
    return f'{1e3 * seconds:.3g} ms' if seconds >= 1e-3 else f'{1e6 * seconds:.3g} µs'


def plural(word: str, number: int) -> str:
    return word if number == 1 else f'{word}s'
