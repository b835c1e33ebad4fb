"""Run configuration: fields with defaults and checks, and the training plan they imply."""

from ssanet_jax.config.defaults import base, cifar, flatten, with_defaults
from ssanet_jax.config.plan import TrainPlan, is_due, make_plan

__all__ = ['TrainPlan', 'base', 'cifar', 'flatten', 'is_due', 'make_plan', 'with_defaults']
