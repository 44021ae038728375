"""Leftovers of a stack in an emulated account, one of nearly every service that it uses."""

import io
import json
import zipfile
from typing import Any

import boto3

from policy.emulator import ACCOUNT, BUDGET_TAGS, CACHE_RULES, REGION
from smoke_tests.teardown.identity import Identity

HEX = "1a2b3c4"
TRUST = json.dumps({"Version": "2012-10-17", "Statement": []})
INLINE = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["*"]}]}
)


class Planted:
    """Puts things into an account as the stack `stack` of `project` would, and keeps their identifiers by kind."""

    def __init__(
        self, session: boto3.Session, stack: str, project: str = "vllm-endpoint", *, tagged: bool = True
    ) -> None:
        self._session, self._prefix = session, Identity(stack).prefix
        self._tags = {"Project": project, "Stack": stack} if tagged else {}
        self.identifiers: dict[str, list[str]] = {}

    def client(self, service: str) -> Any:
        return self._session.client(service)  # type: ignore[call-overload]

    def name(self, rest: str) -> str:
        return f"{self._prefix}-{rest}-{HEX}"

    def pairs(self, key: str = "Key", value: str = "Value") -> list[dict[str, str]]:
        return [{key: k, value: v} for k, v in self._tags.items()]

    def tagging(self) -> dict[str, Any]:
        """For services that take no empty list."""
        return {"Tags": self.pairs()} if self._tags else {}

    def specification(self, kind: str) -> list[dict[str, Any]]:
        return [{"ResourceType": kind, "Tags": self.pairs()}] if self._tags else []

    def keep(self, kind: str, identifier: str) -> str:
        self.identifiers.setdefault(kind, []).append(identifier)
        return identifier

    def everything(self) -> "Planted":
        self.network()
        self.compute()
        self.edge()
        self.containers()
        self.storage()
        self.watching()
        self.rights()
        return self

    def network(self) -> None:
        ec2, spec = self.client("ec2"), self.specification
        self.vpc = ec2.create_vpc(CidrBlock="10.64.0.0/16", TagSpecifications=spec("vpc"))["Vpc"]["VpcId"]
        self.keep("VPC", self.vpc)
        internet = ec2.create_internet_gateway(TagSpecifications=spec("internet-gateway"))["InternetGateway"]
        ec2.attach_internet_gateway(InternetGatewayId=internet["InternetGatewayId"], VpcId=self.vpc)
        self.keep("internet gateway", internet["InternetGatewayId"])
        self.subnets = [
            ec2.create_subnet(
                VpcId=self.vpc, CidrBlock=f"10.64.{i}.0/24", AvailabilityZone=f"{REGION}{zone}",
                TagSpecifications=spec("subnet"),
            )["Subnet"]["SubnetId"]
            for i, zone in enumerate("ab")
        ]  # fmt: skip
        for subnet in self.subnets:
            self.keep("subnet", subnet)
        address = ec2.allocate_address(Domain="vpc", TagSpecifications=spec("elastic-ip"))["AllocationId"]
        self.keep("Elastic IP", address)
        gateway = ec2.create_nat_gateway(
            SubnetId=self.subnets[0], AllocationId=address, TagSpecifications=spec("natgateway")
        )["NatGateway"]
        self.keep("NAT gateway", gateway["NatGatewayId"])
        table = ec2.create_route_table(VpcId=self.vpc, TagSpecifications=spec("route-table"))["RouteTable"][
            "RouteTableId"
        ]
        ec2.associate_route_table(RouteTableId=table, SubnetId=self.subnets[1])
        self.keep("route table", table)
        self.group = self._security_group("sg-engine")
        weights = self._security_group("sg-weights")
        rule = [{"IpProtocol": "tcp", "FromPort": 2049, "ToPort": 2049, "UserIdGroupPairs": [{"GroupId": weights}]}]
        ec2.authorize_security_group_egress(GroupId=self.group, IpPermissions=rule)
        rule[0]["UserIdGroupPairs"] = [{"GroupId": self.group}]
        ec2.authorize_security_group_ingress(GroupId=weights, IpPermissions=rule)
        # As ECS makes them for tasks: without tags of ours, known by its group alone.
        interface = ec2.create_network_interface(SubnetId=self.subnets[0], Groups=[self.group])["NetworkInterface"]
        self.keep("network interface", interface["NetworkInterfaceId"])
        endpoint = ec2.create_vpc_endpoint(
            VpcId=self.vpc, ServiceName=f"com.amazonaws.{REGION}.s3", VpcEndpointType="Gateway",
            RouteTableIds=[table], TagSpecifications=spec("vpc-endpoint"),
        )["VpcEndpoint"]  # fmt: skip
        self.keep("VPC endpoint", endpoint["VpcEndpointId"])

    def _security_group(self, rest: str) -> str:
        made = self.client("ec2").create_security_group(
            GroupName=self.name(rest),
            Description="x",
            VpcId=self.vpc,
            TagSpecifications=self.specification("security-group"),
        )
        return self.keep("security group", made["GroupId"])

    def compute(self) -> None:
        ec2, scaling = self.client("ec2"), self.client("autoscaling")
        template = ec2.create_launch_template(
            LaunchTemplateName=self.name("gpu"), TagSpecifications=self.specification("launch-template"),
            LaunchTemplateData={
                "ImageId": "ami-12c6146b", "InstanceType": "g5.xlarge",
                "TagSpecifications": [*self.specification("instance"), *self.specification("volume")],
            },
        )["LaunchTemplate"]["LaunchTemplateId"]  # fmt: skip
        self.keep("launch template", template)
        tags = [{**tag, "PropagateAtLaunch": True} for tag in self.pairs()]
        scaling.create_auto_scaling_group(
            AutoScalingGroupName=self.name("gpu"), MinSize=0, MaxSize=1, DesiredCapacity=1,
            VPCZoneIdentifier=self.subnets[1], LaunchTemplate={"LaunchTemplateId": template, "Version": "1"}, Tags=tags,
        )  # fmt: skip
        self.keep("Auto Scaling group", self.name("gpu"))
        volume = ec2.create_volume(
            Size=100, AvailabilityZone=f"{REGION}a", VolumeType="gp3", TagSpecifications=self.specification("volume")
        )
        self.keep("EBS volume", volume["VolumeId"])
        # Made by hand of the stack's volume, without tags.
        snapshot = ec2.create_snapshot(VolumeId=volume["VolumeId"], TagSpecifications=self.specification("snapshot"))
        self.keep("EBS snapshot", snapshot["SnapshotId"])

    def edge(self) -> None:
        elb = self.client("elbv2")
        balancer = elb.create_load_balancer(
            Name=self.name("int"),
            Subnets=self.subnets,
            Scheme="internal",
            SecurityGroups=[self.group],
            **self.tagging(),
        )["LoadBalancers"][0]
        self.keep("load balancer", balancer["LoadBalancerArn"])
        target = elb.create_target_group(
            Name=self.name("int"), Protocol="HTTP", Port=8080, VpcId=self.vpc, TargetType="ip", **self.tagging()
        )["TargetGroups"][0]["TargetGroupArn"]
        self.keep("target group", target)
        elb.create_listener(
            LoadBalancerArn=balancer["LoadBalancerArn"], Port=80, Protocol="HTTP",
            DefaultActions=[{"Type": "forward", "TargetGroupArn": target}],
        )  # fmt: skip
        visible = {"SampledRequestsEnabled": False, "CloudWatchMetricsEnabled": False, "MetricName": "x"}
        acl = self.client("wafv2").create_web_acl(
            Name=self.name("firewall"),
            Scope="REGIONAL",
            DefaultAction={"Allow": {}},
            VisibilityConfig=visible,
            **self.tagging(),
        )["Summary"]
        self.keep("web ACL", f"{acl['Name']}/{acl['Id']}")
        dns = self.client("route53")
        zone = dns.create_hosted_zone(Name=f"{self._prefix}.example.com", CallerReference=self._prefix)["HostedZone"][
            "Id"
        ]
        record = {
            "Name": f"llm.{self._prefix}.example.com.", "Type": "A",
            "AliasTarget": {
                "HostedZoneId": "Z35SXDOTRQ7X7K", "EvaluateTargetHealth": False,
                "DNSName": f"{self.name('pub')}-1234567.{REGION}.elb.amazonaws.com",
            },
        }  # fmt: skip
        changes = {"Changes": [{"Action": "CREATE", "ResourceRecordSet": record}]}
        dns.change_resource_record_sets(HostedZoneId=zone, ChangeBatch=changes)
        self.keep("DNS record", f"{zone} A {record['Name']}")

    def containers(self) -> None:
        ecs, tags = self.client("ecs"), self.pairs("key", "value")
        cluster = ecs.create_cluster(clusterName=self.name("gpu"), tags=tags)["cluster"]["clusterArn"]
        self.keep("ECS cluster", cluster)
        definition = ecs.register_task_definition(
            family=f"{self._prefix}-engine", tags=tags, containerDefinitions=[{"name": "engine", "image": "x", "memory": 128}],
        )["taskDefinition"]["taskDefinitionArn"]  # fmt: skip
        self.keep("task definition", definition)
        service = ecs.create_service(
            cluster=cluster, serviceName=self.name("engine"), taskDefinition=definition, desiredCount=0
        )["service"]["serviceArn"]
        self.keep("ECS service", service)
        self.client("application-autoscaling").register_scalable_target(
            ServiceNamespace="ecs", ResourceId=f"service/{self.name('gpu')}/{self.name('engine')}",
            ScalableDimension="ecs:service:DesiredCount", MinCapacity=0, MaxCapacity=1,
        )  # fmt: skip
        self.keep("scalable target", f"service/{self.name('gpu')}/{self.name('engine')}")
        group = f"arn:aws:autoscaling:{REGION}:{ACCOUNT}:autoScalingGroup:x:autoScalingGroupName/{self.name('gpu')}"
        ecs.create_capacity_provider(
            name=self.name("gpu"), autoScalingGroupProvider={"autoScalingGroupArn": group}, tags=tags
        )
        self.keep("capacity provider", self.name("gpu"))
        discovery = self.client("servicediscovery")
        discovery.create_private_dns_namespace(Name=f"{self._prefix}.internal", Vpc=self.vpc, **self.tagging())
        listed = discovery.list_namespaces()["Namespaces"]
        namespace = next(one["Id"] for one in listed if one["Name"] == f"{self._prefix}.internal")
        self.keep("Cloud Map namespace", namespace)
        discovery.create_service(Name="engine", NamespaceId=namespace)
        self.client("ecr").create_repository(repositoryName=self.name("image"), tags=self.pairs())
        self.keep("ECR repository", self.name("image"))
        self.client("ecr").create_repository(repositoryName=f"{self._prefix}/vllm/vllm-openai")
        self.keep("ECR repository", f"{self._prefix}/vllm/vllm-openai")
        CACHE_RULES.append({"ecrRepositoryPrefix": self._prefix, "upstreamRegistryUrl": "registry-1.docker.io"})
        self.keep("pull-through cache", self._prefix)

    def storage(self) -> None:
        efs = self.client("efs")
        system = efs.create_file_system(CreationToken=self.name("weights"), Encrypted=True, **self.tagging())[
            "FileSystemId"
        ]
        self.keep("EFS file system", system)
        self.keep("EFS access point", efs.create_access_point(FileSystemId=system, **self.tagging())["AccessPointId"])
        target = efs.create_mount_target(FileSystemId=system, SubnetId=self.subnets[0], SecurityGroups=[self.group])
        self.keep("EFS mount target", target["MountTargetId"])
        self.keep("network interface", target["NetworkInterfaceId"])
        s3, bucket = self.client("s3"), self.name("access")
        s3.create_bucket(Bucket=bucket)
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        if self._tags:
            s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": self.pairs()})
        s3.put_object(Bucket=bucket, Key="AWSLogs/one", Body=b"x" * 1000)
        s3.delete_object(Bucket=bucket, Key="AWSLogs/one")
        self.keep("S3 bucket", bucket)

    def watching(self) -> None:
        for name in (self.name("logs-engine"), f"/aws/lambda/{self.name('budget')}"):
            self.client("logs").create_log_group(logGroupName=name, tags=self._tags)
            self.keep("log group", name)
        cloudwatch = self.client("cloudwatch")
        for name in (
            self.name("scaling-idle"), f"TargetTracking-service/{self.name('gpu')}/{self.name('engine')}-AlarmHigh-1",
        ):  # fmt: skip
            cloudwatch.put_metric_alarm(
                AlarmName=name, Namespace="n", MetricName="m", Statistic="Sum", Period=60, EvaluationPeriods=1,
                Threshold=1, ComparisonOperator="GreaterThanThreshold",
                **(self.tagging() if name.startswith(self._prefix) else {}),
            )  # fmt: skip
            self.keep("alarm", name)
        cloudwatch.put_dashboard(DashboardName=self.name("gpu"), DashboardBody='{"widgets": []}')
        self.keep("dashboard", self.name("gpu"))
        topic = self.client("sns").create_topic(Name=self.name("alarm"), **self.tagging())["TopicArn"]
        self.client("sns").subscribe(TopicArn=topic, Protocol="email", Endpoint="ops@example.com")
        self.keep("SNS topic", topic)
        limit = {"Amount": "10", "Unit": "USD"}
        budget = {"BudgetName": self.name("budget"), "BudgetLimit": limit, "TimeUnit": "MONTHLY", "BudgetType": "COST"}
        self.client("budgets").create_budget(AccountId=ACCOUNT, Budget=budget)
        BUDGET_TAGS[f"arn:aws:budgets::{ACCOUNT}:budget/{self.name('budget')}"] = self.pairs()
        self.keep("budget", self.name("budget"))
        scheduler = self.client("scheduler")
        scheduler.create_schedule_group(Name=self.name("ttl"), **self.tagging())
        scheduler.create_schedule(
            Name="service", GroupName=self.name("ttl"), ScheduleExpression="rate(1 hour)",
            FlexibleTimeWindow={"Mode": "OFF"}, Target={"Arn": "arn:aws:scheduler:::aws-sdk:ecs:updateService", "RoleArn": "r"},
        )  # fmt: skip
        self.keep("schedule group", self.name("ttl"))

    def rights(self) -> None:
        iam, tags = self.client("iam"), self.pairs()
        role, profile = self.name("role-instance"), self.name("gpu")
        arn = iam.create_role(RoleName=role, AssumeRolePolicyDocument=TRUST, Tags=tags)["Role"]["Arn"]
        iam.put_role_policy(RoleName=role, PolicyName="inline", PolicyDocument=INLINE)
        self.keep("IAM role", role)
        iam.create_instance_profile(InstanceProfileName=profile, Tags=tags)
        iam.add_role_to_instance_profile(InstanceProfileName=profile, RoleName=role)
        self.keep("instance profile", profile)
        code = io.BytesIO()
        with zipfile.ZipFile(code, "w") as archive:
            archive.writestr("budget_watch.py", "")
        self.client("lambda").create_function(
            FunctionName=self.name("budget"), Runtime="python3.13", Role=arn, Handler="budget_watch.handler",
            Code={"ZipFile": code.getvalue()}, Tags=self._tags,
        )  # fmt: skip
        self.keep("Lambda function", self.name("budget"))
        secret = self.client("secretsmanager").create_secret(
            Name=self.name("secret-api-keys"), SecretString="{}", **self.tagging()
        )
        self.keep("secret", secret["ARN"])
