"""Remembers the files of a run's data: which changed since its last start, which are bad.

`Workdir.data_files` has a line for each: name, bytes, time of change, digest, problem. A file
whose size and time are the same is not read again.
"""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import track

from ssanet_jax.data.builders import open_builder
