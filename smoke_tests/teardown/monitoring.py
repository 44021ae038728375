"""CloudWatch and automation: logs, alarms, dashboards, topics, budgets, functions, schedules."""

from collections.abc import Iterator

from smoke_tests.teardown.identity import tags_of
from smoke_tests.teardown.items import Item
from smoke_tests.teardown.prices import GB, hourly
from smoke_tests.teardown.region_scan import Kind, RegionScan, is_gone, present


def _log_groups(scan: RegionScan) -> Iterator[Item]:
    logs, prefix = scan.client("logs"), scan.identity.prefix
    beginnings = {f"{prefix}-", f"/aws/lambda/{prefix}-", f"/aws/ecs/containerinsights/{prefix}-"}
    # A tagged log group is checked regardless of its name.
    beginnings |= {arn.split(":", 6)[6].removesuffix(":*") for arn in scan.arns("logs", "log-group")}
    seen = set()
    for beginning in sorted(beginnings):
        for group in scan.pages("logs", "describe_log_groups", "logGroups", logGroupNamePrefix=beginning):
            name = group["logGroupName"]
            if name in seen:
                continue
            seen.add(name)
            tags = logs.list_tags_for_resource(resourceArn=group["arn"].removesuffix(":*"))["tags"]
            size = int(group.get("storedBytes") or 0)
            price, note = hourly("logs_gb_month", size / GB), f"{size / GB:.2f} GB"
            yield from present(scan.item("log group", name, name, tags, usd_per_hour=price, note=note))


def _remove_log_group(scan: RegionScan, item: Item) -> None:
    scan.client("logs").delete_log_group(logGroupName=item.identifier)


def _alarms(scan: RegionScan) -> Iterator[Item]:
    cloudwatch = scan.client("cloudwatch")
    names = {arn.split(":", 6)[6] for arn in scan.arns("cloudwatch", "alarm")}
    candidates = {}
    # Alarms created by scaling policies are named after the metric's resource, not after the policy.
    for beginning in (
        scan.identity.prefix,
        f"TargetTracking-{scan.identity.prefix}",
        f"TargetTracking-service/{scan.identity.prefix}",
    ):
        for alarm in scan.pages("cloudwatch", "describe_alarms", "MetricAlarms", AlarmNamePrefix=beginning):
            candidates[alarm["AlarmName"]] = alarm
    missing = sorted(names - set(candidates))
    for start in range(0, len(missing), 100):
        found = cloudwatch.describe_alarms(AlarmNames=missing[start : start + 100])["MetricAlarms"]
        candidates |= {alarm["AlarmName"]: alarm for alarm in found}
    for name, alarm in sorted(candidates.items()):
        tags = cloudwatch.list_tags_for_resource(ResourceARN=alarm["AlarmArn"])["Tags"]
        read = sum("MetricStat" in query for query in alarm.get("Metrics") or ()) or 1
        yield from present(scan.item("alarm", name, name, tags, usd_per_hour=hourly("alarm_month", read)))


def _remove_alarm(scan: RegionScan, item: Item) -> None:
    scan.client("cloudwatch").delete_alarms(AlarmNames=[item.identifier])


def _dashboards(scan: RegionScan) -> Iterator[Item]:
    price, prefix = hourly("dashboard_month"), scan.identity.prefix
    for entry in scan.pages("cloudwatch", "list_dashboards", "DashboardEntries", DashboardNamePrefix=prefix):
        name, note = entry["DashboardName"], "an account's first three are free"
        yield from present(scan.item("dashboard", name, name, usd_per_hour=price, note=note))


def _remove_dashboard(scan: RegionScan, item: Item) -> None:
    scan.client("cloudwatch").delete_dashboards(DashboardNames=[item.identifier])


def _topics(scan: RegionScan) -> Iterator[Item]:
    tagged = set(scan.arns("sns"))
    for topic in scan.pages("sns", "list_topics", "Topics"):
        arn = topic["TopicArn"]
        name = arn.rpartition(":")[2]
        if arn in tagged or name.startswith(scan.identity.prefix):
            tags = scan.client("sns").list_tags_for_resource(ResourceArn=arn)["Tags"]
            yield from present(scan.item("SNS topic", arn, name, tags))


