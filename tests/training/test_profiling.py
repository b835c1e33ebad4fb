"""Profiler traces."""

import jax
import jax.numpy as jnp
from etils import epath
from ml_collections import ConfigDict

from ssanet_jax.training.monitoring.profiling import Trace


def test_steps_to_profile_that_have_passed_are_said(tmp_path, caplog):
    config = ConfigDict({'profile_start_step': 10, 'profile_num_steps': 3})
    Trace(config, epath.Path(tmp_path), 9)
    assert not caplog.text
    Trace(config, epath.Path(tmp_path), 10)
    assert 'config.profile_start_step=10 has passed: the run resumes from step 10' in caplog.text


def test_processes_of_one_machine_write_traces_of_their_own(tmp_path, monkeypatch):
    config = ConfigDict({'profile_start_step': 1, 'profile_num_steps': 1})
    monkeypatch.setattr(jax, 'process_count', lambda: 2)
    for index in range(2):
        monkeypatch.setattr(jax, 'process_index', lambda index=index: index)
        with Trace(config, epath.Path(tmp_path), 0) as trace:
            trace.before(1)
            trace.after(1, jnp.zeros(1))
    traces = tmp_path.rglob('*.xplane.pb')
    assert {path.relative_to(tmp_path).parts[0] for path in traces} == {'process0', 'process1'}
