"""Records Pulumi's steps with resource hooks, and reports their effect once all steps are known."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import pulumi

from infra.changes.effects import Endpoint, Estimate, Step, describe


class Watch:
    """The steps of one endpoint's resources.

    Hooks run before each create and update, also at preview. A replacement appears as a create. Deletes happen after the
    program exits, so removals are derived from the endpoint recorded in the state.
    """

    def __init__(self, name: str) -> None:
        """Register the hooks. `attach` is a transformation of the endpoint's component, which attaches them to its children.

        Args:
            name: name of the record in the state, and prefix of the hooks' names.
        """
        self._name = name
        self._component: pulumi.Resource | None = None
        self._steps: list[Step] = []
        self._watched: list[pulumi.Resource] = []
        self._names: list[str] = []
        self._before: Endpoint | None = None
        self._is_first = False
        self._hooks = pulumi.ResourceHookBinding(
            before_create=[self._hook("create", self._created)], before_update=[self._hook("update", self._updated)]
        )
        self._record_hooks = pulumi.ResourceHookBinding(
            before_create=[self._hook("first", self._first)], before_update=[self._hook("again", self._again)]
        )

    def say(self, component: pulumi.Resource, endpoint: Endpoint, estimate: Estimate) -> None:
        """Log one line about the change once every resource is registered; nothing at the first deploy.

        Args:
            component: the endpoint's component.
            endpoint: the endpoint after the change.
            estimate: duration and cost of fetching its weights and of a cold start.
        """
        self._component = component
        names = hashlib.sha256("\n".join(sorted(self._names)).encode()).hexdigest()[:16]
        known = dataclasses.replace(endpoint, parts=names)
        urns = [resource.urn for resource in self._watched]
        pulumi.Output.all(*urns).apply(lambda _: self._record(known, estimate))

    def _record(self, endpoint: Endpoint, estimate: Estimate) -> None:
        # Registered last: if a deploy fails halfway, the state still contains the previous endpoint.
        record = pulumi.Stash(
            self._name,
            input=endpoint.record(),
            opts=pulumi.ResourceOptions(parent=self._component, hooks=self._record_hooks),
        )
        record.urn.apply(lambda _: self._tell(endpoint, estimate))

    def _tell(self, endpoint: Endpoint, estimate: Estimate) -> None:
        if self._is_first:
            return
        line, hurts = describe(self._before or endpoint, endpoint, self._steps, estimate)
        if line:
            (pulumi.log.warn if hurts else pulumi.log.info)(line, self._component)

    def _hook(self, suffix: str, callback: pulumi.ResourceHookFunction) -> pulumi.ResourceHook:
        # A failure to report must not stop a deploy.
        options = pulumi.ResourceHookOptions(on_dry_run=True, ignore_errors=True)
        return pulumi.ResourceHook(f"{self._name}-{suffix}", callback, options)

    def attach(self, args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult | None:
        """The transformation."""
        if isinstance(args.resource, pulumi.ComponentResource) or args.type_.startswith("pulumi:"):
            return None
        self._watched.append(args.resource)
        self._names.append(f"{args.type_} {args.name}")
        hooked = pulumi.ResourceOptions.merge(args.opts, pulumi.ResourceOptions(hooks=self._hooks))
        return pulumi.ResourceTransformationResult(args.props, hooked)

    def _created(self, args: pulumi.ResourceHookArgs) -> None:
        self._steps.append(Step("create", args.type.rpartition(":")[2], args.name))

    def _updated(self, args: pulumi.ResourceHookArgs) -> None:
        changed = _changed(args.old_inputs or {}, args.new_inputs or {})
        self._steps.append(Step("update", args.type.rpartition(":")[2], args.name, changed))

    def _first(self, _: pulumi.ResourceHookArgs) -> None:
        self._is_first = True

    def _again(self, args: pulumi.ResourceHookArgs) -> None:
        self._before = Endpoint.of((args.old_inputs or {}).get("input") or {})


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> frozenset[str]:
    """Keys whose values differ. Unknown and secret values count as changed, as in Pulumi's own preview."""
    return frozenset(key for key in {*old, *new} if not key.startswith("__") and old.get(key) != new.get(key))
