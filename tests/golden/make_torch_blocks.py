"""Writes blocks.json: outputs of reference implementations of attention blocks, in float64.

    pip install torch==2.13.0 torchvision==0.28.0 timm==1.0.31
    pip install segmentation-models-pytorch==0.5.0 --no-deps
    git clone https://github.com/AmigoCDT/Salient-Net && git -C Salient-Net checkout b7e19f6
    python tests/golden/make_torch_blocks.py Salient-Net

With the weights of rule.py and a random feature map, in inference mode, and in training mode for
blocks with BatchNorm: the output, and the gradients of sum(output * cotangent) for another random
map. Arrays are stored as digests and as their dot product with a third array, which depends on the
order of values.
"""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

# A CPU build of torch lacks the operators that torchvision registers shapes for.
library = torch.library.Library('torchvision', 'DEF')
library.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
library.define('qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')

import rule
import segmentation_models_pytorch
import timm
import torchvision
from segmentation_models_pytorch.base.modules import SCSEModule
from timm import layers
from timm.layers.cbam import CbamModule
from timm.layers.coord_attn import CoordAttn
from timm.layers.mlp import ConvMlp
from torch import nn

BATCH, CHANNELS, HEIGHT, WIDTH = 2, 64, 9, 7
HIDDEN = CHANNELS // 16

# Before a BatchNorm, which cancels them in training mode; in inference mode they are set to 0.
CANCELLED = {'coordinate bias': 'conv1.bias', 'released spatial': 'sa_ops.0.bias'}


def gather_excite(*, extent: int, conv: bool = False, mlp: bool = False) -> nn.Module:
    """Timm's GatherExcite, whose `forward` is timm's in every case.

    With parameters its __init__ fails: it passes `*dd` instead of `**dd`, so that the names
    'device' and 'dtype' become positional arguments. The layers are made here as intended, but
    without the padding that makes the convolution of extent 0 return a map instead of one value.
    """
    block = layers.GatherExcite(CHANNELS, extent=extent, use_mlp=False)
    if mlp:
        block.mlp = ConvMlp(CHANNELS, HIDDEN, act_layer=nn.ReLU)
    if conv:
        block.gather = nn.Sequential()
        count = extent.bit_length() - 1 if extent else 1
        options = {'kernel_size': 3, 'stride': 2}
        if extent == 0:
            options = {'kernel_size': (HEIGHT, WIDTH), 'padding': 0}
        for number in range(1, count + 1):
            convolution = layers.create_conv2d(CHANNELS, CHANNELS, depthwise=True, **options)
            block.gather.add_module(f'conv{number}', convolution)
            block.gather.add_module(f'norm{number}', nn.BatchNorm2d(CHANNELS))
            if number < count:
                block.gather.add_module(f'act{number}', nn.ReLU())
    return block


def make_blocks(released: ModuleType) -> dict[str, nn.Module]:
    """All blocks; `released` is the module of SSANet's authors."""
    return {
        'eca': layers.EcaModule(CHANNELS),
        'eca 5': layers.EcaModule(kernel_size=5),
        'cbam': CbamModule(CHANNELS),
        'cbam bias': CbamModule(CHANNELS, mlp_bias=True),
        'se': layers.create_attn('se', CHANNELS),  # as seresnet50 makes it
        **{f'ge {extent}': gather_excite(extent=extent) for extent in (0, 2, 4, 8)},
        **{f'ge {extent} mlp': gather_excite(extent=extent, mlp=True) for extent in (0, 2, 4, 8)},
        **{f'ge {extent} conv': gather_excite(extent=extent, conv=True) for extent in (0, 2, 8)},
        'ge 4 conv mlp': gather_excite(extent=4, conv=True, mlp=True),
        'coordinate': CoordAttn(CHANNELS),
        'coordinate bias': CoordAttn(CHANNELS, rd_channels=16, bias=True),
        'scse': SCSEModule(CHANNELS),
        'released ssa': released.SalientBlock(CHANNELS),
        'released grouped ssa': released.GroupSalientBlock(CHANNELS, channels_per_map=32),
        'released spatial': released.SpatialAttentionBlock(CHANNELS),
    }


def summary(name: str, values: torch.Tensor) -> list[float]:
    """A digest, and the dot product with rule.py's array 'beside NAME'."""
    array = values.detach().numpy()
    return [*rule.digest(array), float(np.vdot(array, rule.weight(f'beside {name}', array.shape)))]


def golden(name: str, block: nn.Module, x: np.ndarray, cotangent: np.ndarray) -> dict:
    state = {n: t for n, t in block.state_dict().items() if t.is_floating_point()}
    weights = {n: torch.from_numpy(rule.weight(n, tuple(t.shape))) for n, t in state.items()}
    content = {'weights': {n: list(t.shape) for n, t in state.items()}}
    has_norm = any(n.endswith('running_mean') for n in state)
    for mode in ('inference', 'training') if has_norm else ('inference',):
        block.train(mode == 'training').load_state_dict(weights, strict=False)
        if mode == 'inference' and name in CANCELLED:
            nn.init.zeros_(block.get_parameter(CANCELLED[name]))
        x_torch = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous().requires_grad_()
        y = block(x_torch)
        parameters = dict(block.named_parameters())
        gradients = torch.autograd.grad(
            y, [x_torch, *parameters.values()], torch.from_numpy(cotangent).permute(0, 3, 1, 2)
        )
        gradients = dict(zip(['input', *parameters], gradients, strict=True))
        gradients.pop(CANCELLED.get(name), None)
        content[mode] = {
            'output': summary('output', y.permute(0, 2, 3, 1)),
            'gradients': {
                n: summary(n, g.permute(0, 2, 3, 1) if n == 'input' else g)
                for n, g in gradients.items()
            },
        }
    return content


def main() -> None:
    path = Path(sys.argv[1]) / 'models' / 'SSABlock.py'
    spec = importlib.util.spec_from_file_location('released', path)
    released = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(released)

    shape = BATCH, HEIGHT, WIDTH, CHANNELS
    x, cotangent = (np.random.default_rng(seed).normal(size=shape) for seed in (0, 1))
    libraries = torch, torchvision, timm, segmentation_models_pytorch
    content = {
        'made_with': {m.__name__: m.__version__ for m in libraries},
        'shape': shape,
        'seeds': {'input': 0, 'cotangent': 1},
        'eca_kernel_sizes': {
            c: layers.EcaModule(c).conv.kernel_size[0] for c in (16, 32, 64, 128, 256, 512, 2048)
        },
        'blocks': {
            name: golden(name, block.double(), x, cotangent)
            for name, block in make_blocks(released).items()
        },
    }
    path = Path(__file__).with_name('blocks.json')
    path.write_text(json.dumps(content, indent=1) + '\n')
    print(path, len(content['blocks']), 'blocks')


if __name__ == '__main__':
    main()
