"""The load balancer: the only component that clients connect to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.aws.access_logs import AccessLogs
from infra.aws.context import Context

HTTP_PORT = 80
READY_PATH = "/health/ready"
# TLS 1.3, and TLS 1.2 with forward secrecy and AEAD only.
TLS_POLICY = "ELBSecurityPolicy-TLS13-1-2-Res-2021-06"
# A stopping gateway receives no new requests and finishes running ones: this delay first, then its own drain timeout.
DEREGISTRATION_DELAY_SECONDS = 300


@dataclass(frozen=True)
class LoadBalancerArgs:
    """The listeners, and their target.

    Attributes:
        context: account, region, names and tags.
        vpc_id: VPC of the targets.
        subnet_ids: at least two, in different zones.
        security_group_id: security group of the load balancer.
        internal: whether it is reachable only from inside the network.
        port: port of the endpoint.
        certificate_arn: certificate for HTTPS; None: HTTP.
        target_port: the gateway's port.
        idle_timeout_seconds: longer than the longest pause in a response.
        protect: whether deletion protection is enabled.
        access_logs: the bucket for access logs, or None.
        needs: resources that must exist before clients can connect and must be deleted after the load balancer.
    """

    context: Context
    vpc_id: pulumi.Input[str]
    subnet_ids: Sequence[pulumi.Input[str]]
    security_group_id: pulumi.Input[str]
    internal: bool
    port: int
    certificate_arn: pulumi.Input[str] | None
    target_port: int
    idle_timeout_seconds: int
    protect: bool
    access_logs: AccessLogs | None = None
    needs: Sequence[pulumi.Resource] = ()


def listener_ports(port: int, https: bool) -> tuple[int, ...]:
    """The ports that are open to clients: the endpoint's, and with HTTPS also port 80, which redirects."""
    return (port, HTTP_PORT) if https and port != HTTP_PORT else (port,)


class LoadBalancer(pulumi.ComponentResource):
    """An application load balancer with one target group.

    Attributes:
        resource: the load balancer.
        target_group: the target group that gateways register with.
        ready: the listener, which attaches the target group to the load balancer.
        dns_name: the DNS name that AWS assigns.
        access_logs: the bucket for access logs, or None.
    """

    def __init__(self, name: str, args: LoadBalancerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("vllm:aws:LoadBalancer", name, None, opts)
        self._args = args
        child = pulumi.ResourceOptions(parent=self)
        # A change of the scheme replaces the load balancer. A target group can belong to only one, so both get new names.
        exposed = f"{args.context.prefix}-{'int' if args.internal else 'pub'}"
        tags, logs = args.context.tags("load-balancer", exposed), args.access_logs
        self.resource = aws.lb.LoadBalancer(
            exposed,
            load_balancer_type="application",
            internal=args.internal,
            subnets=list(args.subnet_ids),
            security_groups=[args.security_group_id],
            idle_timeout=args.idle_timeout_seconds,
            drop_invalid_header_fields=True,
            desync_mitigation_mode="strictest",
            enable_http2=True,
            enable_deletion_protection=args.protect,
            access_logs=aws.lb.LoadBalancerAccessLogsArgs(bucket=logs.bucket.id, enabled=True) if logs else None,
            tags=tags,
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=[*args.needs, *(logs.ready if logs else ())],
                # An alias to the name of the other scheme, so that a change of the scheme is a replacement, which protect rejects.
                aliases=[pulumi.Alias(name=f"{args.context.prefix}-{'pub' if args.internal else 'int'}")],
            ),
        )
        self.target_group = aws.lb.TargetGroup(
            exposed,
            vpc_id=args.vpc_id,
            target_type="ip",
            protocol="HTTP",
            port=args.target_port,
            deregistration_delay=DEREGISTRATION_DELAY_SECONDS,
            # Streams last from a second to an hour, so least outstanding requests balances better than round robin.
            load_balancing_algorithm_type="least_outstanding_requests",
            health_check=aws.lb.TargetGroupHealthCheckArgs(
                path=READY_PATH, matcher="200", interval=10, timeout=5, healthy_threshold=2, unhealthy_threshold=3
            ),
            tags=tags,
            opts=child,
        )
        forward = aws.lb.ListenerDefaultActionArgs(type="forward", target_group_arn=self.target_group.arn)
        https = args.certificate_arn is not None
        self.ready = self._listener(
            exposed,
            args.port,
            forward,
            former=[exposed, f"{exposed}-redirect"] if args.port == HTTP_PORT else [exposed],
            depends_on=[],
        )
        if HTTP_PORT in listener_ports(args.port, https)[1:]:
            redirect = aws.lb.ListenerDefaultActionArgs(
                type="redirect",
                redirect=aws.lb.ListenerDefaultActionRedirectArgs(
                    protocol="HTTPS", port=str(args.port), status_code="HTTP_301"
                ),
            )
            # Created after the HTTPS listener: port 80 keeps serving requests until the redirect's target exists.
            self._listener(
                exposed, HTTP_PORT, redirect, former=[f"{exposed}-redirect"], depends_on=[self.ready], plain=True
            )
        self.dns_name = self.resource.dns_name
        self.access_logs = logs
        self.register_outputs({"dnsName": self.dns_name})

    def _listener(
        self,
        exposed: str,
        port: int,
        action: aws.lb.ListenerDefaultActionArgs,
        *,
        former: Sequence[str],
        depends_on: Sequence[pulumi.Resource],
        plain: bool = False,
    ) -> aws.lb.Listener:
        """The listener of one port, named after the port. AWS allows one listener per port, so a change updates its action.

        Args:
            exposed: the load balancer's name.
            port: the port that it listens on.
            action: the default action.
            former: its former names.
            depends_on: listeners that must exist first.
            plain: whether to use HTTP even if the endpoint has a certificate.
        """
        args = self._args
        https = args.certificate_arn is not None and not plain
        return aws.lb.Listener(
            f"{exposed}-{port}",
            load_balancer_arn=self.resource.arn,
            port=port,
            protocol="HTTPS" if https else "HTTP",
            ssl_policy=TLS_POLICY if https else None,
            certificate_arn=args.certificate_arn if https else None,
            default_actions=[action],
            routing_http_response_server_enabled=False,
            routing_http_response_strict_transport_security_header_value="max-age=31536000" if https else None,
            tags=args.context.tags("load-balancer", exposed),
            opts=pulumi.ResourceOptions(
                parent=self, depends_on=list(depends_on), aliases=[pulumi.Alias(name=name) for name in former]
            ),
        )
