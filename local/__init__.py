"""`make local`: the plan as processes on this machine.

Two stages. `python3 -m local` runs on the bare system Python and only the standard library: it looks at the
machine (`preflight`), makes the environments (`environments`) and hands over to `.venv-local`. There `serve` plans,
settles the weights (`weights`, or `stand_in` where they cannot be had, one that sees for a model that sees), translates the plan's arguments for this
machine (`arguments`), starts vLLM (`engine`) and the gateway, and prints how to talk to it (`banner`). `check` is the
same with the smoke tests, the benchmark and the direct client run against it.
Every process is started through `leash`, so that none outlives the runner, however the runner ends.
"""
