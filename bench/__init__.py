"""
What the engine costs, measured; README.md says how to read the figures.

One module in `micro`, `macro` or `compare` is one bench, named after the module. Its docstring
opens with the question it answers, and its `run(bench)` yields a `Result` for each figure.
"""
