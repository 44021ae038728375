"""CloudWatch and what acts by itself: logs, alarms, dashboards, topics, budgets, functions, schedules."""

from collections.abc import Iterator

from smoke_tests.teardown.identity import tags_of
from smoke_tests.teardown.items import Item
from smoke_tests.teardown.look import Kind, Look, is_gone, present
from smoke_tests.teardown.prices import GB, hourly


def _log_groups(look: Look) -> Iterator[Item]:
    logs, prefix = look.client("logs"), look.identity.prefix
    beginnings = {f"{prefix}-", f"/aws/lambda/{prefix}-", f"/aws/ecs/containerinsights/{prefix}-"}
    # A group that carries the tags is looked at whatever it is called.
    beginnings |= {arn.split(":", 6)[6].removesuffix(":*") for arn in look.arns("logs", "log-group")}
    seen = set()
    for beginning in sorted(beginnings):
        for group in look.pages("logs", "describe_log_groups", "logGroups", logGroupNamePrefix=beginning):
            name = group["logGroupName"]
            if name in seen:
                continue
            seen.add(name)
            tags = logs.list_tags_for_resource(resourceArn=group["arn"].removesuffix(":*"))["tags"]
            size = int(group.get("storedBytes") or 0)
            price, note = hourly("logs_gb_month", size / GB), f"{size / GB:.2f} GB"
            yield from present(look.item("log group", name, name, tags, usd_per_hour=price, note=note))


def _remove_log_group(look: Look, item: Item) -> None:
    look.client("logs").delete_log_group(logGroupName=item.identifier)


def _alarms(look: Look) -> Iterator[Item]:
    cloudwatch = look.client("cloudwatch")
    names = {arn.split(":", 6)[6] for arn in look.arns("cloudwatch", "alarm")}
    candidates = {}
    # Alarms that scaling policies made are called after what they watch, not after the policy.
    for beginning in (
        look.identity.prefix,
        f"TargetTracking-{look.identity.prefix}",
        f"TargetTracking-service/{look.identity.prefix}",
    ):
        for alarm in look.pages("cloudwatch", "describe_alarms", "MetricAlarms", AlarmNamePrefix=beginning):
            candidates[alarm["AlarmName"]] = alarm
    missing = sorted(names - set(candidates))
    for start in range(0, len(missing), 100):
        found = cloudwatch.describe_alarms(AlarmNames=missing[start : start + 100])["MetricAlarms"]
        candidates |= {alarm["AlarmName"]: alarm for alarm in found}
    for name, alarm in sorted(candidates.items()):
        tags = cloudwatch.list_tags_for_resource(ResourceARN=alarm["AlarmArn"])["Tags"]
        read = sum("MetricStat" in query for query in alarm.get("Metrics") or ()) or 1
        yield from present(look.item("alarm", name, name, tags, usd_per_hour=hourly("alarm_month", read)))


def _remove_alarm(look: Look, item: Item) -> None:
    look.client("cloudwatch").delete_alarms(AlarmNames=[item.identifier])


def _dashboards(look: Look) -> Iterator[Item]:
    price, prefix = hourly("dashboard_month"), look.identity.prefix
    for entry in look.pages("cloudwatch", "list_dashboards", "DashboardEntries", DashboardNamePrefix=prefix):
        name, note = entry["DashboardName"], "an account's first three are free"
        yield from present(look.item("dashboard", name, name, usd_per_hour=price, note=note))


def _remove_dashboard(look: Look, item: Item) -> None:
    look.client("cloudwatch").delete_dashboards(DashboardNames=[item.identifier])


def _topics(look: Look) -> Iterator[Item]:
    tagged = set(look.arns("sns"))
    for topic in look.pages("sns", "list_topics", "Topics"):
        arn = topic["TopicArn"]
        name = arn.rpartition(":")[2]
        if arn in tagged or name.startswith(look.identity.prefix):
            tags = look.client("sns").list_tags_for_resource(ResourceArn=arn)["Tags"]
            yield from present(look.item("SNS topic", arn, name, tags))


def _remove_topic(look: Look, item: Item) -> None:
    sns = look.client("sns")
    for subscription in look.pages("sns", "list_subscriptions_by_topic", "Subscriptions", TopicArn=item.identifier):
        if subscription["SubscriptionArn"].startswith("arn:"):  # else it waits for its confirmation, and ends by itself
            sns.unsubscribe(SubscriptionArn=subscription["SubscriptionArn"])
    sns.delete_topic(TopicArn=item.identifier)


def _budgets(look: Look) -> Iterator[Item]:
    budgets = look.client("budgets")
    try:
        listed = list(look.pages("budgets", "describe_budgets", "Budgets", AccountId=look.account_id))
    except Exception as error:
        if is_gone(error):  # an account without a single budget is answered so
            return
        raise
    for budget in listed:
        name = budget["BudgetName"]
        if name.startswith(look.identity.prefix):
            arn = f"arn:{look.partition}:budgets::{look.account_id}:budget/{name}"
            tags = budgets.list_tags_for_resource(ResourceARN=arn)["ResourceTags"]
            yield from present(look.item("budget", name, name, tags, everywhere=True))


def _remove_budget(look: Look, item: Item) -> None:
    look.client("budgets").delete_budget(AccountId=look.account_id, BudgetName=item.identifier)


def _functions(look: Look) -> Iterator[Item]:
    tagged = set(look.arns("lambda", "function"))
    for function in look.pages("lambda", "list_functions", "Functions"):
        name, arn = function["FunctionName"], function["FunctionArn"]
        if arn in tagged or name.startswith(look.identity.prefix):
            tags = look.client("lambda").list_tags(Resource=arn)["Tags"]
            yield from present(look.item("Lambda function", name, name, tags))


def _remove_function(look: Look, item: Item) -> None:
    look.client("lambda").delete_function(FunctionName=item.identifier)


def _schedule_groups(look: Look) -> Iterator[Item]:
    scheduler, tagged = look.client("scheduler"), set(look.arns("scheduler"))
    for group in look.pages("scheduler", "list_schedule_groups", "ScheduleGroups"):
        name, arn = group["Name"], group["Arn"]
        if arn in tagged or name.startswith(look.identity.prefix):
            tags = tags_of(scheduler.list_tags_for_resource(ResourceArn=arn)["Tags"])
            schedules = sum(1 for _ in look.pages("scheduler", "list_schedules", "Schedules", GroupName=name))
            going = group["State"] == "DELETING"
            yield from present(
                look.item("schedule group", name, name, tags, going=going, note=f"{schedules} schedules")
            )


def _remove_schedule_group(look: Look, item: Item) -> None:
    scheduler = look.client("scheduler")
    for schedule in list(look.pages("scheduler", "list_schedules", "Schedules", GroupName=item.identifier)):
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
