"""The plugin: serves the components to Pulumi programs in any language.

Pulumi's SDK infers the package's schema from the components' annotations and docstrings (`component_provider_host`); this
host adds which arguments are secret, and that a refusal reaches the user as one sentence, not as a traceback.
"""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import pulumi
from pulumi.errors import InputPropertiesError
from pulumi.output import Inputs
from pulumi.provider import ConstructResult, server
from pulumi.provider.experimental.analyzer import ComponentDefinition, PropertyType
from pulumi.provider.experimental.component import ComponentProvider
from pydantic.alias_generators import to_camel

from infra.aws.endpoint import VllmEndpoint
from infra.errors import UserError
from infra.kubernetes.endpoint import VllmEndpointOnKubernetes
from infra.settings import SECRET_FIELDS

NAME = "vllm-endpoint"
COMPONENTS: list[type[pulumi.ComponentResource]] = [VllmEndpoint, VllmEndpointOnKubernetes]


class Provider(ComponentProvider):
    """Constructs the components."""

    def __init__(self) -> None:
        super().__init__(COMPONENTS, NAME, None, version())
        schema = json.loads(self.schema or "")
        for resource in schema["resources"].values():
            for name in map(to_camel, SECRET_FIELDS):
                # An SDK then marks the value as a secret, also where the program did not.
                resource["inputProperties"][name]["secret"] = True
        self.schema = json.dumps(schema)

    def construct(
        self, name: str, resource_type: str, inputs: Inputs, options: pulumi.ResourceOptions | None = None
    ) -> ConstructResult:
        """Construct a component.

        Raises:
            InputPropertiesError: its arguments, account or cluster cannot work, in the component's words.
        """
        try:
            return super().construct(name, resource_type, inputs, options)
        except server.ComponentInitError as error:
            if not isinstance(error.inner, UserError | pulumi.RunError):
                raise
            raise InputPropertiesError(str(error.inner), []) from None

    def map_inputs(self, inputs: Inputs, component_def: ComponentDefinition) -> Inputs:
        """The arguments by their names in Python.

        The SDK's own mapping drops arguments that the component does not have, and cannot convert outputs: here all of them
        reach the component, which says what is wrong with them.
        """
        mapped: dict[str, Any] = {}
        for key, value in (inputs or {}).items():
            known = component_def.inputs.get(key)
            if known and known.type is PropertyType.INTEGER and isinstance(value, float) and value.is_integer():
                value = int(value)  # every number is a float on the way here
            mapped[component_def.inputs_mapping.get(key, key)] = value
        return mapped


class Servicer(server.ProviderServicer):
    """The provider as the engine calls it."""

    async def _construct(self, request: Any, context: Any) -> Any:
        """Construct a component, and wait for its outputs, whose values can still be refused."""
        try:
            return await super()._construct(request, context)
        except (UserError, pulumi.RunError) as error:
            raise InputPropertiesError(str(error), []) from None


def version() -> str:
    """The package's version."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def main() -> None:
    """Serve until the engine ends the process."""
    vars(server)["ProviderServicer"] = Servicer  # `main` offers no other way to choose it
    server.main(Provider(), sys.argv[1:])
