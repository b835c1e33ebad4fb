"""Hostile images take little memory: they are refused, or decoded without their metadata."""

import json
import subprocess
import sys

import numpy as np
import pytest

from ssanet_jax import data
from ssanet_jax.data import readers
from ssanet_jax.data.decoding.decode import DecodeSpec, decode
from ssanet_jax.errors import ConfigError
from tests import fabricate
from tests.data.bombs import bombs, hostile, others
from tests.helpers import ROOT

MEGABYTES = 300  # that the decoder is left with; 2**27 pixels take 384
BOTH = pytest.mark.parametrize('crop', ['resized', 'center'])


def keys(number):
    return np.zeros((number, 2), np.int64)


PROGRAM = f"""
import json, resource, sys
import numpy as np
from ssanet_jax.config import base
from ssanet_jax.data.decoding.decode import DecodeSpec, decode

good, hostile, bombs = (
    {{name: bytes.fromhex(file) for name, file in files.items()}} for files in json.load(sys.stdin)
)
dataset = base().dataset
dataset.max_image_pixels = int(sys.argv[1])
out, key = np.zeros((1, 32, 32, 3), np.uint8), np.zeros((1, 2), np.int64)
specs = DecodeSpec(dataset, 'resized'), DecodeSpec(dataset, 'center')

def reasons(files):
    return [
        (name, decode([file], key, out, spec).get(0))
        for name, file in files.items()
        for spec in specs
    ]

def limit(megabytes):
    with open('/proc/self/statm') as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (megabytes << 20), -1))

def peak():
    with open('/proc/self/status') as file:  # getrusage's would begin at the parent's
        return next(int(line.split()[1]) >> 10 for line in file if line.startswith('VmHWM'))

assert all(reason is None for _, reason in reasons(good))  # starts threads
before = peak()
limit(4096)
decoded = reasons(hostile)
added = peak() - before
limit({MEGABYTES})
print(json.dumps([added, decoded, reasons(bombs)]))
"""


def decoded_with_little_memory(hostile, bombs, max_pixels):
    rng = np.random.default_rng(0)
    good = {kind: fabricate.photograph(rng, kind=kind) for kind in ('JPEG', 'PNG', 'WEBP', 'GIF')}
    content = json.dumps(
        [{name: file.hex() for name, file in files.items()} for files in (good, hostile, bombs)]
    )
    command = [sys.executable, '-c', PROGRAM, str(max_pixels)]
    return subprocess.run(
        command, input=content, capture_output=True, text=True, timeout=300, cwd=ROOT
    )


@pytest.mark.skipif(sys.platform != 'linux', reason='/proc')
def test_hostile_images_take_little_memory():
    files = {name: file for name, (file, _) in bombs().items()}
    done = decoded_with_little_memory(hostile(), files, 2**27)
    assert done.returncode == 0, done.stderr[-2000:]
    added, decoded, refused = json.loads(done.stdout)
    assert {name: reason for name, reason in decoded if reason is not None} == {}
    assert len(decoded) == 2 * len(hostile())
    assert added < MEGABYTES
    assert len(refused) == 2 * len(bombs())
    for name, reason in refused:
        assert bombs()[name][1] in reason, name


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='/proc')
def test_without_the_limit_a_bomb_takes_the_memory():
    done = decoded_with_little_memory({}, {'png': bombs()['huge png'][0]}, 2**31)
    assert done.returncode == 0, done.stderr[-2000:]
    _, _, refused = json.loads(done.stdout)
    assert {reason for _, reason in refused} == {'It cannot be decoded as PNG: MemoryError.'}


@BOTH
def test_no_other_format_is_decoded(imagenet, crop):
    files = list(others().values())
    out = np.zeros((len(files), 32, 32, 3), np.uint8)
    bad = decode(files, keys(len(files)), out, DecodeSpec(imagenet.dataset, crop))
    assert list(bad) == list(range(len(files)))
    assert all(reason.startswith('It is none of JPEG, PNG') for reason in bad.values())


@BOTH
@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
def test_only_the_file_of_too_many_bytes_is_refused(imagenet, crop, kind):
    rng = np.random.default_rng(0)
    good = fabricate.photograph(rng)
    large = fabricate.photograph(rng, kind=kind) + bytes(len(good))  # would be decoded
    files, spec = [good, large, good], DecodeSpec(imagenet.dataset, crop)
    out = np.zeros((3, 32, 32, 3), np.uint8)
    assert decode(files, keys(3), out, spec) == {}
    assert out[1].any()
    imagenet.dataset.max_image_bytes = max(len(good), len(large) - 1)
    bad = decode(files, keys(3), out, spec)
    assert bad == {1: f'It has over {len(large) - 1:,} bytes, dataset.max_image_bytes.'}
    assert [image.any() for image in out] == [True, False, True]
    imagenet.dataset.max_image_bytes += 1
    assert decode(files, keys(3), out, spec) == {}
    cut = [good[:-9]]  # as a longer file of a folder is read
    imagenet.dataset.max_image_bytes = len(cut[0]) - 1
    assert 'It has over ' in decode(cut, keys(1), out[:1], spec)[0]


def test_a_large_file_of_a_folder_is_not_read_completely(folder, monkeypatch):
    path = f'{folder.dataset.data_dir}/train/ash/3.jpg'
    with open(path, 'r+b') as file:
        file.truncate(2**40)  # takes no room
    folder.dataset.max_image_bytes = 2**16
    lengths = []
    read = readers.read_file
    monkeypatch.setattr(
        readers, 'read_file', lambda *args: lengths.append(len(read(*args))) or read(*args)
    )
    with pytest.raises(ConfigError, match=r'ash/3\.jpg cannot be decoded: It has over 65,536 byte'):
        list(data.eval_batches(folder, 'train'))
    assert max(lengths) == 2**16 + 1
    folder.dataset.bad_eval_images, folder.dataset.max_bad_fraction = 'incorrect', 0.1
    label = np.concatenate([batch['label'] for batch in data.eval_batches(folder, 'train')])
    assert (label == -1).sum() == 1
