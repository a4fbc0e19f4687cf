"""What README and runbook tell somebody to type, read without running it: each name and flag is of something that there is.

What `nightshift` takes is judged by its own definition: crates/cli/src/pages.
"""

import itertools

import aws_commands
import page_commands
import page_names
import pytest
from code_words import known
from runbook_pages import ROOT
from terraform_names import made


def faults(page, text):
    """All that is wrong on a page, each with its line and what to do."""
    makes = {page_names.general(name, page) for command in page_commands.commands(page, text, "aws") for name in command.option("--target-table-name")}
    found = []
    for command in page_commands.commands(page, text, "aws"):
        said = aws_commands.faults(command, page_commands.is_literal, known)
        said += page_names.of_resources(command, makes) + page_names.of_metrics(command)
        said += page_names.of_statistics(command) + page_names.of_times(command)
        said += page_names.of_ledger(command) + page_names.of_logs(command)
        found += [f"{command}\n  {fault}" for fault in said]
    queries = [command for command in page_commands.commands(page, text, "aws") if command.words[:2] == ("dynamodb", "query") and not command.mention]
    for introduction, block in itertools.groupby(queries, lambda query: page_commands.introduction(text, query.line)):
        found += page_names.of_queries(introduction, list(block))
    for command in page_commands.commands(page, text, "nightshift"):
        found += [f"{command}\n  {fault}" for fault in page_names.of_redrive(command)]
    for command in page_commands.commands(page, text, "jq"):
        found += [f"{command}\n  {fault}" for fault in page_names.of_jq(command)]
    for command in page_commands.commands(page, text, r"scripts/[\w-]+"):
        found += [f"{command}\n  {fault}" for fault in page_names.of_scripts(command)]
    found += [f"{page}:{line}: Terraform makes no {name}" for line, name in page_names.of_text(page, text, makes)]
    found += [f"{page}:{line}: there is no setting {name}: terraform/variables.tf has them" for line, name in page_names.of_settings(text)]
    found += [f"{page}:{line}: nothing in this section sets ${name}" for line, name in page_commands.unset(page, text)]
    return found


def test_everything_that_pages_name_is_there():
    pages = page_commands.pages()
    count = {program: sum(len(page_commands.commands(page, text, program)) for page, text in pages.items()) for program in ("aws", "jq")}
    assert count["aws"] > 250 and count["jq"] > 10, f"the scan finds the commands: {count}"
    found = [fault for page, text in pages.items() for fault in faults(page, text)]
    assert not found, "correct the page, or what it names:\n" + "\n".join(found)


def test_each_kind_of_name_is_read_from_terraform():
    assert all(made().values())
    assert "$PREFIX-jobs" in made()["queue"] and "$PREFIX-no-jobs" in made()["alarm"]
    # Each alarm is called after its page.
    pages = {f"$PREFIX-{path.stem}" for path in (ROOT / "runbook").glob("*.md") if path.stem != "README"}
    assert made()["alarm"] == pages


def test_a_command_is_read_as_a_shell_reads_it():
    text = "```sh\n" + r'''x=$(aws sqs a --b "$(aws sqs c "$d" 2>/dev/null | tail -n 1)" \
  --e 'f "g"') && echo "\"$x\"" > aws.txt # aws sqs h
''' + "```\nsay `aws sqs i` and not aws sqs j\n"
    read = [(command.line, command.mention, command.words) for command in page_commands.commands("p.md", text, "aws") if "h" not in command.words]
    assert read == [
        (2, False, ("sqs", "a", "--b", '$(aws sqs c "$d" 2>/dev/null | tail -n 1)', "--e", 'f "g"')),
        (2, False, ("sqs", "c", "$d")),
        (5, True, ("sqs", "i")),
    ]


