"""A custom domain: its certificate, and the DNS record that points to the load balancer."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.aws.context import Context
from infra.aws.lookups import ask

VALIDATION_RECORD_TTL_SECONDS = 60


def hosted_zone_name(domain: str, hosted_zone: str) -> str:
    """The Route 53 zone of ``domain``: hostedZone if it is set, else the domain without its first label."""
    parent = domain.partition(".")[2]
    return hosted_zone or (parent if "." in parent else domain)


def find_hosted_zone(domain: str, hosted_zone: str, lookup: pulumi.InvokeOptions) -> str:
    """The id of the public hosted zone that contains ``domain``.

    Raises:
        DeployError: the zone does not exist.
    """
    name = hosted_zone_name(domain, hosted_zone)
    return ask(
        f"domain: the Route 53 zone {name} of {domain} (hostedZone names another)",
        lambda: aws.route53.get_zone(name=name, private_zone=False, opts=lookup).zone_id,
    )


@dataclass(frozen=True)
class CertificateArgs:
    """The domain name of the certificate, and the zone for DNS validation."""

    context: Context
    domain: str
    zone_id: pulumi.Input[str]


class Certificate(pulumi.ComponentResource):
    """An ACM certificate with DNS validation; AWS renews it automatically.

    Attributes:
        arn: the certificate's ARN, known once it is issued.
    """

    def __init__(self, name: str, args: CertificateArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("vllm:aws:Certificate", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        certificate = aws.acm.Certificate(
            name,
            domain_name=args.domain,
            validation_method="DNS",
            tags=args.context.tags("load-balancer", name),
            opts=child,
        )
        proof = certificate.domain_validation_options[0]
        record = aws.route53.Record(
            f"{name}-proof",
            zone_id=args.zone_id,
            name=proof.resource_record_name,
            type=proof.resource_record_type,
            records=[proof.resource_record_value],
            ttl=VALIDATION_RECORD_TTL_SECONDS,
            allow_overwrite=True,  # the validation record of a name is the same for every certificate
            opts=child,
        )
        issued = aws.acm.CertificateValidation(
            name, certificate_arn=certificate.arn, validation_record_fqdns=[record.fqdn], opts=child
        )
        self.arn = issued.certificate_arn
        self.register_outputs({"arn": self.arn})


@dataclass(frozen=True)
class DomainRecordArgs:
    """The domain name, its zone, and the load balancer that it points to."""

    domain: str
    zone_id: pulumi.Input[str]
    load_balancer: aws.lb.LoadBalancer


class DomainRecord(pulumi.ComponentResource):
    """The alias record of the endpoint."""

    def __init__(self, name: str, args: DomainRecordArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("vllm:aws:DomainRecord", name, None, opts)
        aws.route53.Record(
            name,
            zone_id=args.zone_id,
            name=args.domain,
            type="A",
            aliases=[
                aws.route53.RecordAliasArgs(
                    name=args.load_balancer.dns_name,
                    zone_id=args.load_balancer.zone_id,
                    evaluate_target_health=True,
                )
            ],
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})
