"""Writes the tables of docs/ from the results in benchmarks/results.

    python benchmarks/tables.py

Replaces the text between `<!-- table: NAME -->` and `<!-- end -->`.
"""

import json
from collections.abc import Callable
from typing import Any

from common import ROOT, fill, format_machine, markdown, rates, spread
from target_tables import (
    devices,
    evaluation,
    limits,
    networks,
    preflights,
    summary,
    tails,
    targets,
)

RESULTS = ROOT / 'benchmarks/results'


def counts(result: dict[str, Any]) -> str:
    first = result['models'][0]
    header = ['training step', 'tails folded', 'GFLOP', 'GB accessed', 'ratio', 'GB temporaries']
    rows = [
        (
            r['model'],
            f'{r["tails"]["folded"]} of {sum(r["tails"].values())}',
            f'{r["flops"] / 1e9:.0f}',
            f'{r["bytes_accessed"] / 1e9:.2f}',
            f'{r["bytes_accessed"] / first["bytes_accessed"]:.3f}',
            f'{r["temporaries"] / 1e9:.2f}',
            f'{r["temporaries"] / first["temporaries"]:.3f}',
        )
        for r in result['models']
    ]
    return markdown([*header, 'ratio'], rows)


def times(result: dict[str, Any]) -> str:
    header = ['model', 'training, images/s', 'ratio in the same round', 'evaluation, images/s']
    header += ['ratio', 'folded BatchNorm, images/s']
    rows = [
        (
            r['model'],
            rates(r['train_images_per_second']),
            rates(r['train_speed_ratio']),
            rates(r['eval_images_per_second'], 1),
            rates(r['eval_speed_ratio']),
            rates(r['inference_images_per_second'], 1)
            if 'inference_images_per_second' in r
            else '-',
        )
        for r in result['models']
    ]
    return markdown(header, rows)


def compilation(result: dict[str, Any]) -> str:
    rows = [
        (r['model'], *(f'{r["compile_seconds"][start]:.1f}' for start in ('cold', 'warm')))
        for r in result['models']
    ]
    return markdown(['training step', 'cold, s', 'from the cache, s'], rows)


def all_reduces(result: dict[str, Any]) -> str:
    rows = [
        (r['model'], f'{r["all_reduces"]}', f'{r["all_reduce_bytes"] / 1e6:.1f}')
        for r in result['models']
    ]
    return markdown(['training step', 'all-reduces', 'MB in them'], rows)


def torch(result: dict[str, Any]) -> str:
    rows = [
        (
            r['contender'],
            rates(r['images_per_second']),
            rates(r['speed_ratio']),
            f'{r["first_step_seconds"]:.0f}',
        )
        for r in result['results']
    ]
    return markdown(['contender', 'images/s', 'ratio in the same round', 'first step, s'], rows)


def rounding(result: dict[str, Any]) -> str:
    names = ('output', 'worst gradient', 'running variance')
    grouped: dict[tuple[str, ...], dict[str, Any]] = {}
    for r in result['results']:
        grouped.setdefault((r['dtype'], r['attention'], r['regime']), {})[r['form']] = r
    rows = [
        (
            ', '.join((dtype, 'SSA' if attention == 'ssa' else 'no attention', regime)),
            *(
                f'{forms[form][name]["median"]:.1e}'
                for name in names
                for form in ('plain', 'folded')
            ),
        )
        for (dtype, attention, regime), forms in grouped.items()
    ]
    header = ['input', *(f'{name}, {form}' for name in names for form in ('plain', 'folded'))]
    return markdown(header, rows)


def costs(result: dict[str, Any]) -> str:
    total = sum(result['bytes'].values())
    rows = [
        (part, f'{size / 1e9:.2f}', f'{100 * size / total:.1f} %')
        for part, size in result['bytes'].items()
    ]
    return markdown([f'part of {result["model"]}', 'GB', 'share'], rows)


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    'counts': ('step.json', counts),
    'times': ('step.json', times),
    'costs': ('step_costs.json', costs),
    'compilation': ('step.json', compilation),
    'all_reduces': ('step_8_devices.json', all_reduces),
    'torch': ('vs_torch.json', torch),
    'rounding': ('tail_rounding.json', rounding),
    'tails': ('tail_traffic.json', tails),
    'summary': ('targets.json', summary),
    'targets': ('targets.json', targets),
    'limits': ('targets.json', limits),
    'evaluation': ('targets.json', evaluation),
    'devices': ('targets.json', devices),
    'networks': ('targets.json', networks),
}