SAMPLE = r'''
Raise `queues.maximum_concurrency`; <prefix>-sentinel is the schedule, and `scripts/deploy --no-job` deploys.

```sh
export PREFIX="${PREFIX:-nightshift}" AWS_REGION="${AWS_REGION:-eu-central-1}" AWS_PAGER=
url=$(aws sqs get-queue-url --queue-name "$PREFIX-jobs" --query QueueUrl --output text)
aws sqs get-queue-attributes --queue-url "$url" --attribute-names All --query Attributes.ApproximateNumberOfMessages
aws cloudwatch describe-alarms --alarm-names "$PREFIX-no-jobs" --alarm-types MetricAlarm \
  --query '[MetricAlarms, CompositeAlarms][][].[AlarmName, StateValue]' --output text
aws cloudwatch get-metric-statistics --namespace Nightshift --metric-name JobsHandedBack \
  --dimensions Name=Stack,Value="$PREFIX" Name=Cause,Value=paused --statistics Sum --period 60 \
  --start-time $(($(date +%s) - 600)) --end-time "$(date +%s)" --query 'sort_by(Datapoints, &Timestamp)[].[Timestamp, Sum]'
aws cloudwatch get-metric-statistics --namespace AWS/Lambda --metric-name Errors --dimensions Name=FunctionName,Value="$PREFIX-worker" \
  --statistics Sum --period 60 --start-time 1 --end-time 2
aws cloudwatch get-metric-statistics --namespace Nightshift --metric-name ModelCalls --dimensions Name=Stack,Value="$PREFIX" Name=Task,Value=weekly_report \
  --statistics Sum --period 60 --start-time 1 --end-time 2
aws dynamodb query --table-name "$PREFIX-ledger" --index-name unsettled --no-scan-index-forward --max-items 5 \
  --key-condition-expression 'unsettled = :state' --expression-attribute-values '{":state":{"S":"failed"}}' \
  --query "Items[?reason.S=='invalid_output'].[id.S, task.S]" --output text
aws dynamodb update-item --table-name "$PREFIX-ledger" --key '{"id": {"S": "control"}}' --update-expression 'REMOVE paused_since_ms'
aws lambda get-function-configuration --function-name "$PREFIX-worker:live" --query Environment.Variables.NIGHTSHIFT_LEDGER_TABLE
aws lambda invoke --function-name "$PREFIX-redrive" --payload fileb://<(jq -cn '{start: {source: "crashed", reasons: ["refused"]}}') /dev/stdout
aws logs filter-log-events --log-group-name "/aws/lambda/$PREFIX-worker" --filter-pattern '{ $.message = "record ended" && $.level = "INFO" }'
aws secretsmanager describe-secret --secret-id "$PREFIX-model-key"
aws kms describe-key --key-id "alias/$PREFIX"
for pipe in "$PREFIX-results" "$PREFIX-results-large"; do aws pipes describe-pipe --name "$pipe"; done
aws logs filter-log-events --log-group-name "/aws/lambda/$PREFIX-worker" --start-time $((($(date +%s) - 60) * 1000))
aws logs start-query --log-group-name "/aws/lambda/$PREFIX-worker" --start-time $(($(date +%s) - 60)) --end-time "$(date +%s)" --query-string 'limit 20'
nightshift --prefix "$PREFIX" redrive --from crashed --rate 5 --reason "the cause is gone"
```

What is `claimed` and what is `open`, oldest first:

```sh
aws dynamodb query --table-name "$PREFIX-ledger" --index-name unsettled --scan-index-forward \
  --key-condition-expression 'unsettled = :one' --expression-attribute-values '{":one":{"S":"claimed"}}' --query 'Items[].[id.S, lease_until_ms.N]'
aws dynamodb query --table-name "$PREFIX-ledger" --index-name unsettled --scan-index-forward \
  --key-condition-expression 'unsettled = :two' --expression-attribute-values '{":two":{"S":"open"}}' --query 'Items[].id.S'
```

Why jobs failed:

```sh
aws dynamodb query --table-name "$PREFIX-ledger" --index-name unsettled --no-scan-index-forward \
  --key-condition-expression 'unsettled = :lost' --expression-attribute-values '{":lost":{"S":"failed"}}' --query 'Items[].reason.S'
```
'''

