"""The tables of the SSANet paper, next to the sizes of its networks here.

Published figures are those of tables 1 to 4 of SSANet_en.md (github.com/AmigoCDT/Salient-Net),
and for Residual Attention Networks those of their paper, table 6, and of its authors' page
(https://arxiv.org/abs/1704.06904, github.com/fwang91/residual-attention-network).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ssanet_jax.analysis.macs import Cost, model_cost
from ssanet_jax.models import create_model
from ssanet_jax.tables import Column, Table, thousands


class Published(NamedTuple):
    """A row of a paper.

    Attributes:
      name: of the network.
      model: its name here.
      top1, top5: accuracy in percent, where it is given.
      parameters: in millions.
      macs: in units of 1e9, which papers call GFLOPs.
    """

    name: str
    model: str
    top1: float | None = None
    top5: float | None = None
    parameters: float | None = None
    macs: float | None = None


IMAGENET = (
    Published('ResNet-50', 'resnet50', 75.24, 92.36, 25.6, 3.86),
    Published('SE-ResNet-50, ratio 16', 'se_resnet50', 76.75, 93.41, 28.1, 3.87),
    Published('SSA-ResNet-50', 'ssa_resnet50', 76.61, 93.29, 25.6, 3.87),
)
CIFAR10 = (
    Published('ResNet-50', 'resnet50', 94.38, None, 25.6, 3.86),
    Published('SE-ResNet-50, ratio 16', 'se_resnet50', 94.83, None, 28.1, 3.87),
    Published('SSA-ResNet-50', 'ssa_resnet50', 94.93, None, 25.6, 3.87),  # see the note
)
CIFAR100 = (
    Published('ResNet-50', 'resnet50', 77.26, None, 25.6, 3.86),
    Published('SE-ResNet-50, ratio 16', 'se_resnet50', 77.13, None, 28.1, 3.87),
    Published('SSA-ResNet-50', 'ssa_resnet50', 78.35, None, 25.6, 3.87),
)
MOBILENET = (
    Published('MobileNet 1.0', 'mobilenet_v1', 70.6, None, 3.4, 0.569),
    Published('SE-MobileNet 1.0, ratio 16', 'se_mobilenet_v1', 73.6, None, 3.7, 0.572),
    Published('SSA-MobileNet 1.0', 'ssa_mobilenet_v1', 73.3, 91.4, 3.4, 0.573),
    Published('(MobileNetV2 1.0)', 'mobilenet_v2'),
)
RESIDUAL_ATTENTION = (
    Published('Attention-56', 'residual_attention56', 78.24, 94.1, 31.9, 6.2),
    Published('Attention-92', 'residual_attention92', 80.5, 95.2, 51.3, 10.4),
)

_IMAGENET_NOTES = (
    'The 3.86 G are v1, whose bottlenecks have their stride in the first 1x1 convolution; the '
    'released code is v1.5, with the stride in the 3x3: 4.09 G. Both have the same parameters.',
    'SSANet_result.md, next to the paper, prints other accuracies: ResNet-50 75.24 / 92.67, '
    'SE-ResNet-50 76.85 / 93.50, SSA-ResNet-50 76.61 / 93.28.',
)
_CIFAR_NOTE = (
    'The paper repeats the sizes of its ImageNet networks. Here: what was trained, images of 32x32 '
    'pixels, a 3x3 stem without stride and max-pooling, {} classes, v1.5.'
)
_CIFAR10_NOTES = (
    'SSA-ResNet-50: the paper prints 78.35, which is its CIFAR-100 figure; 94.93 is the best epoch '
    'of the released log, and in versions of the paper before 2019-11-06; 94.91 is in the '
    "repository's README.",
)
_MOBILENET_NOTES = (
    'The published MACs are those of MobileNet v1, the parameters are not: v1 has 4.2 M, '
    'and 4.7 M with SE, as the SE paper prints too. Without the classifier they would be 3.2 M and '
    '3.7 M. 3.4 M is what the paper of MobileNetV2 gives for that network (3.5 M here), which '
    'has 0.30 G.',
    'The paper prints 00.00% as top-5 of SE-MobileNet; the README of the repository has 91.6.',
)
_RESIDUAL_ATTENTION_NOTES = (
    'Attention-56 was tested at 224x224 pixels, Attention-92 at 320x320; sizes are at 224x224.',
    "The authors' released definitions have 31,810,728 and 52,466,344 parameters, as here, and "
    '6.271 G and 10.534 G; the rest here is interpolation, which is done by matrix products.',
)


def paper_tables() -> list[Table]:
    """ImageNet, CIFAR-10, CIFAR-100, MobileNet and Residual Attention Networks."""
    return [
        _table('ImageNet: paper and here, 224x224', IMAGENET, _IMAGENET_NOTES, variants=True),
        _cifar(10, CIFAR10, _CIFAR10_NOTES),
        _cifar(100, CIFAR100),
        _table('MobileNet on ImageNet: paper and here, 224x224', MOBILENET, _MOBILENET_NOTES),
        _table(
            'Residual Attention Networks on ImageNet: their paper and here, 224x224',
            RESIDUAL_ATTENTION,
            _RESIDUAL_ATTENTION_NOTES,
        ),
    ]


def _cifar(num_classes: int, published: Sequence[Published], notes: Sequence[str] = ()) -> Table:
    return _table(
        f'CIFAR-{num_classes}: paper and here, 32x32',
        published,
        (_CIFAR_NOTE.format(num_classes), *notes),
        image_size=32,
        num_classes=num_classes,
        stem='cifar',
    )


def _table(
    title: str,
    published: Sequence[Published],
    notes: Sequence[str],
    *,
    image_size: int = 224,
    variants: bool = False,
    **options: Any,
) -> Table:
    """The rows of a paper, each with the parameters and MACs here; `variants` adds those of v1."""
    options = {'num_classes': 1000, **options}
    counted = {'here': options}
    if variants:
        counted = {f'here, {v}': {**options, 'variant': v} for v in ('v1', 'v1.5')}
    with_top5 = any(row.top5 is not None for row in published)
    columns = [Column('network', left=True), Column('top-1, %', '{:g}'.format)]
    columns += [Column('top-5, %', '{:g}'.format)] if with_top5 else []
    columns += [Column('parameters, paper', '{:g} M'.format), Column('parameters, here', thousands)]
    columns += [Column('MACs, paper', '{:g} G'.format)]
    columns += [Column(f'MACs, {name}', _billions) for name in counted]
    rows = []
    for row in published:
        costs: list[Cost] = [
            model_cost(create_model(row.model, **options), image_size)
            for options in counted.values()
        ]
        accuracy = (row.top1, row.top5) if with_top5 else (row.top1,)
        sizes = (row.parameters, costs[0].parameters, row.macs)
        rows.append((row.name, *accuracy, *sizes, *(cost.macs for cost in costs)))
    return Table(title, columns, rows, notes)


def _billions(count: int) -> str:
    return f'{count / 1e9:.3f} G'
