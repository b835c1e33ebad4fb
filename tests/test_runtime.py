import os
import subprocess
import sys

import jax
import pytest
from jax._src.lru_cache import LRUCache
from PIL import Image

from ssanet_jax import runtime
from tests.helpers import ROOT

PROGRAM = """
import jax
from ssanet_jax import runtime
hits = []
jax.monitoring.register_event_listener(
    lambda event, **_: hits.append(event) if event.endswith('cache_hits') else None
)
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
folder = runtime.enable_compilation_cache()
jax.jit(lambda x: x * 3 + 1)(jax.numpy.ones(7)).block_until_ready()
print(folder, len(hits))
"""


def run(home, **settings):
    """The cache folder that a new process used, and the number of programs it found there."""
    environment = {k: v for k, v in os.environ.items() if k != 'JAX_COMPILATION_CACHE_DIR'}
    environment |= {'HOME': str(home), 'XDG_CACHE_HOME': str(home / '.cache'), **settings}
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    folder, hits = done.stdout.split()
    return folder, int(hits)


def programs(folder):
    return {path.name for path in folder.rglob('jit*-cache')}


def test_programs_are_kept_in_the_users_cache_folder(tmp_path):
    folder, hits = run(tmp_path)
    assert folder.startswith(str(tmp_path))
    assert hits == 0
    kept = programs(tmp_path)
    assert kept
    assert run(tmp_path) == (folder, len(kept))
    assert programs(tmp_path) == kept


def test_a_custom_cache_folder_is_used(tmp_path):
    own = tmp_path / 'own'
    assert run(tmp_path, JAX_COMPILATION_CACHE_DIR=str(own)) == (str(own), 0)
    assert programs(own)


def test_the_cache_can_be_turned_off(tmp_path):
    assert run(tmp_path, JAX_ENABLE_COMPILATION_CACHE='false') == ('None', 0)
    assert not programs(tmp_path)


@pytest.fixture(params=[1 << 20, -1], ids=['limited', 'unlimited'])
def cache(request, tmp_path):
    """A cache of programs as `enable_compilation_cache` leaves it."""
    runtime._replace_unreadable_programs()
    return LRUCache(str(tmp_path), max_size=request.param)


def test_a_program_that_was_half_written_is_replaced(cache, tmp_path):
    cache.put('jit_step', b'whole')
    (tmp_path / 'jit_step-cache').write_bytes(b'wh')
    cache.put('jit_step', b'whole')  # as JAX does once it has compiled it again
    assert cache.get('jit_step') == b'whole'


@pytest.mark.parametrize('cache', [1 << 20], indirect=True)
def test_a_program_whose_write_was_killed_does_not_stop_others_from_being_cached(cache, tmp_path):
    cache.put('jit_good', b'good')
    (tmp_path / 'jit_killed-cache').write_bytes(b'ha')
    cache.put('jit_step', b'whole')
    assert [cache.get(f'jit_{name}') for name in ('good', 'killed', 'step')] == [
        b'good', None, b'whole'
    ]  # fmt: skip


@pytest.mark.slow
def test_the_next_process_replaces_a_program_that_was_half_written(tmp_path):
    run(tmp_path)
    kept = list(tmp_path.rglob('jit*-cache'))
    for path in kept:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert [run(tmp_path)[1], run(tmp_path)[1]] == [0, len(kept)]


@pytest.mark.parametrize(
    ('platform', 'error', 'reason'),
    [
        ('cuda', AssertionError(), 'here.'),
        (
            'gpuu',
            RuntimeError("Unknown backend 'gpuu'. (set JAX_PLATFORMS='' to automatically choose)"),
            "here (Unknown backend 'gpuu').",
        ),
    ],
)
def test_a_missing_device_is_one_line(monkeypatch, platform, error, reason):
    def devices():
        raise error

    monkeypatch.setattr(jax, 'devices', devices)
    monkeypatch.setenv('JAX_PLATFORMS', platform)
    message = runtime.missing_device()
    monkeypatch.delenv('JAX_PLATFORMS')
    assert runtime.missing_device() is None  # so that the error itself is reported
    assert message.startswith(f'JAX_PLATFORMS={platform}: JAX has no such device {reason} Unset it')
    assert '\n' not in message


