"""The volume that stores weights and compile caches between engine starts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pulumi
from pulumi_kubernetes import core

from infra.kubernetes.pods import COMPONENTS, Labels

# Space for a second revision of the checkpoint, the compile cache, and the Hub client's own cache.
CHECKPOINTS_KEPT = 2
CACHES_GIB = 10
# A claim cannot shrink and often cannot grow, so a new size means a new claim. Rounding to steps makes that rare.
SIZE_STEP_GIB = 25


def claim_size_gib(checkpoint_gib: float) -> int:
    """Size to request, in GiB, for a checkpoint of ``checkpoint_gib``."""
    return math.ceil((CHECKPOINTS_KEPT * checkpoint_gib + CACHES_GIB) / SIZE_STEP_GIB) * SIZE_STEP_GIB


@dataclass(frozen=True)
class WeightsArgs:
    """``shared``: mounted by several pods on any nodes. ``storage_class``: empty for the cluster's default."""

    namespace: pulumi.Input[str]
    labels: Labels
    checkpoint_gib: float
    shared: bool
    storage_class: pulumi.Input[str]
    retain: bool


class Weights(pulumi.ComponentResource):
    """One PersistentVolumeClaim, because two might be bound in different zones, and no pod could mount both."""

    claim_name: pulumi.Output[str]

    def __init__(self, name: str, args: WeightsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(f"{COMPONENTS}:Weights", name, None, opts)
        claim = core.v1.PersistentVolumeClaim(
            name,
            # Many storage classes bind a claim only when its first pod is scheduled, and that pod waits for this resource.
            metadata=args.labels.metadata("engine", args.namespace, annotations={"pulumi.com/skipAwait": "true"}),
            spec=core.v1.PersistentVolumeClaimSpecArgs(
                access_modes=["ReadWriteMany" if args.shared else "ReadWriteOnce"],
                storage_class_name=args.storage_class or None,
                resources=core.v1.VolumeResourceRequirementsArgs(
                    requests={"storage": f"{claim_size_gib(args.checkpoint_gib)}Gi"}
                ),
            ),
            opts=pulumi.ResourceOptions(parent=self, retain_on_delete=args.retain or None, replace_on_changes=["spec"]),
        )
        self.claim_name = claim.metadata.apply(lambda metadata: str(metadata.name))
        self.register_outputs({"claim_name": self.claim_name})
