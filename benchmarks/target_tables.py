"""Tables of steps compiled by targets.py and tail_traffic.py, for tables.py."""

import json
import math
from typing import Any

from common import ROOT, markdown, rates, spread

STEP = ROOT / 'benchmarks/results/step.json'
# The most that a training step may cost relative to a baseline's.
LIMITS = ROOT / 'benchmarks/limits.json'

UNITS = {
    'cycles': ('M cycles', 1e6, 1),
    'bytes': ('GB', 1e9, 1),
    'temporaries': ('GB temporaries', 1e9, 2),
}


def summary(result: dict[str, Any]) -> str:
    """What attention adds to a training step of ResNet-50: timed on the CPU, else counted."""
    pairs = [
        ('ssa_resnet50:auto', 'resnet50:auto'),
        ('se_resnet50:auto', 'resnet50:auto'),
        ('ssa_resnet50:auto', 'resnet50:flax'),
    ]
    timed = {
        r['model']: r['train_images_per_second']['rounds']
        for r in json.loads(STEP.read_text())['models']
    }
    slower = []
    for names in pairs[:2]:  # step.py's network of Flax's layers is another
        program, base = (timed[name.removesuffix(':auto')] for name in names)
        slower.append(rates(spread([b / p for p, b in zip(program, base, strict=True)])))
    rows = [('CPU', 'time, measured', *slower, '-')]
    for target, programs in result['programs'].items():
        count = 'cycles' if programs['resnet50:auto']['cycles'] else 'bytes'
        ratios = (ratio(programs, count, *pair) for pair in pairs)
        rows.append((target, f'{count}, compiled', *(f'{r:.2f}' if r else '-' for r in ratios)))
    header = ['device', 'count', 'SSA / ResNet-50', 'SE / ResNet-50', "SSA / Flax's ResNet-50"]
    return markdown(header, rows)


def limits(result: dict[str, Any]) -> str:
    rows = []
    for limit in json.loads(LIMITS.read_text()):
        target, count, program, baseline, most = limit.values()
        value = ratio(result['programs'][target], count, program, baseline)
        assert value is not None
        met = 'yes' if value <= most else 'no'
        rows.append((f'{target}, {count}, {program} / {baseline}', f'{value:.3f}', f'{most}', met))
    return markdown(['training step', 'ratio', 'limit', 'met'], rows)


def ratio(programs: dict[str, Any], count: str, program: str, base: str) -> float | None:
    """A count of a program relative to another's; None if that was not compiled."""
    return programs[program][count] / programs[base][count] if base in programs else None


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
    table = markdown(['attention, N x H x K x C', *header, "'auto'"], rows)
    worse = (
        f'{worse_choices(result["results"], target, count)} on {name.partition(",")[0]}'
        for target, (count, _, name) in columns.items()
    )
    return f"{table}\n\n'auto' takes the worse form in {', '.join(worse)}."


def worse_choices(results: dict[str, Any], target: str, count: str) -> str:
    """How many tails cost more in the form of 'auto' than in the other, and at most how much."""
    costs = []  # of the form that 'auto' takes, relative to the cheaper one
    for tail in results.values():
        plain, folded = (tail[target][form][count] for form in ('plain', 'folded'))
        costs.append((folded if tail['auto'] == 'folded' else plain) / min(plain, folded))
    return f'{sum(c > 1 for c in costs)} of {len(costs)} (up to {100 * max(costs) - 100:.0f}% more)'


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
    header = ['devices, images each', 'gradients exchanged in', 'all-reduces (overlapped)', 'MB']
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
    relative = f' ({counted[name] / base[name]:.2f})' if base and base.get(name) else ''
    return f'{counted[name] / scale:,.{digits}f}{relative}'
