"""A web application firewall (AWS WAF) in front of the load balancer.

It checks addresses and sizes but never prompts: SQL injection rules would match questions about SQL.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.aws.context import Context

# The gateway accepts 20 MiB (21 million bytes, eight digits); a larger Content-Length is rejected before the body is sent.
LARGEST_BODY = r"^(2[1-9]\d{6}|[3-9]\d{7}|\d{9,})$"
REPUTATION_LIST = "AWSManagedRulesAmazonIpReputationList"


@dataclass(frozen=True)
class FirewallArgs:
    """The rate limit and what it protects.

    Attributes:
        context: account, region, names and tags.
        load_balancer_arn: the load balancer that it protects.
        requests_per_five_minutes: limit per address; an address is blocked while it exceeds the limit.
    """

    context: Context
    load_balancer_arn: pulumi.Input[str]
    requests_per_five_minutes: int


class Firewall(pulumi.ComponentResource):
    """A web ACL that blocks addresses with a bad reputation, addresses over the rate limit, and oversized bodies."""

    def __init__(self, name: str, args: FirewallArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("vllm:aws:Firewall", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        reputation = aws.wafv2.WebAclRuleStatementArgs(
            managed_rule_group_statement=aws.wafv2.WebAclRuleStatementManagedRuleGroupStatementArgs(
                vendor_name="AWS", name=REPUTATION_LIST
            )
        )
        flood = aws.wafv2.WebAclRuleStatementArgs(
            rate_based_statement=aws.wafv2.WebAclRuleStatementRateBasedStatementArgs(
                limit=args.requests_per_five_minutes, aggregate_key_type="IP", evaluation_window_sec=300
            )
        )
        size = aws.wafv2.WebAclRuleStatementArgs(
            regex_match_statement=aws.wafv2.WebAclRuleStatementRegexMatchStatementArgs(
                regex_string=LARGEST_BODY,
                field_to_match=aws.wafv2.WebAclRuleStatementRegexMatchStatementFieldToMatchArgs(
                    single_header=aws.wafv2.WebAclRuleStatementRegexMatchStatementFieldToMatchSingleHeaderArgs(
                        name="content-length"
                    )
                ),
                text_transformations=[
                    aws.wafv2.WebAclRuleStatementRegexMatchStatementTextTransformationArgs(priority=0, type="NONE")
                ],
            )
        )
        block = aws.wafv2.WebAclRuleActionArgs(block=aws.wafv2.WebAclRuleActionBlockArgs())
        acl = aws.wafv2.WebAcl(
            name,
            scope="REGIONAL",
            description="In front of the load balancer of the endpoint",
            default_action=aws.wafv2.WebAclDefaultActionArgs(allow=aws.wafv2.WebAclDefaultActionAllowArgs()),
            rules=[
                aws.wafv2.WebAclRuleArgs(
                    name="reputation",
                    priority=0,
                    statement=reputation,
                    override_action=aws.wafv2.WebAclRuleOverrideActionArgs(
                        none=aws.wafv2.WebAclRuleOverrideActionNoneArgs()  # type: ignore[no-untyped-call]
                    ),
                    visibility_config=_visible(f"{name}-reputation"),
                ),
                aws.wafv2.WebAclRuleArgs(
                    name="flood", priority=1, statement=flood, action=block, visibility_config=_visible(f"{name}-flood")
                ),
                aws.wafv2.WebAclRuleArgs(
                    name="size", priority=2, statement=size, action=block, visibility_config=_visible(f"{name}-size")
                ),
            ],
            visibility_config=aws.wafv2.WebAclVisibilityConfigArgs(
                cloudwatch_metrics_enabled=True, metric_name=name, sampled_requests_enabled=False
            ),
            tags=args.context.tags("load-balancer", name),
            opts=child,
        )
        aws.wafv2.WebAclAssociation(
            name,
            resource_arn=args.load_balancer_arn,
            web_acl_arn=acl.arn,
            # A load balancer has one web ACL: deleting the old association after creating the new one would remove the new one.
            opts=pulumi.ResourceOptions(parent=self, delete_before_replace=True),
        )
        self.register_outputs({"arn": acl.arn})


def _visible(metric_name: str) -> aws.wafv2.WebAclRuleVisibilityConfigArgs:
    """One metric per rule; no sampled requests, because their headers contain API keys."""
    return aws.wafv2.WebAclRuleVisibilityConfigArgs(
        cloudwatch_metrics_enabled=True, metric_name=metric_name, sampled_requests_enabled=False
    )
