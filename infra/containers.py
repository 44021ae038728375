"""Container settings shared by both targets: the entrypoint's code, vLLM's command line, the health check."""

from __future__ import annotations

from infra.planning.plan import ServingPlan

# The entrypoint's code is copied from the gateway's image, so that vLLM's upstream image (10 GB) runs without a rebuild.
CODE_PATH = "/srv/vllm-endpoint"
DELIVER = "import shutil; shutil.copytree('/app/image/engine', '/code/image/engine', dirs_exist_ok=True)"
DELIVERED_TO = "/code"
ENTRYPOINT = ("python3", "-m", "image.engine")
GATEWAY_USER_ID = 10001
"""The user of gateway.Dockerfile."""
# Neither image has curl. localhost may resolve to ::1, where vLLM does not listen. Proxy variables are ignored, because a
# proxy would resolve 127.0.0.1 to itself.
_HEALTH_CHECK = "import urllib.request as r; r.build_opener(r.ProxyHandler({{}})).open('http://127.0.0.1:{port}/health', timeout={timeout})"


def engine_arguments(plan: ServingPlan) -> list[str]:
    """The arguments of `vllm serve`: the model, a listen address reachable from other containers, and the plan's arguments."""
    return [plan.model, "--host", "0.0.0.0", "--port", str(plan.engine.port), *plan.engine.args]  # noqa: S104


def engine_environment(plan: ServingPlan) -> dict[str, str]:
    """The environment of the entrypoint, in the task that only downloads too: the plan's, and how long a start waits for a
    Hub from which nothing is received, as long as a start may take."""
    return {"ENGINE_START_LIMIT_SECONDS": str(plan.replicas.startup_timeout_seconds), **plan.engine.environment}


def health_command(port: int, timeout_seconds: int) -> list[str]:
    """A command that fails unless /health returns 200 within the timeout."""
    return ["python3", "-c", _HEALTH_CHECK.format(port=port, timeout=timeout_seconds)]
