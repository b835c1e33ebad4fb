"""The launch files agree with docs/launch.md and main.py, and work with stand-ins."""

import json
import re
import shlex
import shutil
import sys

import pytest
import yaml

from ssanet_jax.tools import cli, train
from tests.helpers import ROOT, own_flags
from tests.launch.helpers import (
    ENDS,
    LAUNCH,
    PAGE,
    TABLE,
    fails_with,
    program,
    run,
    runs,
    saves,
    wait_for,
)

SBATCH = (LAUNCH / 'slurm.sbatch').read_text()
SERVICE, JOB = yaml.safe_load_all((LAUNCH / 'k8s.yaml').read_text())
POD = JOB['spec']['template']
(CONTAINER,) = POD['spec']['containers']


@pytest.fixture
def slurm(tmp_path):
    """Runs slurm.sbatch as on its first node, with srun and scontrol that log their calls."""
    asked = dict(re.findall(r'^#SBATCH --(\S+?)=(\S+)', SBATCH, re.MULTILINE))
    program(
        tmp_path / 'bin/srun',
        f'echo "$@" >>{tmp_path}/srun\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"',
    )
    program(tmp_path / 'bin/scontrol', f'echo "$@" >>{tmp_path}/scontrol')

    def submit(command, *arguments, **changes):
        environment = {
            'SLURM_JOB_ID': '42',
            'SLURM_NTASKS_PER_NODE': asked['ntasks-per-node'],
            'SLURM_GPUS_ON_NODE': asked['gpus-per-node'],
            'SLURM_CPUS_PER_TASK': asked['cpus-per-task'],
            'WORKDIR': '/shared/a run',
            'PYTHON': command,
            'FIRST_PAUSE': '0',
        }
        script = str(LAUNCH / 'slurm.sbatch')
        return run('bash', script, *arguments, path=tmp_path / 'bin', **(environment | changes))

    return submit


def test_a_slurm_job_restarts_inside_and_is_queued_again_when_its_time_is_over(slurm, tmp_path):
    result = slurm(fails_with(tmp_path, 69, 75), '--config.batch_size=1024')
    assert result.returncode == 75, result.stderr
    assert (tmp_path / 'scontrol').read_text() == 'requeue 42\n'
    flags = '--config=configs/imagenet_ssa50.py --workdir=/shared/a run --config.batch_size=1024'
    assert runs(tmp_path) == [f'main.py {flags}'] * 2
    options = '--cpus-per-task=8 --kill-on-bad-exit=0 --wait=120 '
    assert (tmp_path / 'srun').read_text().startswith(options)


@pytest.mark.parametrize('code', [code for code in ENDS if TABLE[code][1] != 'requeued'])
def test_a_slurm_job_that_ends_is_not_queued_again(code, slurm, tmp_path):
    assert slurm(fails_with(tmp_path, code)).returncode == code
    assert not (tmp_path / 'scontrol').exists()


def test_a_slurm_job_has_as_many_processes_as_gpus(slurm, tmp_path):
    result = slurm(fails_with(tmp_path, 0), SLURM_NTASKS_PER_NODE='1')
    assert result.returncode == 2
    assert '--ntasks-per-node is 1, --gpus-per-node 8' in result.stderr
    assert not (tmp_path / 'runs').exists()


def test_a_slurm_job_asks_for_the_signal_and_the_queue():
    for option in ('signal=TERM@120', 'requeue', 'open-mode=append'):
        assert f'#SBATCH --{option}\n' in SBATCH


@pytest.fixture
def tpu(tmp_path):
    """Runs tpu.sh with a gcloud that logs its calls and runs them on this machine."""
    home = tmp_path / 'home'
    program(
        tmp_path / 'bin/gcloud',
        f'echo "$@" >>{tmp_path}/gcloud\n'
        'for x in "$@"; do case $x in\n'
        f'--command=*) HOME={home} && cd && exec bash -c "${{x#--command=}}" ;;\n'
        f'*.tar.gz) [[ $x == *:* ]] && cp "$last" {home}/"${{x#*:}}" ;;\n'
        'esac; last=$x; done; true',
    )
    program(tmp_path / 'bin/python3', f'echo "$@" >>{tmp_path}/python3')
    home.mkdir()

    def act(*arguments, **changes):
        given = {'ZONE': 'z', 'TYPE': 'v4-32', 'WORKDIR': 'gs://b/a run'} | changes
        return run(str(LAUNCH / 'tpu.sh'), *arguments, path=tmp_path / 'bin', **given)

    return act


@pytest.mark.parametrize(
    ('kind', 'image'),
    [
        ('v5litepod-16', 'v2-alpha-tpuv5-lite'),
        ('v5p-8', 'v2-alpha-tpuv5'),
        ('v6e-8', 'v2-alpha-tpuv6e'),
    ],
)
def test_the_image_follows_from_the_type(kind, image, tpu, tmp_path):
    assert tpu('create', TYPE=kind).returncode == 0
    assert f'--runtime-version={image} ' in (tmp_path / 'gcloud').read_text()


def test_a_tpu_is_asked_for_set_up_and_deleted(tpu, tmp_path):
    for action in (['create', '--spot'], ['state'], ['setup'], ['delete']):
        result = tpu(*action)
        assert result.returncode == 0, result.stderr
    created, *_, deleted = (tmp_path / 'gcloud').read_text().splitlines()
    assert created == (
        'compute tpus queued-resources create ssanet --node-id=ssanet '
        '--runtime-version=tpu-ubuntu2204-base --accelerator-type=v4-32 --spot --zone=z'
    )
    assert deleted == 'compute tpus queued-resources delete ssanet --force --zone=z'
    assert (tmp_path / 'home/ssanet/main.py').exists()
    installed = (tmp_path / 'python3').read_text()
    assert '--constraint=requirements-test.txt --editable=.[tensorflow,tpu]' in installed
    assert tpu('fly').returncode == 2


