"""The plugin: serves the components to Pulumi programs in any language.

Pulumi's SDK infers the package's schema from the components' annotations and docstrings (`component_provider_host`); this
host adds that a refusal reaches the user as one sentence, not as a traceback.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pulumi
from pulumi.errors import InputPropertyError
from pulumi.output import Inputs
from pulumi.provider import ConstructResult
from pulumi.provider import main as serve
from pulumi.provider.experimental.component import ComponentProvider
from pulumi.provider.server import ComponentInitError

from infra.aws.endpoint import VllmEndpoint
from infra.errors import UserError
from infra.kubernetes.endpoint import VllmEndpointOnKubernetes

NAME = "vllm-endpoint"
COMPONENTS: list[type[pulumi.ComponentResource]] = [VllmEndpoint, VllmEndpointOnKubernetes]


class Provider(ComponentProvider):
    """Constructs the components."""

    def construct(
        self, name: str, resource_type: str, inputs: Inputs, options: pulumi.ResourceOptions | None = None
    ) -> ConstructResult:
        """Construct a component.

        Raises:
            InputPropertyError: its arguments, account or cluster cannot work, in the component's words.
        """
        try:
            return super().construct(name, resource_type, inputs, options)
        except ComponentInitError as error:
            if not isinstance(error.inner, UserError | pulumi.RunError):
                raise
            raise InputPropertyError(name, str(error.inner)) from None


def version() -> str:
    """The package's version."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def main() -> None:
    """Serve until the engine ends the process."""
    serve(Provider(COMPONENTS, NAME, None, version()), sys.argv[1:])
