"""Saves checkpoints through Orbax, in the background."""

import contextlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
from absl import logging
from etils import epath

from ssanet_jax.errors import ConfigError, SaveError, file_errors, reason_of
from ssanet_jax.training.checkpoints import integrity
from ssanet_jax.training.checkpoints.reader import CheckpointReader, listed
from ssanet_jax.training.multihost import agreement, hosts
from ssanet_jax.training.storage.atomic_io import check_room, retry_with_backoff, write_error
from ssanet_jax.training.storage.workdir import Workdir

_LOCK = 'the lock of the workdir'


class Checkpoints(CheckpointReader):
    """The checkpoints of a run that trains; a context manager that waits for unfinished saves.

    Args:
      workdir: as for `CheckpointReader`.
      keep: number of newest checkpoints to keep, in addition to the best.
    """

    _read_only = False

    def __init__(self, workdir: epath.PathLike, *, keep: int = 1):
        folder = Workdir(workdir).checkpoints
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except file_errors() as error:
            raise ConfigError(
                f'{folder} cannot be created: {reason_of(error)}. Move what is there away, or use '
                'a new workdir.'
            ) from error
        self._saving: int | None = None  # the step whose save runs in the background
        super().__init__(workdir, keep=keep)

    def __exit__(self, kind: type | None, *exception: object) -> None:
        try:
            super().__exit__(kind, *exception)
            if kind is None:
                self._empty_pruned()
        except Exception as error:
            if kind is None:
                raise
            logging.error(
                'The checkpoint of step %s could not be written either: %s', self._saving, error
            )

    def save(self, step: int, tree: Any, *, wait: bool = False) -> None:
        """Saves in the background, or before it returns if asked to `wait`.

        A step that is already saved, or being saved, is not saved again. If the save before
        failed, this one is waited for, so that a disk that stays full ends the run here.

        Raises:
          SaveError: this checkpoint could not be written; on several hosts, or the one before; or
            the workdir is another run's now.
        """
        hosts.raise_on_all_hosts(self._workdir.check_lock, _LOCK)
        wait = self._previous_failed(step) or wait
        self._empty_pruned()

        def write() -> None:
            self._workdir.check_lock()
            if not self.directory.is_dir():  # Orbax would create it
                raise FileNotFoundError(f'{self.directory} is gone')
            check_room(self.directory, sum(leaf.nbytes for leaf in jax.tree.leaves(tree)))
            try:
                if step not in self._manager.all_steps():
                    self._manager.save(step, args=integrity.Save(tree, step=step))
                    self._saving = step
                if wait:
                    self._manager.wait_until_finished()
            except Exception:
                self._reopen()
                raise

        retry_with_backoff(write, self._name(step), partial(self._remedy, step))

    def _previous_failed(self, step: int) -> bool:
        """Waits for the save in the background; warns if another step than `step` failed."""
        previous, self._saving = self._saving, None
        try:
            self._manager.wait_until_finished()
            return False
        except file_errors(ValueError) as error:
            if hosts.host_lost(error) or previous is None:
                raise
            reason = write_error(error)
            if jax.process_count() > 1:
                raise SaveError(
                    f'{self._name(previous)} could not be written: {reason} '
                    f'{self._remedy(previous)}'
                ) from error
            outcome = 'retrying' if previous == step else f'saving step {step} instead'
            logging.warning(
                '%s could not be written: %s Now %s.', self._name(previous), reason, outcome
            )
            self._reopen()
            return True

    def raise_if_failed(self, step: int) -> None:
        """Raises SaveError if a save in the background has failed on this one of several hosts.

        The others would wait for it. A single host tries again with its next save.
        """
        if self._barrier.error:
            self._previous_failed(step)

    def _remedy(self, step: int) -> str:
        others = [s for s in self._workdir.checkpoint_steps() if s != step]
        return (
            f'The checkpoints of steps {listed(others)} are unharmed; free some space or bring '
            'the folder back, then run the same command again.'
        )

    def _reopen(self) -> None:
        """Forgets a save that failed."""
        if jax.process_count() == 1:
            self._workdir.check_lock()
            with contextlib.suppress(Exception):
                self._manager.close()
            integrity.remove_unfinished(self.directory)
            self._manager = self._open()

    def evaluated(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Records the evaluation of `step`."""
        self.evaluations[step] = metrics

    def prune(self, *, verify: bool = False) -> list[int]:
        """Deletes all but the newest `keep` and the best; returns the steps deleted.

        Raises:
          ConfigError: `verify` found a checkpoint to keep that is damaged; none is deleted then.
          SaveError: the workdir is another run's now.
        """
        hosts.raise_on_all_hosts(self._workdir.check_lock, _LOCK)
        self._manager.wait_until_finished()
        steps = self.steps()
        kept = self._retention.kept(steps)
        for step in sorted(kept) if verify else ():
            if reason := self.damage(step):
                raise ConfigError(
                    f'{self._name(step)}, which would be kept, is damaged: {reason} Move it away '
                    'first; none was deleted.'
                )
        deleted = sorted(set(steps) - kept)
        for step in deleted:
            self._manager.delete(step)
        self._empty_pruned()
        return deleted

    def _empty_pruned(self) -> None:
        """Deletes what Orbax moved to `pruned`, at once, so that no reader saw a half of it."""
        if jax.process_index() == 0:
            self._workdir.check_lock()
            with contextlib.suppress(*file_errors()):  # the next call tries again
                self._workdir.pruned.rmtree(missing_ok=True)

    def written(self) -> list[int]:
        """Steps of the complete checkpoints, ascending, once the save in progress has ended."""
        with contextlib.suppress(Exception):  # It could not be written.
            self._manager.wait_until_finished()
        return self._workdir.checkpoint_steps()

    def newest_good(self) -> tuple[int | None, dict[int, str]]:
        """Finds the newest undamaged checkpoint, once all hosts agree on it.

        Newer, damaged ones are moved to the workdir's folder damaged/, and unfinished ones removed.

        Returns:
          Its step, or None if there is no checkpoint; and the damage of each newer one.

        Raises:
          ConfigError: all are damaged, or hosts see different ones.
          RunError: they cannot be read now.
        """
        find = partial(integrity.newest_good, self._workdir, self.damage)
        good, damaged = hosts.raise_on_all_hosts(find, 'the check of the checkpoints')
        what = f'the newest checkpoint in {self._workdir}'
        agreement.check_same({what: good}, what)
        for step in [step for step in self.evaluations if step > (good or 0)]:
            del self.evaluations[step]
        tidy = partial(integrity.tidy, self._workdir, list(damaged))
        hosts.raise_on_all_hosts(tidy, 'the removal of damaged checkpoints')
        self._manager.reload()
        return good, damaged
