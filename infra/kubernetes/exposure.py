"""How clients outside the cluster connect to the gateway, and settings that cannot work.

With ``domain``: an Ingress with TLS. With only ``allowedCidrs``: a cloud load balancer that accepts plain HTTP from those
networks. With neither, the endpoint is not published, because an Ingress without a host would receive every unmatched
request of a shared controller, and would transmit API keys unencrypted.
"""

from __future__ import annotations

from infra.settings import NatGateways, PurchaseOption, Settings

TLS_SECRET_NAME = "gateway-tls"  # noqa: S105 - the name of a Secret
NGINX, ALB = "nginx", "alb"


def controller_of(ingress_class: str) -> str:
    """The Ingress controller whose annotations a class supports: nginx, alb, or an empty string for others.

    It is derived from the class's name, which must contain the controller's: ``nginx``, ``nginx-internal``, ``alb``.
    """
    return next((controller for controller in (NGINX, ALB) if controller in ingress_class), "")


def problems(settings: Settings) -> list[str]:
    """Settings that cannot expose the endpoint as specified, each with what to set instead."""
    found = []
    controller = controller_of(settings.kubernetes_ingress_class)
    if settings.certificate_arn and not (settings.domain and controller == ALB):
        found.append(
            f"certificateArn: found with kubernetesIngressClass {settings.kubernetes_ingress_class!r} and domain {settings.domain!r}; only an alb class supports it, and only with a domain. Set domain and kubernetesIngressClass: alb, or remove it and store a certificate in the Secret {TLS_SECRET_NAME}"
        )
    if settings.domain and settings.allowed_cidrs and not controller:
        found.append(
            f"allowedCidrs: found with kubernetesIngressClass {settings.kubernetes_ingress_class!r}, a controller for which restricting networks is not supported. Set kubernetesIngressClass to an nginx or alb class, or remove allowedCidrs and restrict networks at the controller"
        )
    if settings.domain and settings.port not in (0, 443):
        found.append(f"port: found {settings.port}, but an Ingress with a domain listens on 443. Remove port")
    return found


def without_effect(settings: Settings) -> list[str]:
    """Keys that are set but have no effect on an existing cluster."""
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
