"""Writes augmentation.json: what timm and torchvision make of the pictures of rule.py.

    pip install torch==2.13.0 torchvision==0.28.0 timm==1.0.31
    python tests/golden/make_augmentation.py

Pixels are stored as digests: of each operation over all its values and pictures, and of whole
transforms beside what they drew, so that others can be given the same draws.
"""

import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import PIL
import torch

# A CPU build of torch lacks the operators that torchvision registers shapes for.
library = torch.library.Library('torchvision', 'DEF')
library.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
library.define('qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')

import rule
import timm
import timm.data.random_erasing
import torchvision
from PIL import Image
from timm.data import auto_augment
from timm.data.distributed_sampler import RepeatAugSampler
from torchvision import transforms
from torchvision.transforms import autoaugment, functional

FILL = (124, 116, 104)
FILTERS = {'bilinear': Image.Resampling.BILINEAR, 'bicubic': Image.Resampling.BICUBIC}
PICTURES = [Image.fromarray(image) for image in rule.pictures()]
MAGNITUDES = [number / 2 for number in range(21)]
Draws = list[tuple[str, float]]


def digest(images: Iterator[Image.Image]) -> str:
    return rule.pixels_digest(map(np.asarray, images))


@contextmanager
def recording(*functions: tuple[object, str]) -> Iterator[Draws]:
    """Records what these functions return while they are called, in order."""
    draws: Draws = []

    def wrap(name: str, original: Callable) -> Callable:
        def recorded(*args, **kwargs):
            drawn = original(*args, **kwargs)
            draws.append((name, drawn.tolist() if isinstance(drawn, torch.Tensor) else drawn))
            return drawn

        return recorded

    patches = [mock.patch.object(o, n, wrap(n, getattr(o, n))) for o, n in functions]
    for patch in patches:
        patch.start()
    yield draws
    for patch in patches:
        patch.stop()


def rand_operations() -> dict:
    """Each increasing operation of timm: values for every magnitude and sign, and pixels."""
    content = {}
    for name in auto_augment._RAND_INCREASING_TRANSFORMS:
        level = auto_augment.LEVEL_TO_ARG[name]
        values, images = [], []
        for sign, magnitude in itertools.product((1, -1), MAGNITUDES):
            with mock.patch.object(random, 'random', lambda sign=sign: 0.75 if sign < 0 else 0.25):
                arguments = level(magnitude, {}) if level else ()
            values += arguments
            for resample, picture in itertools.product(FILTERS.values(), PICTURES):
                options = {'fillcolor': FILL, 'resample': resample}
                images.append(auto_augment.NAME_TO_OP[name](picture, *arguments, **options))
        content[name] = {'values': values, 'pixels': digest(images)}
    return content


def rand_runs() -> list:
    """Whole runs of timm's RandAugment: the operations, what each drew, and the pixels."""
    augment = auto_augment.rand_augment_transform('rand-m7-mstd0.5-inc1', {'img_mean': FILL})
    random.seed(0)
    np.random.seed(0)
    original, steps = auto_augment.AugmentOp.__call__, []

    def recorded(operation: auto_augment.AugmentOp, image: Image.Image) -> Image.Image:
        with recording((random, 'random'), (random, 'gauss'), (random, 'choice')) as draws:
            image = original(operation, image)
        uniforms = [drawn for name, drawn in draws if name == 'random']  # whether, sign
        others = {name: drawn for name, drawn in draws if name != 'random'}
        steps.append([operation.name, uniforms, others.get('gauss'), others.get('choice')])
        return image

    runs = []
    with mock.patch.object(auto_augment.AugmentOp, '__call__', recorded):
        for number in range(40):
            steps.clear()
            image = augment(PICTURES[number % len(PICTURES)])
            runs.append([list(steps), digest([image])])
    return runs


def wide_operations() -> dict:
    """Each operation of torchvision's TrivialAugmentWide: magnitudes, whether signed, pixels."""
    content = {}
    bilinear = functional.InterpolationMode.BILINEAR
    space = transforms.TrivialAugmentWide()._augmentation_space(31)
    for name, (magnitudes, signed) in space.items():
        values = magnitudes.reshape(-1).tolist()
        signs = (1, -1) if signed else (1,)
        images = (
            autoaugment._apply_op(picture, name, sign * value, bilinear, None)
            for sign, value, picture in itertools.product(signs, values, PICTURES)
        )
        content[name] = {'magnitudes': values, 'signed': signed, 'pixels': digest(images)}
    return content


def wide_runs() -> list:
    """Whole runs of TrivialAugmentWide: integers drawn, and pixels."""
    augment = transforms.TrivialAugmentWide(interpolation=functional.InterpolationMode.BILINEAR)
    torch.manual_seed(0)
    runs = []
    for number in range(40):
        with recording((torch, 'randint')) as draws:
            image = augment(PICTURES[number % len(PICTURES)])
        runs.append([[drawn[0] for _, drawn in draws], digest([image])])
    return runs


def jitter_runs() -> list:
    """Runs of torchvision's ColorJitter: the order, the four values, and pixels."""
    jitter = transforms.ColorJitter(0.4, 0.5, 0.6, 0.1)
    torch.manual_seed(0)
    runs = []
    for number in range(25):
        with recording((jitter, 'get_params')) as draws:
            image = jitter(PICTURES[number % len(PICTURES)])
        ((_, (order, *values)),) = draws
        runs.append([order.tolist(), values, digest([image])])
    return runs


def erasing_runs() -> dict:
    """What was drawn, in order, and the pixels of images erased to 0."""
    uniform = torch.Tensor, 'uniform_'
    functions = {
        'torchvision': [(torch, 'rand'), uniform, (torch, 'randint')],
        'timm': [(random, 'random'), (random, 'uniform'), (random, 'randint')],
    }
    erase = {
        'torchvision': transforms.RandomErasing(0.8),
        'timm': timm.data.random_erasing.RandomErasing(
            0.8, max_area=0.33, max_aspect=3.3, device='cpu'
        ),
    }
    random.seed(0)
    torch.manual_seed(0)
    content = {}
    for name, recorded in functions.items():
        runs = content[name] = []
        for number in range(40):
            image = torch.tensor(rule.pictures()[number % len(PICTURES)]).permute(2, 0, 1)
            with recording(*recorded) as draws:
                erased = erase[name](image.contiguous())
            values = [drawn[0] if isinstance(drawn, list) else drawn for _, drawn in draws]
            runs.append([values, rule.pixels_digest([erased.permute(1, 2, 0).numpy()])])
    return content


def repeated_places() -> list:
    """The order of timm's RepeatAugSampler on 4 devices, 100 examples and 3 repeats, unshuffled."""
    samplers = [
        RepeatAugSampler(range(100), 4, rank, shuffle=False, selected_round=0) for rank in range(4)
    ]
    return [list(sampler) for sampler in samplers]


def main() -> None:
    content = {
        'made_with': {m.__name__: m.__version__ for m in (torchvision, timm, PIL, np)},
        'fill': FILL,
        'magnitudes': MAGNITUDES,
        'rand_operations': rand_operations(),
        'rand_runs': rand_runs(),
        'wide_operations': wide_operations(),
        'wide_runs': wide_runs(),
        'jitter': {'strengths': [0.4, 0.5, 0.6, 0.1], 'runs': jitter_runs()},
        'erasing': erasing_runs(),
        'repeated_places': repeated_places(),
    }
    path = Path(__file__).with_name('augmentation.json')
    rule.write(path, content)
    print(path, path.stat().st_size, 'bytes')


if __name__ == '__main__':
    main()
