"""Errors, the field's protocols and prediction files, plots and reports; joints in, numbers out."""
