"""Shared by several tests."""

import importlib.util
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
from jax.sharding import AxisType
from ml_collections import ConfigDict

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def float64():
    """Computes in float64. flax's BatchNorm promotes it implicitly, which is allowed here."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion('standard'):
        yield


def load_config(name: str) -> ConfigDict:
    """The recipe configs/NAME.py."""
    spec = importlib.util.spec_from_file_location(name, ROOT / 'configs' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config().lock()


def mesh_of(num_devices: int) -> jax.sharding.Mesh:
    """The first devices as a mesh over 'data'."""
    return jax.make_mesh(
        (num_devices,),
        ('data',),
        axis_types=(AxisType.Auto,),
        devices=jax.devices()[:num_devices],
    )


def assert_trees_equal(actual, expected):
    """Bit for bit, with the same structure."""
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def torch_name(path: tuple[str, ...]) -> str:
    """Torchvision's name of a variable: ('layer1_0', 'bn1', 'scale') to 'layer1.0.bn1.weight'."""
    leaf = {'kernel': 'weight', 'scale': 'weight', 'mean': 'running_mean', 'var': 'running_var'}
    *modules, last = path
    name = '.'.join([*modules, leaf.get(last, last)])
    if name.startswith('layer'):
        name = name.replace('_', '.', 1)
    return name.replace('downsample.conv', 'downsample.0').replace('downsample.bn', 'downsample.1')


def from_torch_layout(values: np.ndarray, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A torch array as flax stores it: OIHW to HWIO, and OI or OI11 to IO."""
    if values.ndim == 4 and len(shape) == 4:
        return values.transpose(2, 3, 1, 0)
    return values.reshape(values.shape[:2]).T if values.ndim > 1 else values


def to_torch_layout(values: np.ndarray) -> np.ndarray:
    """The inverse, for convolutions and dense layers."""
    if values.ndim == 4:
        return values.transpose(3, 2, 0, 1)
    return values.T if values.ndim == 2 else values
