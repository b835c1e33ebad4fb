"""Writes resnet50.json and seresnet50.json: what torchvision and timm compute, in float64.

    pip install torch==2.13.0 torchvision==0.28.0 timm==1.0.31
    python tests/golden/make_torch.py

For weights and images of rule.py: logits in inference mode; then the loss, the gradients
and the updated running statistics of one training step. Arrays are stored as digests.
"""

import json
from pathlib import Path

import torch

# A CPU build of torch lacks the operators that torchvision registers shapes for.
library = torch.library.Library('torchvision', 'DEF')
library.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
library.define('qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')

import rule
import timm
import torchvision

MODELS = {
    'resnet50': lambda: torchvision.models.resnet50(num_classes=rule.CLASSES),
    'seresnet50': lambda: timm.create_model('seresnet50', num_classes=rule.CLASSES),
}


def golden(model: torch.nn.Module) -> dict:
    state = model.state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point():
            tensor.copy_(torch.from_numpy(rule.weight(name, tuple(tensor.shape))))
    images = torch.from_numpy(rule.images()).permute(0, 3, 1, 2).contiguous()
    with torch.no_grad():
        logits = model.eval()(images)
    loss = torch.nn.functional.cross_entropy(
        model.train()(images), torch.from_numpy(rule.labels()).long()
    )
    loss.backward()
    return {
        'logits': logits.tolist(),
        'loss': loss.item(),
        'gradients': {n: rule.digest(p.grad.numpy()) for n, p in model.named_parameters()},
        'running': {
            n: rule.digest(b.numpy()) for n, b in model.named_buffers() if b.is_floating_point()
        },
    }


def main() -> None:
    versions = {m.__name__: m.__version__ for m in (torch, torchvision, timm)}
    for name, make in MODELS.items():
        content = {'made_with': versions, **golden(make().double())}
        path = Path(__file__).with_name(f'{name}.json')
        path.write_text(json.dumps(content, indent=1) + '\n')
        print(path, 'loss', content['loss'])


if __name__ == '__main__':
    main()
