"""Which fault each page of the runbook is run under, and what ends it beside the page's own commands.

A group of pages shares a fault: it is injected once, and all of its pages are run under it.
"""

import dataclasses
import json
import time
from typing import Callable

from stack import DAY_S, wait_until

PAUSE = ("procedures/pause-and-resume", "Pause")
RESUME = ("procedures/pause-and-resume", "Resume")
ROLL_BACK = ("procedures/roll-back", "")
NEW_KEY = ("procedures/rotate-the-key", "")


@dataclasses.dataclass
class Fault:
    """Mitigation is run after `first`, what stops the harm, and `repair`, what it says in words alone: the provider's console, an
    apply.  `follow` is what it leads to afterwards.  What is in `first` is not run twice."""

    says: str
    pages: list
    inject: Callable
    first: list = dataclasses.field(default_factory=list)
    follow: list = dataclasses.field(default_factory=list)
    repair: Callable = lambda world: None
    # What AWS would publish once it is over, and MiniStack does not.
    stand_in: Callable = lambda world: None
    gaps: list = dataclasses.field(default_factory=list)
    # Its pages compare with all calls or all jobs: none of an earlier fault may be among them.
    alone: bool = False


def model(fault):
    def set_fault(world):
        world.gate.fault = fault

    return set_fault


def model_fails(fault, jobs, seen):
    """Jobs meet a model that answers so, until the metric shows it."""

    def inject(world):
        world.gate.fault = fault
        world.send(jobs)
        world.see(seen)

    return inject


def settled(world):
    """Waits for what earlier faults left: jobs of an invocation that died come back after the visibility timeout, and what SQS
    gave up on when a redrive sends it."""

    def seen():
        at_work = sum(record["state"] in ("open", "claimed") for record in world.stack.records().values())
        depths = world.stack.depth("jobs"), world.stack.depth("crashed")
        return at_work == 0 and depths == (0, 0), (at_work, depths)

    wait_until("earlier jobs are settled", seen, 600)
    time.sleep(1)  # A count from a whole second on has nothing of theirs then: an invocation publishes before its messages go.


def refuses(world):
    world.gate.fault = "refusal"
    world.send(12)
    wait_until("twelve dead letters", lambda: ((depth := world.stack.depth("dead_letters")) >= 12, depth), 120)
    world.see("DeadLetters")


def key_is_revoked(world):
    """Different jobs in a row are refused, and a worker pauses the stack."""
    world.gate.revoked_keys.add(world.key)
    world.send(12)
    world.see("AccountFailures")

    def pauses():
        entry = world.stack.control_entries().get("account", {})
        return entry.get("phase") in ("paused", "probing"), entry

    wait_until("a worker pauses for the account", pauses, 60)


def letters_of_a_week(world):
    """The refusals, and one of them has waited for eight days."""
    refuses(world)
    failed = next(key for key, record in world.stack.records().items() if record["state"] == "failed")
    world.stack.set_record(failed, failed_at_ms=int((time.time() - 8 * DAY_S) * 1000))
    world.sees()


def paused_for_days(world):
    """Jobs of four days ago were begun and handed back, then somebody paused the stack by hand, two days ago: after more, the
    sentinel lets them have their last chance."""
    world.gate.fault = "rate limit"
    world.send(3)
    open_jobs = lambda: [key for key, record in world.stack.records().items() if record["state"] == "open"]
    wait_until("jobs handed back", lambda: (len(found := open_jobs()) >= 3, found), 120)
    ago_ms = lambda days: int((time.time() - days * DAY_S) * 1000)
    world.stack.set_record("control", paused_reason="the provider's outage", paused_since_ms=ago_ms(2))
    is_turned_off(world)
    # A worker that began before that may still hold one.
    for key in wait_until("what was under way is handed back", lambda: (len(found := open_jobs()) >= 3, found), 60):
        world.stack.set_record(key, sent_at_ms=ago_ms(4))
    world.sees()


def is_turned_off(world):
    """The event source, by the sentinel; a run that looked before the pause may have turned it on."""
    is_off = lambda: (world.look(), (state := world.stack.switch()) == "Disabled", state)[1:]
    wait_until("the sentinel turns the event source off", is_off, 60)


def event_source_is_off(world):
    world.runbook.blocks(world.runbook.pages[PAUSE[0]].of(PAUSE[1]))
    is_turned_off(world)
    world.begins()
    world.send(3)


def roles_were_changed(world):
    """By hand, in the policies that Terraform wrote."""
    world.change_role("worker", "dynamodb:UpdateItem", "dynamodb:DescribeTable")
    world.change_role("sentinel", "dynamodb:Query", "dynamodb:DescribeTable")
    wait_until("the sentinel cannot read", lambda: (not world.look(), ""), 60)
    time.sleep(1)
    world.begins()
    world.send(3)
    world.see("LedgerErrors")


