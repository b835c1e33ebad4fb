"""Logs statistics of attention gates during training."""

import jax
from rich.console import Console

from ssanet_jax.analysis.gate_moments import GateMoments
from ssanet_jax.analysis.gates import summarize, tally_gates
from ssanet_jax.training.monitoring.console import say
from ssanet_jax.training.monitoring.metric_log import MetricsLog
from ssanet_jax.training.parallel import replicated
from ssanet_jax.training.steps import DeviceBatch, TrainState
from ssanet_jax.training.trainer_setup import TrainerSetup

_DEAD = {
    'constant': 'hardly varies, within images or between them',
    'closed': 'is closed nearly everywhere',
    'open': 'is open nearly everywhere',
}


class GateLog:
    """Writes statistics of the gates on a batch, in inference, and reports each dead gate once.

    Lines of metrics.jsonl of split 'gates', with values named as in 'layer1_0/ssa/mean', and the
    same in TensorBoard. A separate program computes them after a training step, whose own program
    does not change. They cover all devices and hosts; the first host writes.

    Args:
      setup: nothing is written if its `gates` are empty.
      log: to write to.
      console: to report dead gates on.
    """

    def __init__(self, setup: TrainerSetup, log: MetricsLog, console: Console):
        self._shapes = setup.gates
        self._log = log
        self._console = console
        self._reported: set[str] = set()

        def tally(state: TrainState, batch: DeviceBatch) -> tuple[GateMoments, ...]:
            images = setup.objective.preprocess(batch['image'])
            return tally_gates(setup.model, state.variables, images, batch['mask'])

        self._tally = jax.jit(tally, out_shardings=replicated(setup.mesh))

    def write(self, step: int, state: TrainState, batch: DeviceBatch) -> None:
        """Logs the gates of the state after `step`, on the step's batch."""
        if not self._shapes:
            return
        gates = summarize(self._shapes, self._tally(state, batch))
        values = {
            f'{name}/{key}': value
            for name, gate in gates.items()
            for key, value in gate.scalars().items()
        }
        self._log.write(step, 'gates', values)
        for name, gate in gates.items():
            if gate.dead and name not in self._reported:
                self._reported.add(name)
                text = f'step {step}: gate {name} {_DEAD[gate.dead]} (mean {gate.mean:.3f}).'
                say(self._console, text)
