"""The front door: the only way in to the engine's replicas, on ECS, on Kubernetes and on a laptop.

A request's way through the modules:
`edge` (limits of one connection) -> `app` (paths, keys) -> `body` (size, JSON, model) -> `admission` (a slot on a
ready replica, or a place in the queue) -> `proxy` and `upstream` (streamed through) -> `telemetry` (log and metrics).
Beside it run `fleet` (which replicas are ready), `waking` (from zero) and `service` (start, drain, stop).
Started as `python -m image.gateway`; every setting is an environment variable, see `settings`.
"""

__version__ = "0.1.0"