def money_is_spent(world):
    """Too little is left for any job; nor is there more when midnight passes meanwhile."""
    world.apply(limits={"spend_cap_usd_per_day": 0.02})
    world.stack.has_spent(19_900, 0, 1)
    world.send(2)
    world.see("JobsHandedBack")
    world.sees()


def deploy_does_not_start(world):
    functions, name = world.client("lambda"), world.stack.outputs["worker_function"]
    variables = functions.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    functions.update_function_configuration(FunctionName=name, Environment={"Variables": {**variables, "NIGHTSHIFT_PROVIDER": "nobody"}})
    version = functions.publish_version(FunctionName=name)["Version"]
    functions.update_alias(FunctionName=name, Name="live", FunctionVersion=version)
    world.begins()
    world.send(3)
    world.stand_in("AWS/Lambda", "Errors", 3, FunctionName=name)


def aws_says(world, duration_ms, throttles, sent):
    name = world.stack.outputs["worker_function"]
    world.stand_in("AWS/Lambda", "Duration", duration_ms, FunctionName=name)
    world.stand_in("AWS/Lambda", "Throttles", throttles, FunctionName=name)
    if sent:
        world.stand_in("AWS/SQS", "NumberOfMessagesSent", sent, QueueName=f"{world.stack.prefix}-jobs")


def crashed_job(world):
    body = world.bodies(1)[0]
    world.client("sqs").send_message(QueueUrl=world.stack.outputs["crashed_queue_url"], MessageBody=body)


def redrive_cannot_receive(world):
    model_fails("refusal", 3, "DeadLetters")(world)
    world.gate.fault = None
    world.change_role("redrive", "sqs:ReceiveMessage", "sqs:GetQueueUrl")
    step = json.dumps({"step": {"id": world.start_redrive("dead-letters", rate=5.0)}})
    for _ in range(2):
        world.client("lambda").invoke(FunctionName=f"{world.stack.prefix}-redrive", Payload=step)


def sentinel_may_not_invoke(world):
    """A redrive is under way, and the sentinel's role was changed by hand."""
    # From `crashed`: what a redrive hides until its end would keep those of other pages waiting.
    crashed_job(world)
    world.change_role("sentinel", "lambda:InvokeFunction", "lambda:GetFunction")
    world.start_redrive("crashed")
    wait_until("the sentinel may not drive it", lambda: (not world.look(), ""), 60)


def apply(world):
    world.apply()


FAULTS = [
    Fault(
        "the model refuses what it is asked",
        ["dead-letters-rising", "success-burning-fast", "success-burning-slow", "dead-letters-expiring", "dead-letters-present"],
        letters_of_a_week, [PAUSE, RESUME], repair=model(None), alone=True,
    ),
    Fault("the key is revoked", ["model-account"], key_is_revoked, follow=[NEW_KEY, RESUME]),
    Fault("each call ends in a 500", ["model-failing"], model_fails("server error", 3, "ModelErrors"), repair=model(None), alone=True),
    Fault("the provider refuses for rate", ["model-throttled"], model_fails("rate limit", 3, "ModelThrottled"), repair=model(None), alone=True),
    Fault("the answers are no JSON", ["output-rejected"], model_fails("prose", 3, "OutputRejections"), repair=model(None), alone=True),
    Fault(
        "paused by hand, two days ago", ["queue-paused", "oldest-job-too-old", "jobs-expiring"], paused_for_days, repair=model(None), alone=True,
    ),
    Fault("the event source is off", ["no-progress"], event_source_is_off, [], [RESUME, ("procedures/pause-and-resume", "Verification")], alone=True),
    Fault("SQS gave up on a job", ["crashed-jobs"], crashed_job, gaps=["the message was put into crashed by the test"]),
    Fault("roles were changed by hand", ["ledger-failing", "sentinel-silent"], roles_were_changed, repair=apply),
    Fault("a redrive cannot receive", ["redrive-failing"], redrive_cannot_receive, [("redrive-failing", "Mitigation")], repair=apply),
    Fault("the sentinel may not invoke the redrive", ["sentinel-failing"], sentinel_may_not_invoke, [("sentinel-failing", "Mitigation")], repair=apply),
    Fault("the day's money is spent", ["spend-near-cap", "spend-cap-reached"], money_is_spent, repair=apply, alone=True),
    Fault(
        "a deploy that does not start", ["worker-failing"], deploy_does_not_start, [], [ROLL_BACK, ("procedures/roll-back", "Verification")],
        gaps=["AWS/Lambda Errors of the worker was put by the test"],
    ),
    Fault(
        "AWS's own numbers say so", ["worker-near-timeout", "worker-throttled", "no-jobs"], lambda world: aws_says(world, 297_000, 4, 0),
        stand_in=lambda world: aws_says(world, 1_200, 0, 3),
        gaps=["AWS/Lambda Duration and Throttles, and AWS/SQS NumberOfMessagesSent, were put by the test"],
    ),
]