def input_rates(result: dict[str, Any]) -> str:
    alone = result['rounds']['decode and crop alone']
    rows = []
    for name, values in result['rounds'].items():
        ratios = [value / other for value, other in zip(values, alone, strict=True)]
        rows.append((name, rates(result['images_per_second'][name], 0), rates(spread(ratios))))
    return markdown(['input', 'images/s', 'relative to decoding alone, same round'], rows)


def input_choices(result: dict[str, Any]) -> str:
    differences = result['difference_to_pil']
    settings = {
        'bilinear': 'bilinear, antialias=False',
        'bilinear, antialias': 'bilinear, antialias=True',
        'bicubic': 'bicubic, antialias=False',
        'bicubic, antialias': 'bicubic, antialias=True',
    }
    rows = []
    for name, speed in result['choices_images_per_second'].items():
        difference = rates(differences[settings[name]], 1) if name in settings else '-'
        rows.append((name, rates(speed, 0), difference))
    return markdown(['bytes in memory', 'images/s', 'gray levels from Pillow'], rows)


def decoders(result: dict[str, Any]) -> str:
    rows = [
        (
            f'{name}, {size}',
            rates(of['cpu_ms_per_image']),
            rates(of['cpu_rate_ratio']),
            str(of['largest_difference']),
        )
        for size in ('224 pixels', '112 pixels')
        for name, of in result[size].items()
    ]
    return markdown(['decoder', 'CPU ms per image', 'relative rate', 'largest difference'], rows)


def augmentation(result: dict[str, Any]) -> str:
    rows = [
        (name, *(rates(values[key]) for key in ('cpu_ms_per_image', 'cpu_rate_ratio')))
        for name, values in result['contenders'].items()
    ]
    return markdown(['crops', 'CPU ms per image', 'rate relative to plain, same round'], rows)


def accuracies(result: dict[str, Any]) -> str:
    """Final accuracies of the plain recipe, the first, and of the others."""
    plain = result['recipes'][0]
    rows = []
    for name in result['recipes']:
        difference = '-' if name == plain else rates(result['minus_plain'][name])
        rows.append((name, rates(result['final_top1'][name]), difference))
    return markdown(['recipe', 'top-1', 'minus plain, same seed'], rows)


def recipe_costs(result: dict[str, Any]) -> str:
    """What parts of recipes add to a compiled step."""
    rows = []
    for topology, programs in result['programs'].items():
        base = programs['plain']
        for part, counted in programs.items():
            cells = [
                f'{counted[name] / 1e9:.2f} ({counted[name] / base[name]:.3f})'
                for name in ('bytes_accessed', 'temporaries')
            ]
            rows.append((f'{topology}, {part}', *cells))
    return markdown(['training step', 'GB (ratio to plain)', 'GB of temporaries'], rows)


def predictions(result: dict[str, Any]) -> str:
    rows = []
    for run in result['runs']:
        name = run['config'].removeprefix('configs/').removesuffix('.py')
        for by in ('predicted', 'evaluated'):
            counts = run[by]
            rows.append(
                (
                    f'{name}, step {run["step"]}, {by}',
                    f'{counts["images"]:,}',
                    f'{counts["top1_correct"]:,}',
                    f'{counts["top5_correct"]:,}',
                    f'{counts["loss"]:.7f}',
                )
            )
    return markdown(['run', 'images', 'top-1 correct', 'top-5 correct', 'mean loss'], rows)


DATA_TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    'input': ('input.json', input_rates),
    'choices': ('input.json', input_choices),
    'decoders': ('decoders.json', decoders),
}


def main() -> None:
    for document, tables in {
        'performance.md': TABLES,
        'data.md': DATA_TABLES,
        'preflight.md': {'preflights': ('preflight.json', preflights)},
        'augmentation.md': {'augmentation': ('augmentation.json', augmentation)},
        'recipes.md': {
            'digits': ('recipes.json', accuracies),
            'fashion_mnist': ('recipes_fashion_mnist.json', accuracies),
            'costs': ('recipe_costs.json', recipe_costs),
        },
        'trained.md': {
            'predictions': ('predictions.json', predictions),
        },
    }.items():
        blocks = {}
        for name, (file, make) in tables.items():
            result = json.loads((RESULTS / file).read_text())
            if 'machine' in result:
                versions = format_machine(result['machine'] | result.get('torch', {}))
            else:
                distinct = dict.fromkeys(map(format_machine, result['versions'].values()))
                versions = '; '.join(distinct)
            source = f'[{file}](../benchmarks/results/{file}): {versions}.'
            blocks[name] = f'{make(result)}\n\n{source}'
        fill(ROOT / 'docs' / document, blocks)


if __name__ == '__main__':
    main()
