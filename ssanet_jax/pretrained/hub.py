"""Files of repositories on the Hugging Face Hub, which huggingface_hub fetches and caches."""

import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from ssanet_jax.errors import ConfigError, one_line

_REPOSITORY = re.compile(r'[\w.-]+/[\w.-]+')


def fetch(repo: str, files: Sequence[str], revision: str | None = None) -> Path:
    """Fetches files of a repository unless they are cached; returns the folder that has them.

    A branch is looked up each time, if the Hub can be reached; without it, or with
    HF_HUB_OFFLINE=1, what was cached last is taken. HF_ENDPOINT, HF_HOME and HF_TOKEN are obeyed.

    Args:
      repo: 'user/name'.
      files: their names in the repository; those that it lacks are left out.
      revision: a branch, tag or commit; None: main.

    Raises:
      ConfigError: there is no such repository or revision, it is private, or the Hub and the cache
        do not have it.
    """
    check_name(repo)
    hub = require_hub()
    from huggingface_hub import errors

    wanted = f'hf://{repo}@{revision}' if revision else f'hf://{repo}'
    try:
        return Path(hub.snapshot_download(repo, revision=revision, allow_patterns=list(files)))
    except Exception as error:  # of huggingface_hub, its HTTP client, or the disk
        raise ConfigError(f'{wanted} {_reason(error, errors)}') from error


def _reason(error: Exception, errors: ModuleType) -> str:
    """What is wrong, and what to do."""
    login = 'run hf auth login or set HF_TOKEN'
    if isinstance(error, errors.GatedRepoError):
        return f'is gated: accept its conditions on its page, then {login}.'
    status = getattr(getattr(error, 'response', None), 'status_code', None)
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 403):
        return f'does not exist, or is private: check the name; for a private one, {login}.'
    if isinstance(error, errors.RevisionNotFoundError):
        return 'has no such revision; choose a branch, tag or commit of it.'
    if isinstance(error, errors.LocalEntryNotFoundError):
        return (
            'is not in the cache, and the Hub cannot be reached: check the connection, HF_ENDPOINT '
            'and HF_HUB_OFFLINE.'
        )
    return f'cannot be fetched: {one_line(error).rstrip(".")}. Try again later.'


def check_name(repo: str) -> None:
    """Raises ConfigError unless `repo` has the form user/name."""
    if not _REPOSITORY.fullmatch(repo):
        raise ConfigError(f'{repo!r} is not a repository of the Hub; write USER/NAME.')


def remedy(repo: str) -> str:
    """What to do about a cached file that is damaged."""
    return (
        f'run hf cache rm model/{repo} and load it again; if this remains, the repository itself '
        'is damaged'
    )


def require_hub() -> ModuleType:
    """The module huggingface_hub; raises ConfigError if it is not installed."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise ConfigError(
            "The Hub needs huggingface_hub: pip install huggingface_hub (the extra 'hub')."
        ) from error
    return huggingface_hub