def _remove_topic(scan: RegionScan, item: Item) -> None:
    sns = scan.client("sns")
    for subscription in scan.pages("sns", "list_subscriptions_by_topic", "Subscriptions", TopicArn=item.identifier):
        if subscription["SubscriptionArn"].startswith("arn:"):  # a pending subscription expires on its own
            sns.unsubscribe(SubscriptionArn=subscription["SubscriptionArn"])
    sns.delete_topic(TopicArn=item.identifier)


def _budgets(scan: RegionScan) -> Iterator[Item]:
    budgets = scan.client("budgets")
    try:
        listed = list(scan.pages("budgets", "describe_budgets", "Budgets", AccountId=scan.account_id))
    except Exception as error:
        if is_gone(error):  # AWS returns this for an account without budgets
            return
        raise
    for budget in listed:
        name = budget["BudgetName"]
        if name.startswith(scan.identity.prefix):
            arn = f"arn:{scan.partition}:budgets::{scan.account_id}:budget/{name}"
            tags = budgets.list_tags_for_resource(ResourceARN=arn)["ResourceTags"]
            yield from present(scan.item("budget", name, name, tags, everywhere=True))


def _remove_budget(scan: RegionScan, item: Item) -> None:
    scan.client("budgets").delete_budget(AccountId=scan.account_id, BudgetName=item.identifier)


def _functions(scan: RegionScan) -> Iterator[Item]:
    tagged = set(scan.arns("lambda", "function"))
    for function in scan.pages("lambda", "list_functions", "Functions"):
        name, arn = function["FunctionName"], function["FunctionArn"]
        if arn in tagged or name.startswith(scan.identity.prefix):
            tags = scan.client("lambda").list_tags(Resource=arn)["Tags"]
            yield from present(scan.item("Lambda function", name, name, tags))


def _remove_function(scan: RegionScan, item: Item) -> None:
    scan.client("lambda").delete_function(FunctionName=item.identifier)


def _schedule_groups(scan: RegionScan) -> Iterator[Item]:
    scheduler, tagged = scan.client("scheduler"), set(scan.arns("scheduler"))
    for group in scan.pages("scheduler", "list_schedule_groups", "ScheduleGroups"):
        name, arn = group["Name"], group["Arn"]
        if arn in tagged or name.startswith(scan.identity.prefix):
            tags = tags_of(scheduler.list_tags_for_resource(ResourceArn=arn)["Tags"])
            schedules = sum(1 for _ in scan.pages("scheduler", "list_schedules", "Schedules", GroupName=name))
            going = group["State"] == "DELETING"
            yield from present(
                scan.item("schedule group", name, name, tags, going=going, note=f"{schedules} schedules")
            )


def _remove_schedule_group(scan: RegionScan, item: Item) -> None:
    scheduler = scan.client("scheduler")
    for schedule in list(scan.pages("scheduler", "list_schedules", "Schedules", GroupName=item.identifier)):
        scheduler.delete_schedule(GroupName=item.identifier, Name=schedule["Name"])
    scheduler.delete_schedule_group(Name=item.identifier)


KINDS = (
    Kind("schedule group", _schedule_groups, _remove_schedule_group, arns=("scheduler",)),
    Kind("Lambda function", _functions, _remove_function, arns=("lambda",)),
    Kind("budget", _budgets, _remove_budget, everywhere=True, arns=("budgets",)),
    Kind("alarm", _alarms, _remove_alarm, arns=("cloudwatch:alarm",)),
    Kind("dashboard", _dashboards, _remove_dashboard, arns=("cloudwatch:dashboard",)),
    Kind("SNS topic", _topics, _remove_topic, arns=("sns",)),
    Kind("log group", _log_groups, _remove_log_group, arns=("logs",)),
)
