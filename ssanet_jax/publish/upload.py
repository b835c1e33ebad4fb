"""Uploads a published folder to the Hugging Face Hub."""

from pathlib import Path

from ssanet_jax.errors import ConfigError, one_line
from ssanet_jax.pretrained import description, hub
from ssanet_jax.pretrained.folder import check_sha256
from ssanet_jax.publish.folder import CARD

_FILES = (description.FILE, description.WEIGHTS, CARD)


def upload(folder: Path, repo: str, *, private: bool = False) -> str:
    """Uploads the folder in one commit, creating the repository if needed; returns its address.

    Args:
      folder: from `write_folder`; only its own three files are uploaded.
      repo: 'user/name'.
      private: whether a new repository is private; an old one stays as it is.

    Raises:
      ConfigError: the folder is damaged, there is no token with write access, or the Hub refuses.
    """
    hub.check_name(repo)
    described = description.read(folder)
    check_sha256(folder / description.WEIGHTS, described.sha256, 'publish it again')
    api = hub.require_hub().HfApi()
    try:
        api.create_repo(repo, private=private or None, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=list(_FILES),
            commit_message=f'{described.network}, published by ssanet-jax',
        )
    except Exception as error:  # of huggingface_hub, its HTTP client, or the disk
        raise ConfigError(
            f'{folder} was not uploaded to {repo}: {one_line(error)} Run hf auth login, or set '
            'HF_TOKEN to a token with write access, and check the name.'
        ) from error
    return str(commit.commit_url)
