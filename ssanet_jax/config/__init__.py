"""Run configuration: fields with defaults and checks, and the schedule that follows from them."""

from ssanet_jax.config.defaults import TrainPlan, base, cifar, flatten, is_due, make_plan

__all__ = ['TrainPlan', 'base', 'cifar', 'flatten', 'is_due', 'make_plan']
