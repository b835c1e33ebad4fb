r"""Converts weights from torch and back, and compares logits each time.

    pip install -e .[torch] torchvision timm
    python benchmarks/torch_parity.py --out=benchmarks/results/torch_parity.json

Covers every network of torchvision and timm that is implemented here, with random weights and
statistics. The state_dict, saved by torch.save and read again, is converted to variables, and
logits of two random images at 224 pixels are compared. The variables are converted back to a
state_dict, which a second torch network loads strictly; all arrays and the logits are compared
with those of the first.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ['JAX_PLATFORMS'] = 'cpu'  # accelerators round float32 products

import jax
import numpy as np
import torch
from common import machine, register_torchvision_operators, write

register_torchvision_operators()

import timm
import torchvision

from ssanet_jax import create_model, weights

TORCHVISION = ['resnet18', 'resnet34', 'resnet50', 'resnet101', 'resnet152']
TORCHVISION += ['resnext50_32x4d', 'resnext101_32x8d', 'resnext101_64x4d']
TORCHVISION += ['wide_resnet50_2', 'wide_resnet101_2']
TORCHVISION += ['vgg11_bn', 'vgg13_bn', 'vgg16_bn', 'vgg19_bn']
TORCHVISION += ['densenet121', 'densenet161', 'densenet169', 'densenet201', 'mobilenet_v2']
TIMM = {name: name for name in ('resnet50', 'resnet50d', 'resnext50_32x4d', 'wide_resnet50_2')}
TIMM |= {'vgg16_bn': 'vgg16_bn', 'densenet121': 'densenet121', 'se_resnet50': 'seresnet50'}
TIMM |= {f'preact_resnet{depth}': f'resnetv2_{depth}' for depth in (18, 34, 50, 101, 152)}
TIMM |= {'mobilenet_v1': 'mobilenetv1_100', 'mobilenet_v2': 'mobilenetv2_100'}
ATTENTION = {'eca_resnet50': 'eca', 'cbam_resnet50': 'cbam'}

Case = tuple[str, str, Callable[[], torch.nn.Module]]


def cases() -> list[Case]:
    """Our name, the library, and a function that makes its network, of each case."""
    googlenet = partial(torchvision.models.googlenet, aux_logits=False, init_weights=False)
    return [
        *((name, 'torchvision', getattr(torchvision.models, name)) for name in TORCHVISION),
        ('googlenet', 'torchvision', googlenet),
        *((ours, 'timm', partial(timm.create_model, name)) for ours, name in TIMM.items()),
        *(
            (ours, 'timm', partial(timm.create_model, 'resnet50', block_args={'attn_layer': kind}))
            for ours, kind in ATTENTION.items()
        ),
    ]


def randomize(network: torch.nn.Module) -> None:
    """Sets statistics and scales to random values, unlike those of a new network."""
    for name, values in network.state_dict().items():
        if name.endswith('running_mean') or (values.ndim == 1 and name.endswith('bias')):
            values.normal_(0, 0.1)
        elif name.endswith('running_var') or (values.ndim == 1 and name.endswith('weight')):
            values.uniform_(0.8, 1.2)


def compare(ours: str, library: str, make: Callable[[], torch.nn.Module], folder: Path) -> dict:
    network = make().eval()
    randomize(network)
    path = folder / 'weights.pth'
    torch.save(network.state_dict(), path)

    options: dict[str, Any] = {'attention_options': {'mlp_bias': False}} if 'cbam' in ours else {}
    model = create_model(ours, num_classes=1000, **options)
    variables = weights.from_torch(weights.load(path), model)
    images = np.random.default_rng(0).normal(size=(2, 224, 224, 3)).astype(np.float32)
    logits = np.asarray(jax.jit(partial(model.apply, train=False))(variables, images))

    state_dict = weights.to_torch(variables, model, naming=library)
    second = make().eval()
    second.load_state_dict(state_dict, strict=True)
    there = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        expected, again = network(there).numpy(), second(there).numpy()
    first = network.state_dict()
    return {
        'network': ours,
        'library': library,
        'arrays': len(first),
        'largest_difference_of_logits': float(abs(logits - expected).max() / abs(expected).max()),
        'arrays_equal': all(torch.equal(first[name], state_dict[name]) for name in first),
        'logits_equal': bool(np.array_equal(expected, again)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, required=True, help='JSON file to write')
    arguments = parser.parse_args()

    torch.manual_seed(0)
    results = []
    for case in cases():
        with tempfile.TemporaryDirectory() as folder:
            results.append(compare(*case, Path(folder)))
        print(results[-1], flush=True)
    environment = machine('jax', 'flax', 'torch', 'torchvision', 'timm')
    command = f'python benchmarks/torch_parity.py --out={arguments.out}'
    write(arguments.out, {'command': command, 'machine': environment, 'results': results})


if __name__ == '__main__':
    main()