@pytest.mark.parametrize('name', ['docs/launch.md', 'launch/Dockerfile', 'launch/tpu.sh'])
def test_what_is_installed_is_pinned(name):
    """Installed by uv: pip refuses --editable together with the hashes of requirements.txt."""
    text = re.sub(r'\\\n\s*', '', (ROOT / name).read_text())
    installs = re.findall(r'^.*--editable=.*$', text, re.MULTILINE)
    assert installs
    for install in installs:
        assert re.search(r'uv pip install .*--constraint=requirements(-test)?\.txt ', install)


@pytest.mark.skipif(not shutil.which('pgrep'), reason='needs pgrep, of procps')
def test_a_tpu_run_starts_once_and_stops_saved(tpu, tmp_path):
    python = 'echo "$@" $JAX_COMPILATION_CACHE_DIR' + saves(tmp_path)
    program(tmp_path / 'home/ssanet/.venv/bin/python', python)
    shutil.copytree(LAUNCH, tmp_path / 'home/ssanet/launch')
    result = tpu('start', '--config.seed=1', JAX_COMPILATION_CACHE_DIR='gs://b/cache')
    assert result.returncode == 0, result.stderr
    wait_for((tmp_path / 'runs').exists)
    assert 'running already' in tpu('start').stderr
    assert tpu('stop').returncode == 0
    assert runs(tmp_path) == ['started', 'signal']
    log = (tmp_path / 'home/ssanet/run.log').read_text()
    flags = '--config=configs/imagenet_ssa50.py --workdir=gs://b/a run --config.seed=1'
    assert log == f'main.py {flags} gs://b/cache\n'
    assert tpu('stop').returncode != 0  # nothing runs


def test_pods_find_each_other():
    service, spec, arguments = SERVICE['metadata']['name'], JOB['spec'], CONTAINER['args']
    assert SERVICE['spec']['clusterIP'] == 'None'
    assert SERVICE['spec']['selector'].items() <= POD['metadata']['labels'].items()
    assert POD['spec']['subdomain'] == service
    assert (spec['completionMode'], spec['completions']) == ('Indexed', spec['parallelism'])
    assert f'--coordinator_address={JOB["metadata"]["name"]}-0.{service}:8476' in arguments
    assert f'--num_processes={spec["completions"]}' in arguments
    assert '--process_id=$(JOB_COMPLETION_INDEX)' in arguments


def test_pods_have_time_to_save_and_the_volumes_they_mount():
    assert POD['spec']['terminationGracePeriodSeconds'] == 120
    mounted = [mount['name'] for mount in CONTAINER['volumeMounts']]
    assert mounted == [volume['name'] for volume in POD['spec']['volumes']]


def test_the_kubernetes_job_fails_where_another_try_would_not_help():
    assert POD['spec']['restartPolicy'] == 'Never'  # podFailurePolicy asks for it
    rules = [
        (rule['action'], rule['onExitCodes']['values'], rule['onExitCodes']['containerName'])
        for rule in JOB['spec']['podFailurePolicy']['rules']
        if 'onExitCodes' in rule
    ]
    failed = sorted(code for code, row in TABLE.items() if row[2] == 'failed')
    assert failed == sorted(set(ENDS) - {0})
    name = CONTAINER['name']
    assert rules == [('FailJob', failed, name), ('Ignore', [75], name)]
    assert TABLE[75][2] == 'pod replaced'


def test_the_image_copies_what_there_is():
    lines = (LAUNCH / 'Dockerfile').read_text().splitlines()
    copied = [source for line in lines if line.startswith('COPY') for source in line.split()[1:-1]]
    assert all((ROOT / source).exists() for source in copied)
    (entry,) = (json.loads(line[10:]) for line in lines if line.startswith('ENTRYPOINT'))
    assert entry == ['launch/until_done.sh', 'python', 'main.py']
    assert {entry[0], entry[2], 'configs', 'ssanet_jax'} <= set(copied)
    assert 'USER 1000' in lines


def test_systemd_sends_one_signal_and_waits():
    service = (LAUNCH / 'ssanet.service').read_text()
    for line in ('KillMode=mixed', 'TimeoutStopSec=120', 'SuccessExitStatus=75'):
        assert f'\n{line}\n' in service


def flags_given():
    """The flags passed to main.py in each file and on the page."""
    yield 'k8s.yaml', [x.replace('$(JOB_COMPLETION_INDEX)', '1') for x in CONTAINER['args']]
    programs = r'(?:main\.py|ssanet train|slurm\.sbatch|tpu\.sh start|/data ssanet) +'
    for path in [*LAUNCH.iterdir(), PAGE]:
        text = re.sub(r'\\\n[# ]*', ' ', path.read_text())
        for line in re.findall(programs + '(--.*)', text):
            flags = shlex.split(line, comments=True)
            yield path.name, [x for x in flags if re.fullmatch(r'--[^$]+(?<!\.\.\.)', x)]


def test_every_flag_and_recipe_named_is_one_of_main(monkeypatch):
    found = list(flags_given())
    assert {name for name, _ in found} == {path.name for path in [*LAUNCH.iterdir(), PAGE]}
    monkeypatch.chdir(ROOT)
    for _, given in found:
        required = {'--config': 'configs/imagenet_ssa50.py', '--workdir': '/run'}
        for flag in given:
            required.pop(flag.partition('=')[0], None)
        argv = ['main.py', *(f'{flag}={value}' for flag, value in required.items()), *given]
        monkeypatch.setattr(sys, 'argv', argv)  # where ml_collections looks for overrides
        with own_flags(train):
            cli.parse(argv)
