"""Tables of steps compiled by targets.py and tail_traffic.py, for tables.py."""

import json
import math
from typing import Any

from common import ROOT, markdown

STEP = ROOT / 'benchmarks/results/step.json'

UNITS = {
    'cycles': ('M cycles', 1e6, 1),
    'bytes': ('GB', 1e9, 1),
    'temporaries': ('GB temporaries', 1e9, 2),
}


def summary(result: dict[str, Any]) -> str:
    """Training steps relative to plain ResNet-50: timed on the CPU, counted on the others."""
    timed = {r['model']: r for r in json.loads(STEP.read_text())['models']}
    rows = []
    for network in ('resnet50', 'ssa_resnet50', 'se_resnet50'):
        ratio = timed[network]['train_speed_ratio']
        low, high = 1 / ratio['highest'], 1 / ratio['lowest']
        compiled = (
            programs[f'{network}:auto'][count] / programs['resnet50:flax'][count]
            for programs, count in (
                (result['programs']['v5e'], 'cycles'),
                (result['programs']['h100'], 'bytes'),
            )
        )
        time = f'{1 / ratio["median"]:.2f} ({low:.2f} to {high:.2f})'
        rows.append((network, time, *(f'{value:.2f}' for value in compiled)))
    header = 'CPU, time, measured', 'TPU v5e, cycles, compiled', 'H100, bytes, compiled'
    return markdown(['training step', *header], rows)


def targets(result: dict[str, Any]) -> str:
    """The forms of the networks that flax's layers were compiled for, relative to its ResNet-50."""
    return forms(result, 'training step', '')


def evaluation(result: dict[str, Any]) -> str:
    """The same for a forward pass."""
    return forms(result, 'forward pass', ':evaluation')


def forms(result: dict[str, Any], title: str, suffix: str) -> str:
    rows = []
    for target, programs in result['programs'].items():
        if base := programs.get(f'resnet50:flax{suffix}'):
            for program in compared(programs):
                if counted := programs.get(f'{program}{suffix}'):
                    rows.append((f'{target}, {program}', *cells(counted, base)))
    return markdown([title, *(unit for unit, _, _ in UNITS.values())], rows)


def devices(result: dict[str, Any]) -> str:
    """The networks on the other devices."""
    rows = [
        (f'{target}, {program}', *cells(counted))
        for target, programs in result['programs'].items()
        if 'resnet50:flax' not in programs
        for program, counted in programs.items()
    ]
    return markdown(['training step', *(unit for unit, _, _ in UNITS.values())], rows)


def networks(result: dict[str, Any]) -> str:
    """All other networks on the devices of `targets`, side by side."""
    columns = [
        (target, programs, name)
        for target, programs in result['programs'].items()
        if 'resnet50:flax' in programs
        for name in UNITS
        if programs['resnet50:flax'].get(name)  # GPUs' compilers estimate no cycles
    ]
    header = ['training step', *(f'{target}, {UNITS[name][0]}' for target, _, name in columns)]
    others = dict.fromkeys(
        program
        for _, p, _ in columns
        for program in p
        if program.removesuffix(':evaluation') not in compared(p)
    )
    rows = [
        (program, *(cell(p.get(program, {}), name) for _, p, name in columns)) for program in others
    ]
    return markdown(header, rows)


def tails(result: dict[str, Any]) -> str:
    """Both forms of a tail by shape, from tail_traffic.py, and the one that 'auto' chooses."""
    columns = {  # the count, its unit, the name of both
        'cpu': ('bytes', 1e6, 'CPU, MB'),
        'v5e': ('cycles', 1e3, 'v5e, k cycles'),
        'h100': ('bytes', 1e6, 'H100, MB'),
    }
    rows = [
        (
            name.replace('ssa', 'SSA').replace('se,', 'SE,'),
            *(
                f'{of[target][form].get(count, math.nan) / unit:,.0f}'
                for target, (count, unit, _) in columns.items()
                for form in ('plain', 'folded')
            ),
            of['auto'],
        )
        for name, of in result['results'].items()
    ]
    header = [f'{name}, {form}' for *_, name in columns.values() for form in ('plain', 'folded')]
    return markdown(['attention, N x H x K x C', *header, "'auto'"], rows)


def preflights(result: dict[str, Any]) -> str:
    """What devices exchange in a training step, and what follows from the bound."""
    rows = []
    for run in result['runs'].values():
        step = run['steps']['train']
        config = run['config']
        sizes = [c['bytes'] for c in step['collectives']]
        overlapped = sum(bool(c['overlapped']) for c in step['collectives'])
        rows.append(
            (
                f'{run["topology"]}, {step["images_per_device"]}, {config["dtype"]}',
                config['all_reduce_dtype'],
                f'{len(sizes)} ({overlapped})',
                f'{sum(sizes) / 1e6:.1f}',
                f'{1e3 * step["bound_seconds"]["step"]:.2f}',
                f'{step["bound_images_per_second"]:,.0f}',
                f'{run["host_cores"]}',
            )
        )
    header = ['devices, images each', 'gradients cross in', 'all-reduces (overlapped)', 'MB']
    return markdown([*header, 'bound, ms', 'images/s at most', 'host cores'], rows)


def compared(programs: dict[str, Any]) -> list[str]:
    """Programs of the networks that were also compiled with flax's layers, by form."""
    names = {name.removesuffix(':flax') for name in programs if name.endswith(':flax')}
    chosen = [p for p in programs if p.count(':') == 1 and p.partition(':')[0] in names]
    return sorted(chosen, key=lambda program: program.partition(':')[2])


def cells(counted: dict[str, Any], base: dict[str, Any] | None = None) -> list[str]:
    return [cell(counted, name, base) for name in UNITS]


def cell(counted: dict[str, Any], name: str, base: dict[str, Any] | None = None) -> str:
    """One of `UNITS`, in parentheses relative to `base`."""
    if 'error' in counted:
        return 'does not compile'
    if not counted.get(name):
        return '-'
    _, scale, digits = UNITS[name]
    ratio = f' ({counted[name] / base[name]:.2f})' if base and base.get(name) else ''
    return f'{counted[name] / scale:,.{digits}f}{ratio}'
