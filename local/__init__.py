"""`make local`: runs the plan as processes on this machine.

There are two stages. `python3 -m local` runs on the system's Python with only the standard library: it checks the
machine (`preflight`), creates the environments (`environments`) and execs the second stage in `.venv-local`. There, `serve`
plans, chooses the model (`weights`, or `stand_in` if the weights are not available), translates the plan's arguments for
this machine (`arguments`), starts vLLM (`engine`) and the gateway, and prints how to use the endpoint (`banner`). `check`
then also runs the smoke tests, the benchmark and the direct client.
Every process is started through `leash`, so that none outlives the runner, however the runner exits.
"""

from infra.interrupts import quiet_while_importing

quiet_while_importing()
