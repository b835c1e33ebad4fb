"""Analyzes the raw data of a study."""

from ssanet_jax.study.folder import StudyFolder
from ssanet_jax.study.results import Analysis


def analyze(folder: StudyFolder) -> Analysis:
    """Reads the runs of a study and compares each variant with the baseline.

    An incomplete study is analyzed with the runs and pairs that it has.

    Raises:
      ConfigError: a file is missing or damaged, or there is no run.
    """
    raise NotImplementedError


def write_results(folder: StudyFolder) -> Analysis:
    """Writes results.json, whole or not at all; raises ConfigError as `analyze`."""
    raise NotImplementedError
