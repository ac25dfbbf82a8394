"""One training run, from its recipe to its report, and the store that keeps all runs.

Read in this order: `recipes` (what is trained), `profiles` (the paper's experiments as recipes), `loop` (epochs),
`engine` (one step), `evaluation` (the report), `run_store` (every run once).
"""
