"""The gateway: the only way to reach the engine's replicas, on ECS, on Kubernetes and on a laptop.

A request passes through these modules:
`edge` (limits of one connection) -> `app` (paths, keys) -> `body` (size, JSON, model) -> `admission` (a slot on a
ready replica, or a place in the queue) -> `proxy` and `upstream` (streaming) -> `telemetry` (log and metrics).
`fleet` (which replicas are ready), `waking` (scaling from zero) and `service` (start, drain, stop) run beside them.
Start it with `python -m image.gateway`. Every setting is an environment variable; see `settings`.
"""

__version__ = "0.1.0"
