"""Writes attention56.json: outputs of the Residual Attention Network of its authors.

    pip install torch==2.13.0
    git clone https://github.com/fwang91/residual-attention-network
    git -C residual-attention-network checkout bc207a8
    python tests/golden/make_caffe.py residual-attention-network

The authors released Caffe definitions, which are run here layer by layer with torch in float64,
with the weights and images of rule.py and ten classes: logits in inference mode; then the loss, the
gradients and the updated running statistics of one training step. Parameter counts are for the
original thousand classes. Weights are named like their layers, with dots for slashes; BatchNorm's
epsilon and momentum are torch's.
"""

import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rule
import torch
from torch.nn import functional

Message = dict[str, list[Any]]  # a field's values, in order


def parse(text: str) -> Message:
    """Parses a protocol buffer in text format."""
    return _message(iter(re.findall(r'[{}]|"[^"]*"|[^\s{}:"]+', text)))


def _message(tokens: Iterator[str]) -> Message:
    fields: Message = {}
    for name in tokens:
        if name == '}':
            break
        value = next(tokens)
        fields.setdefault(name, []).append(_message(tokens) if value == '{' else value.strip('"'))
    return fields


class Net:
    """Runs a definition; weights are made when they are first needed."""

    def __init__(self, path: Path, classes: int) -> None:
        self.layers = parse(path.read_text())['layer']
        self.classes = classes
        self.parameters: dict[str, torch.Tensor] = {}
        self.running: dict[str, torch.Tensor] = {}

    def __call__(self, images: torch.Tensor, *, train: bool) -> torch.Tensor:
        blobs = {'data': images}
        for layer in self.layers:
            if layer['type'] == ['Softmax']:
                break
            bottoms = [blobs[name] for name in layer['bottom']]
            (top,) = layer['top']
            blobs[top] = result = self._run(layer, bottoms, train)
        return result

    def _run(self, layer: Message, x: list[torch.Tensor], train: bool) -> torch.Tensor:
        (kind,) = layer['type']
        name = layer['name'][0].replace('/', '.')
        (options,) = layer.get(OPTIONS.get(kind, ''), [{}])
        options = {key: values[0] for key, values in options.items()}
        match kind:
            case 'Convolution':
                return self._convolution(name, x[0], **options)
            case 'BN':
                return self._batch_norm(name, x[0], train)
            case 'ReLU':
                return torch.relu(x[0])
            case 'Sigmoid':
                return torch.sigmoid(x[0])
            case 'Pooling':
                return pool(x[0], **options)
            case 'Eltwise':
                return {'SUM': torch.add, 'PROD': torch.mul}[options['operation']](*x)
            case 'Interp':
                size = x[1].shape[2:]
                return functional.interpolate(x[0], size, mode='bilinear', align_corners=True)
            case 'InnerProduct':
                flat = x[0].flatten(1)
                weight = self._parameter(f'{name}.weight', self.classes, flat.shape[1])
                return functional.linear(
                    flat, weight, self._parameter(f'{name}.bias', self.classes)
                )
        raise ValueError(f'{kind} is not known.')

    def _convolution(
        self,
        name: str,
        x: torch.Tensor,
        *,
        num_output: str,
        kernel_size: str,
        stride: str,
        pad: str,
        bias_term: str,
    ) -> torch.Tensor:
        if bias_term != 'false':
            raise ValueError(f'{name} has a bias.')
        size = int(kernel_size)
        weight = self._parameter(f'{name}.weight', int(num_output), x.shape[1], size, size)
        return functional.conv2d(x, weight, stride=int(stride), padding=int(pad))

    def _batch_norm(self, name: str, x: torch.Tensor, train: bool) -> torch.Tensor:
        width = x.shape[1]
        for statistic in ('mean', 'var'):
            key = f'{name}.running_{statistic}'
            if key not in self.running:
                self.running[key] = weight(key, width)
        return functional.batch_norm(
            x,
            self.running[f'{name}.running_mean'],
            self.running[f'{name}.running_var'],
            self._parameter(f'{name}.weight', width),
            self._parameter(f'{name}.bias', width),
            training=train,
        )

    def _parameter(self, name: str, *shape: int) -> torch.Tensor:
        if name not in self.parameters:
            self.parameters[name] = weight(name, *shape).requires_grad_()
        return self.parameters[name]


OPTIONS = {
    'Convolution': 'convolution_param',
    'Eltwise': 'eltwise_param',
    'Pooling': 'pooling_param',
}


def weight(name: str, *shape: int) -> torch.Tensor:
    return torch.from_numpy(rule.weight(name, shape))


def pool(x: torch.Tensor, *, pool: str, kernel_size: str, stride: str) -> torch.Tensor:
    """Pools as Caffe does: a last window may extend past the edge."""
    size, step = int(kernel_size), int(stride)
    if pool == 'AVE':  # over all pixels, for any image size
        return x.mean((2, 3), keepdim=True)
    rows, columns = (
        (math.ceil((length - size) / step)) * step + size - length for length in x.shape[2:]
    )
    return functional.max_pool2d(
        functional.pad(x, (0, columns, 0, rows), value=-math.inf), size, step
    )


def count(path: Path) -> int:
    """The number of parameters for a thousand classes."""
    net = Net(path, classes=1000)
    with torch.no_grad():
        net(torch.zeros(1, 3, rule.SIZE, rule.SIZE, dtype=torch.float64), train=False)
    return sum(p.numel() for p in net.parameters.values())


def main() -> None:
    folder = Path(sys.argv[1]) / 'imagenet_model'
    paths = {f'Attention-{n}': folder / f'Attention-{n}-deploy.prototxt' for n in (56, 92)}
    net = Net(paths['Attention-56'], classes=rule.CLASSES)
    images = torch.from_numpy(rule.images()).permute(0, 3, 1, 2).contiguous()
    with torch.no_grad():
        logits = net(images, train=False)
    loss = functional.cross_entropy(net(images, train=True), torch.from_numpy(rule.labels()).long())
    loss.backward()
    content = {
        'made_with': {'torch': torch.__version__},
        'parameters': {name: count(path) for name, path in paths.items()},
        'logits': logits.tolist(),
        'loss': loss.item(),
        'gradients': {n: rule.digest(p.grad.numpy()) for n, p in net.parameters.items()},
        'running': {n: rule.digest(s.numpy()) for n, s in net.running.items()},
    }
    rule.write(Path(__file__).with_name('attention56.json'), content)
    print(content['parameters'], 'loss', content['loss'])


if __name__ == '__main__':
    main()
