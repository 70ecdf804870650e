"""
The promises of the engine, each with the program that tries to break it.

One module here is one promise: `PROMISE`, a sentence; `ROUNDS`, how often it is tried unless the
command line says otherwise; and `prove(plan)`, which tries it and returns a `Verdict`. `ops/prove`
lists and runs them.
"""
