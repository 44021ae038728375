"""The stack-file program: settings -> one component -> outputs."""

from __future__ import annotations

import sys
from pathlib import Path

import pulumi

# Pulumi runs this folder as a script, but the imports use the package name `infra`.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from infra.component import Endpoint
from infra.errors import UserError
from infra.outputs import for_people_first
from infra.refusal import refuse
from infra.settings import Settings, Target
from infra.stack_config import read_settings


def main() -> None:
    """Declare the stack, or explain why it cannot work and what to set."""
    try:
        endpoint = declare(read_settings())
    except UserError as error:
        refuse(str(error))
    for name, value in for_people_first(endpoint.outputs_by_name).items():
        pulumi.export(name, value)


def declare(settings: Settings) -> Endpoint:
    """The stack's one endpoint. A target's SDK is imported only where it is used."""
    if settings.target is Target.KUBERNETES:
        from infra.kubernetes.endpoint import VllmEndpointOnKubernetes

        return VllmEndpointOnKubernetes.of_stack(settings)
    from infra.aws.endpoint import VllmEndpoint

    return VllmEndpoint.of_stack(settings)


if sys.argv[1:2] in (["-h"], ["--help"]):
    print(
        "usage: pulumi up\n\nThe Pulumi program, run by pulumi preview, up and destroy, or by make up. make plan does not require Pulumi."
    )
    sys.exit(0)
main()
