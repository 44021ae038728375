"""How the gateway is exposed: internal only, to specific networks over HTTP, or as a domain over HTTPS."""

from typing import Any

import pytest

from infra.errors import PlanError
from tests.infra.kubernetes.rendering import LOAD_BALANCER, Rendered, render

DOMAIN = "llm.example.com"
CERTIFICATE = "arn:aws:acm:us-east-1:123456789012:certificate/abc"


def annotations(rendered: Rendered, resource: str) -> dict[str, str]:
    found: dict[str, str] = rendered.inputs[resource]["metadata"].get("annotations", {})
    return found


def test_nothing_is_published_unless_asked_for() -> None:
    rendered = render(kubernetesIngressClass="nginx", gatewayImage="registry.example.com/gateway:1")
    assert not [name for name in rendered.inputs if name.startswith("Ingress/")]
    assert rendered.spec("Service/gateway")["type"] == "ClusterIP"
    assert rendered.warnings == [
        "target kubernetes ignores: kubernetesIngressClass. Use the cluster's own tools instead"
    ]


def test_named_networks_come_in_over_plain_http() -> None:
    rendered = render(allowedCidrs=["203.0.113.0/24", "198.51.100.7/32"], port=8080)
    service = rendered.spec("Service/gateway")
    assert service["type"] == "LoadBalancer"
    assert service["loadBalancerSourceRanges"] == ["203.0.113.0/24", "198.51.100.7/32"]
    assert service["externalTrafficPolicy"] == "Local"
    assert [port["port"] for port in service["ports"]] == [8080]
    assert rendered.exports["endpoint"] == f"http://{LOAD_BALANCER}:8080"
    assert "howToOpen" not in rendered.exports
    idle = annotations(rendered, "Service/gateway")
    assert idle["service.beta.kubernetes.io/aws-load-balancer-connection-idle-timeout"] == str(
        rendered.plan.gateway.idle_timeout_seconds
    )
    assert not [name for name in rendered.inputs if name.startswith("Ingress/")]


def test_a_domain_is_served_over_https() -> None:
    rendered = render(domain=DOMAIN)
    ingress = rendered.spec("Ingress/ingress")
    (rule,) = ingress["rules"]
    assert rule["host"] == DOMAIN
    backend = {"service": {"name": "gateway", "port": {"name": "http"}}}
    assert rule["http"]["paths"] == [{"path": "/", "pathType": "Prefix", "backend": backend}]
    assert ingress["tls"] == [{"hosts": [DOMAIN], "secretName": "gateway-tls"}]
    assert "ingressClassName" not in ingress
    assert rendered.spec("Service/gateway")["type"] == "ClusterIP"
    assert rendered.exports["endpoint"] == f"https://{DOMAIN}"
    assert rendered.exports["openaiBaseUrl"] == f"https://{DOMAIN}/v1"
    assert rendered.exports["howToOpen"]["dns"].startswith(f"Point {DOMAIN} at the address")
    assert "kubectl -n vllm create secret tls gateway-tls" in rendered.exports["howToOpen"]["certificate"]


@pytest.mark.parametrize("ingress_class", ["", "nginx", "internal-nginx"])
def test_nginx_lets_long_answers_and_images_through(ingress_class: str) -> None:
    rendered = render(domain=DOMAIN, kubernetesIngressClass=ingress_class)
    prefix, idle = "nginx.ingress.kubernetes.io", str(rendered.plan.gateway.idle_timeout_seconds)
    assert annotations(rendered, "Ingress/ingress") == {
        f"{prefix}/proxy-read-timeout": idle,
        f"{prefix}/proxy-send-timeout": idle,
        f"{prefix}/proxy-buffering": "off",
        f"{prefix}/proxy-request-buffering": "off",
        f"{prefix}/proxy-body-size": "20m",
        f"{prefix}/proxy-next-upstream": "off",
    }


def test_an_alb_takes_its_certificate_networks_and_idle_timeout() -> None:
    rendered = render(
        domain=DOMAIN, kubernetesIngressClass="alb", certificateArn=CERTIFICATE, allowedCidrs=["203.0.113.0/24"]
    )
    found, prefix = annotations(rendered, "Ingress/ingress"), "alb.ingress.kubernetes.io"
    assert found[f"{prefix}/certificate-arn"] == CERTIFICATE
    assert found[f"{prefix}/inbound-cidrs"] == "203.0.113.0/24"
    assert found[f"{prefix}/listen-ports"] == '[{"HTTPS": 443}]'
    idle = rendered.plan.gateway.idle_timeout_seconds
    assert found[f"{prefix}/load-balancer-attributes"] == f"idle_timeout.timeout_seconds={idle}"
    assert "tls" not in rendered.spec("Ingress/ingress")
    # The networks limit the Ingress; a second way in must not open beside it.
    assert rendered.spec("Service/gateway")["type"] == "ClusterIP"


def test_a_controller_that_is_not_known_gets_a_warning_instead_of_annotations() -> None:
    rendered = render(domain=DOMAIN, kubernetesIngressClass="traefik", gatewayImage="registry.example.com/gateway:1")
    assert annotations(rendered, "Ingress/ingress") == {}
    (warning,) = rendered.warnings
    idle = rendered.plan.gateway.idle_timeout_seconds
    assert warning.startswith(f"kubernetesIngressClass traefik: set its controller's timeouts to at least {idle} s")


@pytest.mark.parametrize(
    ("values", "key"),
    [
        # HTTPS by the settings' rules, but no Ingress would be there to speak it.
        ({"certificateArn": CERTIFICATE, "allowedCidrs": ["0.0.0.0/0"]}, "certificateArn"),
        ({"certificateArn": CERTIFICATE, "domain": DOMAIN, "kubernetesIngressClass": "nginx"}, "certificateArn"),
        ({"domain": DOMAIN, "allowedCidrs": ["203.0.113.0/24"]}, "allowedCidrs"),
        ({"domain": DOMAIN, "allowedCidrs": ["203.0.113.0/24"], "kubernetesIngressClass": "traefik"}, "allowedCidrs"),
        ({"domain": DOMAIN, "port": 8443}, "port"),
    ],
)
def test_an_exposure_that_the_cluster_would_not_hold_is_refused(values: dict[str, Any], key: str) -> None:
    with pytest.raises(PlanError) as refusal:
        render(**values)
    (reason,) = refusal.value.problems
    assert reason.startswith(f"{key}: found ")
    assert "Set " in reason or "Remove " in reason