@dataclasses.dataclass
class Plan:
    """What is done on purpose: sections of a page, or of others that it names, what must be there first, and what must be true then."""

    page: str
    sections: list
    before: Callable = lambda world: None
    after: Callable = lambda world: None
    # Whether it needs message move tasks.
    moves: bool = False
    gaps: list = dataclasses.field(default_factory=list)
    # The page whose Verification says no before and yes after.
    verified: str = None
    # Of the blocks, those that hold one of these texts.
    only: list = None
    stand_in: Callable = lambda world: None
    says: str = "none"

    def of(self):
        """The page and the section of each."""
        return [section if isinstance(section, tuple) else (self.page, section) for section in self.sections]


def only_letter(world):
    """Of a job that was refused."""
    settled(world)
    are_taken = lambda: (world.stack.take_dead_letters(), (depth := world.stack.depth("dead_letters")) == 0, depth)[1:]
    wait_until("no letter is left", are_taken, 600)
    before = failed(world)
    world.gate.fault = "refusal"
    world.send(1)
    # The record is written before its letter is sent.
    (world.letter,) = wait_until(
        "a dead letter", lambda: (len(new := failed(world) - before) == 1 and world.stack.depth("dead_letters") > 0, new), 120,
    )
    world.gate.fault = None


def failed(world):
    return {key for key, record in world.stack.records().items() if record["state"] == "failed"}


def no_letter(world):
    wait_until("the job has a result", lambda: ((state := world.stack.records()[world.letter]["state"]) == "done", state), 400)


def letters_beside_elasticmq(world):
    only_letter(world)
    world.moves.copy()


def moved(world):
    world.moves.carry(1)
    no_letter(world)


def job_of_a_person(world):
    world.client("iam").detach_user_policy(UserName=world.operator_name, PolicyArn=world.stack.outputs["policies"]["reviewer"])
    body = world.bodies(1)[0]
    world.stack.send([body])
    (world.shell.work / "job.json").write_text(body)
    world.send(1)
    wait_until("the person's job is done", lambda: ((done := world.stack.depth("jobs") == 0), ""), 120)
    world.client("iam").attach_user_policy(UserName=world.operator_name, PolicyArn=world.stack.outputs["policies"]["eraser"])


def erased(world):
    world.client("iam").detach_user_policy(UserName=world.operator_name, PolicyArn=world.stack.outputs["policies"]["eraser"])
    states = [record["state"] for record in world.stack.records().values()]
    if states.count("erased") != 1:
        raise SystemExit(f"FAILED: one record is erased: {states}")


def reviews(world):
    return {key for key, record in world.stack.records().items() if record.get("unsettled") == "needs_review"}


def result_waits_for_review(world):
    """No answer of the model was valid, and the task's fallback is stored."""
    settled(world)
    before = reviews(world)
    world.gate.fault = "prose"
    world.stack.send([json.dumps({"task": "weekly_report", "input": {"team": "Checkout", "week": "2026-W48", "entries": ["Shipped the form."]}})])
    (key,) = wait_until("a result that waits for review", lambda: (len(new := reviews(world) - before) == 1, new), 120)
    world.gate.fault = None
    world.shell.environment["KEY"] = key
    world.client("iam").attach_user_policy(UserName=world.operator_name, PolicyArn=world.stack.outputs["policies"]["reviewer"])


def reviewed(world):
    record = world.stack.records()[world.shell.environment["KEY"]]
    if record.get("reviewed") is not True:
        raise SystemExit(f"FAILED: the result is reviewed: {record}")


PLANNED = [
    # What a redrive does not choose it hides for minutes, and the next one waits for that: there is nothing else each time.
    Plan("procedures/redrive", ["With `nightshift`"], only_letter, no_letter),
    Plan("procedures/redrive", ["Some of them"], only_letter, no_letter),
    Plan("procedures/redrive", ["Some of them, by hand"], only_letter, no_letter),
    Plan(
        "procedures/redrive", ["All of a queue"], letters_beside_elasticmq, moved, True,
        gaps=["message move tasks are ElasticMQ's, over a copy of the dead letters; what it moved was carried to the jobs queue by the test"],
    ),
    Plan("procedures/redrive", ["Verification"]),
    Plan("procedures/rotate-the-key", ["Back to the old key"]),
    Plan("procedures/change-a-prompt", ["Verification"]),
    Plan("procedures/review", ["Look", "Decide"], result_waits_for_review, reviewed, verified="procedures/review"),
    Plan("procedures/erase-a-persons-data", ["Erase", "Verification"], job_of_a_person, erased),
    Plan("README", ["Before anything else"], gaps=["the query of Logs Insights answers with all lines"]),
]

# Blocks that the administrators' stack runs alone, by a part of their text: the key of the other one is a secret.
OF_ADMINISTRATORS = ["aws ssm put-parameter"]
