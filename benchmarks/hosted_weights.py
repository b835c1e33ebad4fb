r"""Writes the table of weights that torchvision and timm host for the networks of this package.

    pip install -e .[torch] torchvision timm
    python benchmarks/hosted_weights.py --results=results-imagenet.csv

It also fills the table of docs/publish.md.

Addresses, checksums, preprocessing and licenses are those of the installed libraries; so are
torchvision's accuracies. Those of timm's weights are measured by its author: results/
results-imagenet.csv of https://github.com/huggingface/pytorch-image-models. Weights are listed if
the names and shapes of the network there convert to one here, and they classify ImageNet.
"""

import argparse
import csv
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from common import ROOT, fill, markdown, register_torchvision_operators

register_torchvision_operators()

import timm
import torchvision

from ssanet_jax import create_model, weights
from ssanet_jax.models.registry import NETWORKS

OUT = ROOT / 'ssanet_jax/pretrained/hosted.json'

# Names in timm, where they differ from those here.
TIMM = {f'seresnet{depth}': f'se_resnet{depth}' for depth in (50, 101, 152)}
TIMM |= {f'seresnext{size}': f'se_resnext{size}' for size in ('50_32x4d', '101_32x8d', '101_64x4d')}
TIMM |= {f'resnetv2_{depth}': f'preact_resnet{depth}' for depth in (18, 34, 50, 101, 152)}
TIMM |= {'ecaresnet50d': 'eca_resnet50d'}
TIMM |= {'mobilenetv1_100': 'mobilenet_v1', 'mobilenetv2_100': 'mobilenet_v2'}
CLASSES = 1000
# torchvision's GoogLeNet turns images normalized by ImageNet's statistics into these.
GOOGLENET = {'mean': [0.5] * 3, 'std': [0.5] * 3}


def of_torchvision() -> Iterator[dict[str, Any]]:
    for name in NETWORKS:
        if name not in torchvision.models.list_models(module=torchvision.models):
            continue
        options = {'init_weights': False} if name == 'googlenet' else {}
        network = torchvision.models.get_model(name, **options)
        if not fits(name, network.state_dict()):
            continue
        for entry in torchvision.models.get_model_weights(name):
            shown = entry.transforms()
            accuracy = entry.meta['_metrics']['ImageNet-1K']
            yield {
                'source': f'torchvision://{name}.{entry.name}',
                'network': name,
                'address': entry.url,
                'sha256': re.search(r'-([0-9a-f]{8,})\.pth$', entry.url)[1],
                'top1': accuracy['acc@1'],
                'top5': accuracy['acc@5'],
                'license': entry.meta.get('license'),
                'preprocessing': {
                    'size': shown.crop_size[0],
                    'resize': shown.resize_size[0],
                    'interpolation': shown.interpolation.value,
                    'mean': shown.mean,
                    'std': shown.std,
                    **(GOOGLENET if name == 'googlenet' else {}),
                },
            }


def of_timm(results: dict[tuple[str, int], dict[str, str]]) -> Iterator[dict[str, Any]]:
    for theirs, ours in ({name: name for name in NETWORKS} | TIMM).items():
        tags = timm.list_pretrained(f'{theirs}.*') if timm.is_model(theirs) else []
        if tags and fits(ours, timm.create_model(theirs).state_dict()):
            yield from filter(None, (_of_tag(ours, tag, results) for tag in tags))


def _of_tag(
    network: str, tag: str, results: dict[tuple[str, int], dict[str, str]]
) -> dict[str, Any] | None:
    shown = timm.get_pretrained_cfg(tag)
    size = shown.input_size[-1]
    measured = results.get((tag, size))
    if shown.num_classes != CLASSES or not shown.hf_hub_id or not measured:
        return None
    if shown.crop_mode != 'center' or abs(float(measured['crop_pct']) - shown.crop_pct) > 5e-4:
        return None
    return {
        'source': f'timm://{tag}',
        'network': network,
        'address': shown.hf_hub_id,
        'sha256': None,
        'top1': float(measured['top1']),
        'top5': float(measured['top5']),
        'license': shown.license,
        'preprocessing': {
            'size': size,
            'resize': math.floor(size / shown.crop_pct),
            'interpolation': shown.interpolation,
            'mean': shown.mean,
            'std': shown.std,
        },
    }


def fits(name: str, state_dict: dict[str, torch.Tensor]) -> bool:
    """Whether the names and shapes are those of the network `name` here."""
    try:
        weights.from_torch(state_dict, create_model(name, num_classes=CLASSES), ignore=['aux*'])
    except ValueError as error:
        print(f'{name} is left out: {str(error)[:200]}')
        return False
    return True


def summary(entries: list[dict[str, Any]]) -> str:
    """The most accurate weights of each network by library, as a table."""
    rows = []
    for network in dict.fromkeys(entry['network'] for entry in entries):
        row = [f'`{network}`']
        for scheme in ('torchvision', 'timm'):
            of_both = [e for e in entries if e['network'] == network]
            hosted = [e for e in of_both if e['source'].startswith(scheme)]
            best = max(hosted, key=lambda entry: entry['top1'], default=None)
            name = best and best['source'].partition('://')[2]
            row.append(f'{best["top1"]:.2f} `{name}`' if best else '-')
        rows.append([*row, str(len(of_both))])
    return markdown(['network', 'torchvision, top-1', 'timm, top-1', 'sets'], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--results', type=Path, required=True)
    with parser.parse_args().results.open() as file:
        results = {(row['model'], int(row['img_size'])): row for row in csv.DictReader(file)}
    entries = [*of_torchvision(), *of_timm(results)]
    lines = ',\n  '.join(json.dumps(entry) for entry in entries)
    versions = {'torchvision': torchvision.__version__, 'timm': timm.__version__}
    OUT.write_text(f'{{"versions": {json.dumps(versions)},\n"weights": [\n  {lines}\n]}}\n')
    fill(ROOT / 'docs/publish.md', {'hosted': summary(entries)})


if __name__ == '__main__':
    main()