DEFECTS = [
    ("aws sqs get-queue-url", "aws sqs get-queue-link"),
    ("aws sqs get-queue-url", "aws sq get-queue-url"),
    ('--queue-name "$PREFIX-jobs"', '--queue "$PREFIX-jobs"'),
    ('--queue-name "$PREFIX-jobs" ', ""),
    ('--queue-name "$PREFIX-jobs"', "--queue-name jobs"),
    ('"$PREFIX-jobs"', '"$PREFIX-job"'),
    ('"$PREFIX-jobs"', '"$PREFX-jobs"'),
    ('"$PREFIX-jobs"', '"$PREFIX-worker"'),
    ("--query QueueUrl", "--query QueueURL"),
    ("--output text", "--output txt"),
    ("--attribute-names All", "--attribute-names Every"),
    ("Attributes.ApproximateNumberOfMessages", "Attributes.NumberOfMessages"),
    ('"$url"', '"$link"'),
    ("url=$(aws", "aws --url=$(aws"),
    ('"$PREFIX-no-jobs"', '"$PREFIX-no-job"'),
    ("--alarm-types MetricAlarm", "--alarm-types Metric"),
    ("StateValue", "State"),
    ("JobsHandedBack", "JobHandedBack"),
    ('Name=Stack,Value="$PREFIX" Name=Cause', 'Name=Stak,Value="$PREFIX" Name=Cause'),
    ('Name=Stack,Value="$PREFIX" Name=Cause', 'Name=Stack,Value=nightshift Name=Cause'),
    ('Name=Stack,Value="$PREFIX" Name=Cause', 'Nam=Stack,Value="$PREFIX" Name=Cause'),
    ("Name=Cause,Value=paused", "Name=Cause,Value=pause"),
    ("Name=Cause,Value=paused", "Name=Reason,Value=refused"),
    ("Name=Task,Value=weekly_report", "Name=Task,Value=weekly_reports"),
    ("--statistics Sum", "--statistics Average"),
    ("[Timestamp, Sum]", "[Timestamp, Maximum]"),
    ("$((($(date +%s) - 60) * 1000))", "$(($(date +%s) - 60))"),
    ("--start-time $(($(date +%s) - 60))", "--start-time $((($(date +%s) - 60) * 1000))"),
    ('--end-time "$(date +%s)" --query-string', '--end-time "$(date +%s)000" --query-string'),
    ("--period 60", "--period minute"),
    ("--metric-name Errors", "--metric-name Error"),
    ("Name=FunctionName", "Name=QueueName"),
    ('Name=FunctionName,Value="$PREFIX-worker"', 'Name=FunctionName,Value="$PREFIX-jobs"'),
    ("&Timestamp", "&Time"),
    ("Timestamp, Sum]'", "Timestamp, Sum'"),
    ('--table-name "$PREFIX-ledger"', '--table-name "$PREFIX-records"'),
    ("--index-name unsettled", "--index-name open"),
    ("--no-scan-index-forward", "--no-scan-index-forwards"),
    ("'unsettled = :state'", "'unsetled = :state'"),
    ("'unsettled = :state'", "'unsettled = :word'"),
    ('{"S":"failed"}', '{"S":"broken"}'),
    ("{\":state\":", "{:state:"),
    ("reason.S==", "cause_of_it.S=="),
    ("'invalid_output'", "'wrong_output'"),
    ("task.S]", "task.s]"),
    ('{":state":{"S":"failed"}}', '{":state":{"S":"open"}}'),
    ('{":one":{"S":"claimed"}}', '{":one":{"S":"open"}}'),
    ('{":two":{"S":"open"}}', '{":two":{"S":"claimed"}}'),
    ('{":two":{"S":"open"}}', '{":two":{"S":"failed"}}'),
    ("What is `claimed` and what is `open`", "What is not settled"),
    ("--scan-index-forward", "--no-scan-index-forward"),
    ("--scan-index-forward ", ""),
    ("--no-scan-index-forward \\", "\\"),
    ("paused_since_ms", "paused_since"),
    ('{"id": {"S": "control"}}', '{"key": {"S": "control"}}'),
    (":live", ":life"),
    ("NIGHTSHIFT_LEDGER_TABLE", "NIGHTSHIFT_TABLE"),
    ("reasons:", "grounds:"),
    ('["refused"]', '["refuse"]'),
    ('"/aws/lambda/$PREFIX-worker"', '"/aws/lambda/$PREFIX-jobs"'),
    ("$.level", "$.grade"),
    ('"record ended"', '"record finished"'),
    ('"$PREFIX-model-key"', '"$PREFIX-key"'),
    ("--from crashed", "--from dead-letters"),
    ("--from crashed ", ""),
    ('"alias/$PREFIX"', '"alias/nightshift"'),
    ('"$PREFIX-results-large"', '"$PREFIX-results-big"'),
    ("queues.maximum_concurrency", "queues.max_concurrency"),
    ("<prefix>-sentinel", "<prefix>-watcher"),
    ("scripts/deploy", "scripts/roll-out"),
    ("--no-job`", "--no-jobs`"),
]


def test_a_right_page_has_no_fault():
    assert faults("runbook/crashed-jobs.md", SAMPLE) == []


@pytest.mark.parametrize(("right", "wrong"), DEFECTS)
def test_a_defect_of_a_page_is_seen(right, wrong):
    assert right in SAMPLE
    assert faults("runbook/crashed-jobs.md", SAMPLE.replace(right, wrong, 1))
