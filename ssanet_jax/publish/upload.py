"""Uploads a published folder to the Hugging Face Hub."""

from pathlib import Path

from ssanet_jax.errors import ConfigError, one_line
from ssanet_jax.export.export import README
from ssanet_jax.pretrained import description, hub
from ssanet_jax.pretrained.folder import check_sha256

_FILES = (description.FILE, description.WEIGHTS, README)


def upload(folder: Path, repo: str, *, private: bool = False) -> str:
    """Uploads the folder in one commit, creating the repository if needed; returns its address.

    Args:
      folder: from `write_folder`; only its own three files are uploaded.
      repo: 'user/name'.
      private: whether a new repository is private, and a public one is refused.

    Raises:
      ConfigError: the folder is damaged, there is no token with write access, the Hub refuses, or
        the repository is public although `private`.
    """
    hub.check_name(repo)
    described = description.read(folder)
    check_sha256(folder / description.WEIGHTS, described.sha256, 'publish it again')
    api = hub.require_hub().HfApi()
    try:
        api.create_repo(repo, private=private or None, exist_ok=True)
        if private and not api.repo_info(repo).private:
            raise ConfigError(
                f'{repo} exists and is public: make it private on its page, name another --repo, '
                'or leave out --private. Nothing was uploaded.'
            )
        commit = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=list(_FILES),
            commit_message=f'{described.network}, published by ssanet-jax',
        )
    except ConfigError:
        raise
    except Exception as error:  # of huggingface_hub, its HTTP client, or the disk
        raise ConfigError(
            f'{folder} was not uploaded to {repo}: {one_line(error).rstrip(".")}. Run hf auth '
            'login, or set HF_TOKEN to a token with write access, and check the name.'
        ) from error
    return str(commit.commit_url)
