"""The command `ssanet train`, for a checkout: python main.py --config=... --workdir=..."""

from ssanet_jax.tools import commands

if __name__ == '__main__':
    commands.run('train')
