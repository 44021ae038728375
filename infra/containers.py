"""What both targets say of a container: where the entrypoint's code is, vLLM's command line, the health check."""

from __future__ import annotations

from infra.planning.plan import ServingPlan

# The entrypoint's code comes from the gateway's image, so that vLLM's own image runs as it is and nobody builds 10 GB.
CODE_PATH = "/srv/vllm-endpoint"
DELIVER = "import shutil; shutil.copytree('/app/image/engine', '/code/image/engine', dirs_exist_ok=True)"
DELIVERED_TO = "/code"
ENTRYPOINT = ("python3", "-m", "image.engine")
GATEWAY_USER_ID = 10001
"""The user of gateway.Dockerfile."""
# Neither image has curl; localhost may be ::1, where vLLM does not listen; a proxy that the environment names has
# another 127.0.0.1.
_HEALTH_CHECK = "import urllib.request as r; r.build_opener(r.ProxyHandler({{}})).open('http://127.0.0.1:{port}/health', timeout={timeout})"


def engine_arguments(plan: ServingPlan) -> list[str]:
    """The arguments of `vllm serve`: the model, an address that other containers reach, and the plan's."""
    return [plan.model, "--host", "0.0.0.0", "--port", str(plan.engine.port), *plan.engine.args]  # noqa: S104


def health_command(port: int, timeout_seconds: int) -> list[str]:
    """A command that fails unless /health answers 200 within the timeout."""
    return ["python3", "-c", _HEALTH_CHECK.format(port=port, timeout=timeout_seconds)]
