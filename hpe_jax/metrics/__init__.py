"""Errors, the field's protocols and prediction files, plots and reports; joints in, numbers out."""

from hpe_jax.metrics.errors import errors, summary

__all__ = ["errors", "summary"]
