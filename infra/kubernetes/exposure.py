"""How clients outside the cluster reach the gateway, decided from the settings, and what cannot work there.

With ``domain``: an Ingress with TLS. With ``allowedCidrs`` alone: a load balancer of the cloud that lets those networks
in over plain HTTP. With neither nothing is published: an Ingress without a host would take every unclaimed request of
a controller that others share, and carry API keys in the clear.
"""

from __future__ import annotations

from infra.settings import NatGateways, PurchaseOption, Settings

TLS_SECRET_NAME = "gateway-tls"  # noqa: S105 - the name of a Secret
NGINX, ALB = "nginx", "alb"


def controller_of(ingress_class: str) -> str:
    """The Ingress controller whose annotations a class understands: nginx, alb or, where it is neither, an empty text.

    A class is told by its name, which must hold the controller's: ``nginx``, ``nginx-internal``, ``alb``.
    """
    return next((controller for controller in (NGINX, ALB) if controller in ingress_class), "")


def problems(settings: Settings) -> list[str]:
    """Settings that would expose the endpoint otherwise than they say, each with what to set instead."""
    found = []
    controller = controller_of(settings.kubernetes_ingress_class)
    if settings.certificate_arn and not (settings.domain and controller == ALB):
        found.append(
            f"certificateArn: found with kubernetesIngressClass {settings.kubernetes_ingress_class!r} and domain {settings.domain!r}; only an alb class takes it, and only for a domain. Set domain and kubernetesIngressClass: alb, or remove it and keep a certificate in the Secret {TLS_SECRET_NAME}"
        )
    if settings.domain and settings.allowed_cidrs and not controller:
        found.append(
            f"allowedCidrs: found with kubernetesIngressClass {settings.kubernetes_ingress_class!r}, whose controller's way to limit networks is not known here. Set kubernetesIngressClass to an nginx or alb class, or remove allowedCidrs and limit networks at the controller"
        )
    if settings.domain and settings.port not in (0, 443):
        found.append(f"port: found {settings.port}, but an Ingress with a domain listens on 443. Remove port")
    return found


def without_effect(settings: Settings) -> list[str]:
    """Keys that are set and do nothing on a cluster that somebody else made."""
    values: dict[str, object] = {
        "capacity": settings.capacity is not PurchaseOption.ON_DEMAND,
        "warmPool": settings.warm_pool,
        "vpcId": settings.vpc_id,
        "weightsFileSystemId": settings.weights_file_system_id,
        "natGateways": settings.nat_gateways is not NatGateways.SINGLE,
        "ttlHours": settings.ttl_hours,
        "monthlyBudgetUsd": settings.monthly_budget_usd,
        "alarmEmail": settings.alarm_email,
    }
    if not settings.domain:
        values["kubernetesIngressClass"] = settings.kubernetes_ingress_class
    return [key for key, is_set in values.items() if is_set]