@pytest.mark.parametrize(
    ('platforms', 'message'),
    [
        (
            'cuda',
            'JAX_PLATFORMS=cuda leaves out the CPU, which this needs; set JAX_PLATFORMS=cuda,',
        ),
        ('gpuu,cpu', 'JAX_PLATFORMS=gpuu,cpu: JAX has no such device here'),
    ],
)
def test_without_the_cpu_the_remedy_adds_it(platforms, message):
    code = (
        'from ssanet_jax import runtime\n'
        'try:\n    runtime.cpu_device()\nexcept ValueError as error:\n    print(error)\n'
    )
    environment = {**os.environ, 'JAX_PLATFORMS': platforms}
    ran = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert ran.stdout.startswith(message), ran.stderr


def test_a_device_that_is_there_is_not_missing():
    assert runtime.missing_device() is None


TRAIN = 'main.py --config=configs/digits_ssa20.py --workdir={tmp}/new'


@pytest.mark.slow
@pytest.mark.parametrize(
    ('platform', 'command', 'code'),
    [
        ('tpu', TRAIN, 2),
        ('gpuu', TRAIN, 2),
        ('cuda,cpu', TRAIN, 2),  # without a driver JAX takes the CPU in silence
        ('cuda', TRAIN, 2),
        ('cuda', 'main.py --config=configs/digits_ssa20.py --workdir={run} --mode=eval', 2),
        ('cuda', '-m ssanet_jax.tools.predict --workdir={run} {tmp}/image.png', 2),
        ('cuda', '-m ssanet_jax.tools.gates --workdir={run}', 2),
        ('cuda', '-m ssanet_jax.tools.saliency --workdir={run} --out={tmp}/x {tmp}/image.png', 2),
        ('cuda', '-m ssanet_jax.tools.nonfinite --workdir={run}', 2),
        ('cuda', '-m ssanet_jax.tools.report --workdir={run} --out={tmp}/report.html', 2),
        ('cuda', '-m ssanet_jax.tools.input_doctor --config=configs/digits_ssa20.py', 2),
        # These need no accelerator.
        ('cuda', '-m ssanet_jax.tools.check_data --config=digits_ssa20', 0),
        ('cuda', '-m ssanet_jax.tools.export --workdir={run} --format=stablehlo --out={tmp}/x', 0),
        ('cuda', '-m ssanet_jax.tools.convert_torch --workdir={run} --out={tmp}/x.safetensors', 0),
        ('cuda', '-m ssanet_jax.tools.summary --model=resnet8', 0),
        ('cuda', '-m ssanet_jax.tools.checkpoints verify --workdir={run}', 0),
        (
            'cuda',
            '-m ssanet_jax.tools.show_batch --config=digits_ssa20 --out={tmp}/x.png',
            0,
        ),
    ],
)
def test_commands_do_without_the_device_or_end_in_one_line(
    tmp_path, digits_run, platform, command, code
):
    Image.new('RGB', (8, 8)).save(tmp_path / 'image.png')
    words = command.format(tmp=tmp_path, run=digits_run).split()
    environment = {**os.environ, 'JAX_PLATFORMS': platform}
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert 'Traceback' not in done.stderr
    assert done.returncode == code, done.stderr
    if code:
        assert f'JAX_PLATFORMS={platform}: JAX has no such device here' in done.stderr


def test_a_cache_without_a_limit_of_its_size_is_written(tmp_path):
    """That of JAX_COMPILATION_CACHE_DIR, which has no lock."""
    runtime._replace_unreadable_programs()
    cache = LRUCache(str(tmp_path), max_size=-1)
    cache.put('key', b'program')
    assert cache.get('key') == b'program'


@pytest.mark.parametrize('missing', ['path', 'eviction_enabled', 'lock', 'lock_timeout_secs'])
def test_a_cache_of_another_jax_keeps_its_own_put(monkeypatch, missing):
    class Other:
        """Without one of the attributes of the caches known today."""

        def __init__(self):
            known = {'path': None, 'eviction_enabled': True, 'lock': None, 'lock_timeout_secs': 1}
            vars(self).update({name: known[name] for name in known if name != missing})
            self.added = {}

        def put(self, key, value):
            self.added[key] = value

    monkeypatch.setattr(sys.modules[LRUCache.__module__], 'LRUCache', Other)
    runtime._replace_unreadable_programs.__wrapped__()
    cache = Other()
    cache.put('key', b'program')
    assert cache.added == {'key': b'program'}
