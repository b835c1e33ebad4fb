"""Continuing a study: what counts as the same study and the same code."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from ssanet_jax.errors import ConfigError
from ssanet_jax.study import description
from ssanet_jax.study.folder import StudyFolder

STUDY = """
from functools import partial

import flax.linen as nn
from block import Block

from configs import digits_ssa20
from ssanet_jax.study import Study, Variant

def get_study():
    config = digits_ssa20.get_config()
    config.dataset.data_dir = {data_dir!r}
    return Study(
        question='Does my block help?',
        config=config,
        variants={{'none': Variant(), 'mine': Variant(attention=partial(Block, act={act}))}},
        seeds=[0],
        smallest_effect=0.3,
    )
"""


@pytest.fixture
def describe(tmp_path, data_dir, monkeypatch):
    """Describes a study, as at a new start, with an activation and a comment of its block."""

    def describe(act='nn.relu', comment=''):
        monkeypatch.delitem(sys.modules, 'block', raising=False)
        (tmp_path / 'block.py').write_text(f'class Block: pass\n# {comment}')
        path = tmp_path / 'mine.py'
        path.write_text(STUDY.format(act=act, data_dir=str(data_dir)))
        return description.describe(path, {})

    monkeypatch.setattr(description.runner, 'cost', lambda study, name: {'parameters': 1})
    monkeypatch.setattr(description.runtime, 'enable_compilation_cache', lambda: None)
    return describe


def test_an_unchanged_study_may_continue(describe, tmp_path):
    first = describe()
    assert first['variants']['mine']['attention'] == 'Block(act=relu)'
    for now in (first, describe()):
        description.record(StudyFolder(tmp_path), now, allow_code_change=False)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'act': 'nn.gelu'}, 'a study with other variants.mine; choose a new --out'),
        (
            {'comment': 'better'},
            r'runs of other code: study was [0-9a-f]{12} and is [0-9a-f]{12}\. Check that '
            r'commit out .* and run python -m ssanet_jax\.tools\.study in its folder, or ',
        ),
    ],
)
def test_another_block_is_refused(describe, tmp_path, change, message):
    folder = StudyFolder(tmp_path)
    description.record(folder, describe(), allow_code_change=False)
    with pytest.raises(ConfigError, match=message):
        description.record(folder, describe(**change), allow_code_change=False)


def test_a_function_without_a_name_is_refused(describe):
    with pytest.raises(
        ConfigError, match='<lambda> cannot be identified when the study is continued'
    ):
        describe(act='lambda x: x')


def test_a_repository_around_the_environment_is_not_that_of_the_code(tmp_path, monkeypatch):
    package = tmp_path / '.venv/lib/ssanet_jax/__init__.py'
    package.parent.mkdir(parents=True)
    package.touch()
    for command in (['init', '-q'], ['add', '.'], ['commit', '-qm', 'all']):
        user = ['-c', 'user.name=a', '-c', 'user.email=a@b']
        subprocess.run(['git', *user, *command], cwd=tmp_path, check=True)
    found = SimpleNamespace(origin=str(package))
    monkeypatch.setattr(description.importlib.util, 'find_spec', lambda name: found)
    assert description._commit() == ''
    package.parent.joinpath('../.git').resolve().mkdir()
    assert description._commit() != ''
