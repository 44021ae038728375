"""What the components of both targets share: arguments to settings, records in the state, protection, errors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pulumi
from pydantic.alias_generators import to_camel

from infra.arguments import fields_of
from infra.changes import Watch
from infra.errors import PlanError, SettingsError, UserError
from infra.identity import Identity
from infra.inputs import is_input, is_output, is_plain
from infra.planning import make_plan
from infra.planning.catalog.sources import FetchConfig
from infra.planning.deployment import deployment_problems
from infra.planning.plan import ServingPlan
from infra.protection import Protection
from infra.settings import Settings, Target, secret_text
from infra.settings_problems import as_argument, parse_settings
from infra.validation import validated

PACKAGE = "vllm-endpoint"
"""The package of the components' types, which is also the plugin's name."""
KINDS = ("VllmEndpoint", "VllmEndpointOnKubernetes")
"""The components' names, of which the stack-file program declares one."""
USUAL_REGION = "us-east-1"


class Endpoint(pulumi.ComponentResource):
    """An endpoint, the parent of everything that it creates.

    Attributes:
        identity: what its names and tags are derived from.
        is_whole_program: whether the stack-file program declares it, and nothing else.
        outputs_by_name: its outputs as the stack-file program exports them.
    """

    def _start(
        self, kind: str, name: str, identity: Identity, settings: Settings, opts: pulumi.ResourceOptions | None
    ) -> None:
        """Register the component, whose children are from then on noted, protected and watched."""
        self.identity = identity
        self.is_whole_program = not identity.endpoint
        self.outputs_by_name: dict[str, pulumi.Input[Any]] = {}
        self._protection = Protection(settings.protect)
        watched = "endpoint" if settings.target is Target.KUBERNETES and not identity.endpoint else None
        self._watch = Watch(watched or f"{identity.prefix(20)}-endpoint")
        ours = pulumi.ResourceOptions(transformations=[self._protection.note, self._watch.attach, *_waiting_for(opts)])
        super().__init__(f"{PACKAGE}:index:{kind}", name, None, pulumi.ResourceOptions.merge(opts, ours))

    @property
    def record_parents(self) -> list[pulumi.Input[str]]:
        """URNs under which an earlier deploy of this endpoint, perhaps to another target, can have made its records."""
        kinds = KINDS if self.is_whole_program else ()
        return [pulumi.create_urn(self._name, f"{PACKAGE}:index:{kind}") for kind in kinds]

    def _finish(self, outputs: Mapping[str, pulumi.Input[Any]]) -> None:
        """Declare what depends on every child, and register the outputs."""
        self._protection.guard(self.identity.record("guard"), self)
        self.outputs_by_name = dict(outputs)
        self.register_outputs(
            {to_camel(name): getattr(self, name) for name in type(self).__annotations__ if hasattr(self, name)}
        )


def settings_of(component: str, name: str, target: Target, values: Mapping[str, Any]) -> Settings:
    """The settings that a component's arguments are.

    Args:
        component: the component's class.
        name: its name.
        target: what it deploys to.
        values: the arguments, by name, in snake_case or camelCase. None: not given.

    Raises:
        pulumi.RunError: with every argument that cannot be used.
    """
    fields, title = fields_of(component), f"{component} {name}"
    names = {to_camel(name): name for name in Settings.model_fields}
    given = {names.get(key, key): value for key, value in values.items() if value is not None}
    problems = []
    for key in list(given):
        if key in Settings.model_fields and key not in fields:
            problems.append(f"{to_camel(key)}: not an argument of {component}. Remove it")
        elif key in fields and not is_input(fields[key]) and not is_plain(given[key]):
            problems.append(
                f"{to_camel(key)}: found an output of another resource, but planning needs the value. Set the value itself"
            )
        else:
            continue
        del given[key]
    try:
        settings = parse_settings(
            {to_camel(key): value for key, value in given.items()} | {"target": target.value}, title
        )
    except SettingsError as error:
        problems += map(as_argument, error.problems)
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''} in its arguments"
        raise pulumi.RunError("\n".join([f"{title}: {count}", *(f"  - {problem}" for problem in problems)]))
    return validated(settings, title)


@contextlib.contextmanager
def refusals_named(title: str) -> Iterator[None]:
    """Turn an error that the user can correct into one without traceback that names the component."""
    try:
        yield
    except UserError as error:
        raise pulumi.RunError(f"{title}: {error}") from None


def planned(settings: Settings, region: str = USUAL_REGION, fetch: FetchConfig | None = None) -> ServingPlan:
    """The plan. ``fetch`` reads the config.json of a model outside the catalog, see `make_plan`.

    Raises:
        PlanError: nothing can serve these settings.
    """
    plan = make_plan(settings, region=region, fetch=fetch)
    if reasons := deployment_problems(settings, plan, plan.cost.region):
        raise PlanError(reasons)
    return plan


def has_provider(opts: pulumi.ResourceOptions | None, package: str) -> bool:
    """Whether a component gets a provider of a package from its options, or from its parent's."""
    if opts is None:
        return False
    listed = opts.providers or ()
    found: Sequence[Any] = list(listed.values()) if isinstance(listed, Mapping) else listed
    if any(provider.package == package for provider in (*found, *filter(None, [opts.provider]))):
        return True
    return opts.parent is not None and opts.parent.get_provider(f"{package}:index:any") is not None


def keys_of(settings: Settings) -> pulumi.Output[str] | None:
    """The keys document that the settings give, a secret; None: one key is generated."""
    for given in (settings.api_keys_document, settings.api_keys):
        if is_output(given):
            return pulumi.Output.secret(given)
    return pulumi.Output.secret(settings.given_keys) if settings.given_keys else None


def token_of(settings: Settings) -> pulumi.Output[str] | None:
    """The Hugging Face token, a secret; None: there is none."""
    token = settings.hf_token
    if is_output(token):
        return pulumi.Output.secret(token)
    text = secret_text(token)
    return pulumi.Output.secret(text) if text else None


def _waiting_for(opts: pulumi.ResourceOptions | None) -> list[pulumi.ResourceTransformation]:
    """Let every child depend on what the component depends on: Pulumi itself lets only their creation wait for it."""
    if opts is None or not opts.depends_on:
        return []
    waits = pulumi.ResourceOptions(depends_on=opts.depends_on)

    def wait(args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult | None:
        if isinstance(args.resource, pulumi.ComponentResource):
            return None
        return pulumi.ResourceTransformationResult(args.props, pulumi.ResourceOptions.merge(args.opts, waits))

    return [wait]
