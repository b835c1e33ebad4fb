"""What gates do while a network trains."""

import jax
from rich.console import Console

from ssanet_jax.analysis.gate_moments import GateMoments
from ssanet_jax.analysis.gates import summarize, tally_gates
from ssanet_jax.training.logs import MetricsLog
from ssanet_jax.training.parallel import replicated
from ssanet_jax.training.steps import DeviceBatch
from ssanet_jax.training.train_state import TrainState
from ssanet_jax.training.trainer_setup import TrainerSetup

_DEAD = {
    'constant': 'hardly varies, within images or between them',
    'closed': 'is closed nearly everywhere',
    'open': 'is open nearly everywhere',
}


class GateLog:
    """Writes what gates do on a batch, in inference, and says once of each that it is dead.

    Lines of metrics.jsonl of split 'gates', with values as 'layer1_0/ssa/mean', and the same in
    TensorBoard. A program of its own computes them, after a training step; that of training is the
    same with and without. Of all devices and hosts together; the first host writes.

    Args:
      run: writes nothing where its `gates` are none.
      log: to write to.
      console: to say it on.
    """

    def __init__(self, run: TrainerSetup, log: MetricsLog, console: Console):
        self._shapes = run.gates
        self._log = log
        self._console = console
        self._said: set[str] = set()

        def tally(state: TrainState, batch: DeviceBatch) -> tuple[GateMoments, ...]:
            images = run.preprocess(batch['image'])
            return tally_gates(run.model, state.variables, images, batch['mask'])

        self._tally = jax.jit(tally, out_shardings=replicated(run.mesh))

    def write(self, step: int, state: TrainState, batch: DeviceBatch) -> None:
        """Of the state after `step`, on the step's batch."""
        if not self._shapes:
            return
        found = summarize(self._shapes, self._tally(state, batch))
        values = {
            f'{name}/{key}': value
            for name, gate in found.items()
            for key, value in gate.scalars().items()
        }
        self._log.write(step, 'gates', values)
        for name, gate in found.items():
            if gate.dead and name not in self._said:
                self._said.add(name)
                text = f'step {step}: gate {name} {_DEAD[gate.dead]} (mean {gate.mean:.3f}).'
                self._console.print(text, soft_wrap=True, highlight=False, markup=False)
