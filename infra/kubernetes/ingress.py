"""The Ingress: a domain and its certificate in front of the gateway's Service."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pulumi
from pulumi_kubernetes import networking

from infra.kubernetes import gateway
from infra.kubernetes.exposure import ALB, NGINX, TLS_SECRET_NAME, controller_of
from infra.kubernetes.pods import COMPONENTS, Labels

# Bodies up to the gateway's default GATEWAY_MAX_BODY_BYTES must be allowed, because requests may contain images.
MAX_BODY = "20m"


@dataclass(frozen=True)
class IngressArgs:
    """``ingress_class``: empty for the cluster's default. ``certificate_arn``: ACM certificate, for an alb class."""

    namespace: pulumi.Input[str]
    labels: Labels
    ingress_class: str
    domain: str
    certificate_arn: pulumi.Input[str]
    allowed_cidrs: tuple[str, ...]
    idle_timeout_seconds: int
    service_name: pulumi.Input[str]


class Ingress(pulumi.ComponentResource):
    """One Ingress, with TLS from the Secret gateway-tls (from cert-manager or created by the user) or from ACM."""

    def __init__(self, name: str, args: IngressArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(f"{COMPONENTS}:Ingress", name, None, opts)
        backend = networking.v1.IngressBackendArgs(
            service=networking.v1.IngressServiceBackendArgs(
                name=args.service_name, port=networking.v1.ServiceBackendPortArgs(name="http")
            )
        )
        path = networking.v1.HTTPIngressPathArgs(path="/", path_type="Prefix", backend=backend)
        networking.v1.Ingress(
            name,
            metadata=args.labels.metadata(
                gateway.NAME, args.namespace, name=gateway.NAME, annotations=controller_annotations(args)
            ),
            spec=networking.v1.IngressSpecArgs(
                ingress_class_name=args.ingress_class or None,
                rules=[
                    networking.v1.IngressRuleArgs(
                        host=args.domain, http=networking.v1.HTTPIngressRuleValueArgs(paths=[path])
                    )
                ],
                tls=None
                if args.certificate_arn
                else [networking.v1.IngressTLSArgs(hosts=[args.domain], secret_name=TLS_SECRET_NAME)],
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})


def controller_annotations(args: IngressArgs) -> dict[str, pulumi.Input[str]]:
    """Annotations that allow long responses, held requests and image uploads.

    They are for ingress-nginx and the AWS Load Balancer Controller. The cluster's default class gets ingress-nginx's; other
    controllers ignore them. Traefik and Contour have no annotation for timeouts, and GKE uses a BackendConfig: with these, set
    a timeout of ``idle_timeout_seconds`` at the controller.
    """
    cidrs = ",".join(args.allowed_cidrs)
    controller = controller_of(args.ingress_class)
    if controller == ALB:
        found: dict[str, pulumi.Input[str]] = {
            "scheme": "internet-facing",
            "target-type": "ip",
            "listen-ports": json.dumps([{"HTTPS": 443}]),
            "healthcheck-path": "/health/ready",
            "load-balancer-attributes": f"idle_timeout.timeout_seconds={args.idle_timeout_seconds}",
        }
        found |= {"certificate-arn": args.certificate_arn} if args.certificate_arn else {}
        found |= {"inbound-cidrs": cidrs} if cidrs else {}
    elif controller == NGINX or not args.ingress_class:
        found = {
            "proxy-read-timeout": str(args.idle_timeout_seconds),
            "proxy-send-timeout": str(args.idle_timeout_seconds),
            "proxy-buffering": "off",
            "proxy-request-buffering": "off",
            "proxy-body-size": MAX_BODY,
            # The gateway retries if it is safe; a retry here might run a request twice.
            "proxy-next-upstream": "off",
        }
        found |= {"whitelist-source-range": cidrs} if cidrs else {}
    else:
        return {}
    return {f"{controller or NGINX}.ingress.kubernetes.io/{name}": value for name, value in found.items()}
