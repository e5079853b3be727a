"""The training loop and what it is made of.

Read `loop.py` top to bottom; it calls `checks` (of the config), `state` (what is trained),
`optimizers` (how), `step` (one jitted update), `checkpoints` (exact resume) and `evaluation` (the
test split).
"""
