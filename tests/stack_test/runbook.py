"""Runs each command block of the runbook on the stack, with the fault of its page injected.

    runbook.py [PAGE...]      default: all pages

Of an alarm's page: Diagnosis, under the fault; Verification, which must say no; Mitigation, with the pages that it leads to;
Verification, which must say yes.  The stack's server is up (scripts/stack up), NIGHTSHIFT_STACK_HOME says where; the runbook has a
stack of its own on it.
"""

import json
import os
import pathlib
import shutil
import sys
import time

import move_tasks
import runbook_administrator
import runbook_faults
import runbook_pages
from model_gate import ModelGate
from move_tasks import MoveTasks
from operator_shell import OperatorShell
from stack import BUSY, REGION, ROOT, applied, require, scripts_stack, stack_of, wait_until

PREFIX = "runbook"
# Load tests are run on a stack of their own.
LOAD_TEST = "load-test"
OLD_KEY, NEW_KEY = "the-key-of-yesterday", "the-key-of-today"
# From the repair to the last job that came back: two visibility timeouts.
OVER_S_MAX = 400

# What MiniStack refuses to somebody with the policy of operators, and AWS does not.
BATCHES = ["sqs:ChangeMessageVisibilityBatch", "sqs:DeleteMessageBatch", "sqs:SendMessageBatch"]
# It takes an alias that is set for all of them that are listed.
OPERATOR_GAPS = ["dynamodb:PutItem", "dynamodb:UpdateItem", "lambda:ListAliases"]
GAPS = [
    "MiniStack's IAM: the condition dynamodb:LeadingKeys never matches, reading or changing an event source mapping is not checked, and batches"
    f" have actions of their own; beside the policy of operators, {', '.join(OPERATOR_GAPS)} are allowed, and {', '.join(BATCHES)} to the redrive",
    "the states of alarms are MiniStack's, which evaluates hardly any: no verification rests on them (scripts/drill shows them)",
    "a log filter of the form { $.x = … } matches every line",
]


def job(number):
    """One of each task in turn, and no two alike."""
    return [
        {"task": "categorize_ticket", "input": {"text": f"Ticket {number}: I was charged twice."}},
        {"task": "summarize_email", "input": {"subject": f"Order {number}", "from": "a@example.com", "body": "Two of six chairs are broken."}},
        {"task": "weekly_report", "input": {"team": "Checkout", "week": "2026-W47", "entries": [f"Shipped form {number}."]}},
    ][number % 3]


def _allow(actions):
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]})


def built():
    """Where cargo puts what the tests use."""
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"


class World:
    """The stack that the pages are run on, and what a fault can do to it."""

    def __init__(self):
        self.gate = ModelGate(built() / "model-stub")
        self.key = OLD_KEY
        self.operator_name = f"{PREFIX}-on-call"
        self.sent = 0
        self.since = int(time.time())
        names = ["AWS_ENDPOINT_URL", "AWS_CA_BUNDLE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
        self.apply()
        self.stack = stack_of(PREFIX)
        self.client = self.stack.client
        environment = {name: os.environ[name] for name in names} | {"AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION, "PREFIX": PREFIX}
        self.shell = OperatorShell({**environment, **self.operator()}, built() / "nightshift")
        self.moves = MoveTasks(self.stack) if move_tasks.available() else None
        self.client("secretsmanager").put_secret_value(SecretId=self.stack.outputs["model_key_secret"], SecretString=self.key)

    def operator(self):
        """The keys of somebody with the policy of operators; and what MiniStack refuses that AWS allows."""
        iam = self.client("iam")
        name = self.operator_name
        iam.create_user(UserName=name)
        iam.attach_user_policy(UserName=name, PolicyArn=self.stack.outputs["policies"]["operator"])
        iam.put_user_policy(UserName=name, PolicyName="gaps", PolicyDocument=_allow(OPERATOR_GAPS))
        self.redrive_role = self.client("lambda").get_function_configuration(FunctionName=f"{PREFIX}-redrive")["Role"].rsplit("/", 1)[1]
        iam.put_role_policy(RoleName=self.redrive_role, PolicyName="gaps", PolicyDocument=_allow(BATCHES))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        self.access_key = key["AccessKeyId"]
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}

    def apply(self, **settings):
        """What a page calls an apply: of the settings that the stack has, and these."""
        chosen = {
            "model": {"base_url": self.gate.url},
            "queues": {"maximum_concurrency": 2},
            "limits": {"hand_back_base_s": 2, "hand_back_s_max": 10, "capacity_wait_s_max": 300},
            "jobs_expected": {"from_hour": 0, "to_hour": 24, "weekdays_only": False},
        }
        for name, value in settings.items():
            chosen[name] = {**chosen.get(name, {}), **value}
        applied(PREFIX, chosen)

    def bodies(self, count):
        """So many new jobs."""
        self.sent += count
        return [json.dumps(job(number)) for number in range(self.sent - count, self.sent)]

    def send(self, count):
        self.stack.send(self.bodies(count))

    def begins(self):
        """From now on Verification looks."""
        self.since = int(time.time())

    def change_role(self, function, action, other):
        """Somebody's hand in the role of a function; an apply puts it back."""
        role = self.client("lambda").get_function_configuration(FunctionName=f"{PREFIX}-{function}")["Role"].rsplit("/", 1)[1]
        policy = self.client("iam").get_role_policy(RoleName=role, PolicyName=function)["PolicyDocument"]
        changed = json.dumps(policy).replace(f'"{action}"', f'"{other}"')
        require(f"the role of {function} allows {action}", changed != json.dumps(policy))
        self.client("iam").put_role_policy(RoleName=role, PolicyName=function, PolicyDocument=changed)

    def stand_in(self, namespace, metric, value, **dimensions):
        """A number that AWS would publish, and MiniStack does not."""
        self.client("cloudwatch").put_metric_data(Namespace=namespace, MetricData=[{
            "MetricName": metric, "Value": value, "Dimensions": [{"Name": name, "Value": of} for name, of in dimensions.items()],
        }])

    def see(self, metric):
        """Waits until CloudWatch shows what the worker has counted since the fault began."""
        wait_until(f"{metric} in CloudWatch", lambda: ((sum_ := self.stack.metric(metric, self.since + 60)) > 0, sum_), OVER_S_MAX)

    def look(self):
        """A run of the sentinel now, in place of the next minute's."""
        looked = self.client("lambda").invoke(FunctionName=self.stack.outputs["sentinel_function"], Payload=b"{}")
        return "FunctionError" not in looked

    def sees(self):
        """Runs of the sentinel until one was complete, and its gauges are there: what takes longer than 2.5 s it leaves out."""
        since = int(time.time())

        def is_complete():
            self.look()
            return (beats := self.stack.metric("Heartbeat", since + 60)) > 0, beats

        wait_until("a complete look of the sentinel", is_complete, 60)

    def redrive(self, ask):
        """What the redrive function answers; it is asked again where a call of its own took too long."""

        def answer():
            done = self.client("lambda").invoke(FunctionName=f"{PREFIX}-redrive", Payload=json.dumps(ask))
            return "FunctionError" not in done, json.load(done["Payload"])

        return wait_until("the redrive function answers", answer, 60)

    def start_redrive(self, source, **more):
        """A redrive has begun; its id."""
        running = lambda: {one["id"] for one in self.redrive({"list": {"all": False}})["redrives"]}
        before = running()
        answer = self.redrive({"start": {"source": source, "reason": "test", "caller": "test", **more}})
        # Where an earlier ask began it before it failed, the last is refused.
        begun = running() - before
        require(f"a redrive from {source} has begun", len(begun) == 1, (answer, begun))
        return begun.pop()

    def close(self):
        self.gate.close()
        if self.moves:
            self.moves.close()
        self.shell.close()
        iam = self.client("iam")
        name = self.operator_name
        for policy in iam.list_attached_user_policies(UserName=name)["AttachedPolicies"]:
            iam.detach_user_policy(UserName=name, PolicyArn=policy["PolicyArn"])
        iam.delete_user_policy(UserName=name, PolicyName="gaps")
        iam.delete_access_key(UserName=name, AccessKeyId=self.access_key)
        iam.delete_user(UserName=name)
        iam.delete_role_policy(RoleName=self.redrive_role, PolicyName="gaps")
        scripts_stack("destroy", "--prefix", PREFIX)


class Runbook:
    """What was run of the pages, and what came of it."""

    def __init__(self, world, pages):
        self.world = world
        self.pages = pages
        self.ran = {}
        self.failures = []
        world.runbook = self

    def blocks(self, blocks, environment=None, may_fail=False):
        answers = {"Model key (it is not shown): ": NEW_KEY, "Model key, then Enter: ": NEW_KEY}
        for prefix in (runbook_administrator.PREFIX, LOAD_TEST):
            answers[f"prefix {prefix}, goes for good. To go on, type its prefix: "] = prefix
        done = self.world.shell.run(blocks, environment, answers)
        for one in done:
            self.ran.setdefault(one.block, []).append(one)
            if not may_fail and (one.status or one.failed_calls):
                said = "; ".join(map(str, one.failed_calls)) or f"exit code {one.status}"
                self.fail(f"{one.block}: {said}\n{one.output[-2000:]}")
        return done

    def fail(self, what):
        print(f"FAILED: {what}", flush=True)
        self.failures.append(what)

    def verified(self, page, environment=None):
        """Whether Verification says that it is over, since the fault or since its repair."""
        done = self.blocks(self.pages[page].of("Verification"), {"SINCE": str(self.world.since), **(environment or {})}, may_fail=True)
        return all(one.status == 0 for one in done), done[-1].output

    def under(self, fault):
        """Runs the pages of a fault."""
        began = time.monotonic()
        if fault.alone:
            runbook_faults.settled(self.world)
        self.world.begins()
        fault.inject(self.world)
        self.world.look()
        before, after = {}, {}
        for page in fault.pages:
            self.blocks(self.pages[page].of("Diagnosis"))
            before[page] = self.begun(page)
        for page, section in fault.first:
            self.blocks(of_operators(self.pages[page].of(section)))
        fault.repair(self.world)
        mitigations = [(page, "Mitigation") for page in fault.pages if (page, "Mitigation") not in fault.first]
        for page, section in mitigations + fault.follow:
            self.blocks(of_operators(self.pages[page].of(section)))
        self.world.begins()
        self.world.send(3)
        for page in fault.pages:
            after[page] = self.over(page, fault)
        took = (time.monotonic() - began) / len(fault.pages)
        for page in fault.pages:
            self.row(page, before[page], after[page], took, fault.says)

    def planned(self, plan):
        began = time.monotonic()
        names = ", ".join(section or "top" for _, section in plan.of())
        if plan.moves and self.world.moves is None:
            print(f"  skipped: {plan.page}, {names} of the runbook (no Java or no Maven for ElasticMQ)")
            return
        self.world.begins()
        plan.before(self.world)
        environment = {"RUNBOOK_MOVES": self.world.moves.url} if plan.moves else {}
        before = after = ""
        if plan.verified:
            before = self.begun(plan.verified, environment)
        for page, section in plan.of():
            self.blocks(chosen(self.pages[page].of(section), plan), environment)
        self.world.begins()
        plan.after(self.world)
        if plan.verified:
            after = self.over(plan.verified, plan, environment)
        self.row(plan.page, before, after, time.monotonic() - began, f"{plan.says}: {names}")

    def row(self, page, before, after, seconds, says):
        count = sum(block in self.ran for block in self.pages[page].blocks)
        print(f"  {page:<32} {count:>6}  {before:<6}  {after:<5}  {seconds:>7.0f}  {says}", flush=True)

    def begun(self, page, environment=None):
        """What Verification says before anything was done: no."""
        # What a page asks CloudWatch for ends with the last whole second: what was published in this one is not yet seen.
        time.sleep(1)
        over, said = self.verified(page, environment)
        if over:
            self.fail(f"{page}: Verification says yes before anything was done:\n{said}")
        return "yes" if over else "no"

    def over(self, page, fault, environment=None):
        deadline, moved = time.monotonic() + BUSY * OVER_S_MAX, time.monotonic()
        while True:
            self.world.look()
            fault.stand_in(self.world)
            over, said = self.verified(page, environment)
            if over:
                return "yes"
            # What was under way when the cause ended may have failed after that: look again from now, at new jobs.
            if time.monotonic() > moved + 30:
                self.world.begins()
                self.world.send(1)
                moved = time.monotonic()
            if time.monotonic() > deadline:
                self.fail(f"{page}: Verification still says no after the mitigation:\n{said}")
                return "no"
            time.sleep(2)


def chosen(blocks, plan):
    """The blocks that a plan runs."""
    return [block for block in blocks if holds_one_of(block, plan.only)] if plan.only else of_operators(blocks)


def of_operators(blocks):
    return [block for block in blocks if not holds_one_of(block, runbook_faults.OF_ADMINISTRATORS)]


def holds_one_of(block, texts):
    return any(text in block.text for text in texts)


def uncovered(pages):
    """The blocks that neither a fault nor a plan runs."""
    sections = [(page, section) for fault in runbook_faults.FAULTS for page in fault.pages for section in runbook_pages.SECTIONS]
    sections += [section for fault in runbook_faults.FAULTS for section in fault.first + fault.follow]
    covered = {block for page, section in sections for block in of_operators(pages[page].of(section))}
    for plan in runbook_faults.PLANNED + runbook_administrator.PLANS + runbook_administrator.ALONE:
        covered |= {block for page, section in plan.of() for block in chosen(pages[page].of(section), plan)}
        covered |= set(pages[plan.verified].of("Verification") if plan.verified else [])
    return [block for page in pages.values() for block in page.blocks if block not in covered]


def not_led_to(pages):
    """What a fault follows, and no Mitigation of its pages links to."""
    return [
        (fault.says, page) for fault in runbook_faults.FAULTS for page, _ in fault.first + fault.follow
        if page not in fault.pages and not any(page in pages[name].links("Mitigation") for name in fault.pages)
    ]


def administrators(wanted=()):
    """Runs the pages that need an administrator."""
    ready(lambda: runbook_administrator.Administrator(built()), [], runbook_administrator.PLANS, set(wanted), runbook_administrator.GAPS)


def alone():
    """Runs what must have the server for itself: `runbook.py --alone`."""
    ready(lambda: runbook_administrator.Administrator(built(), is_gone=True), [], runbook_administrator.ALONE, set(), runbook_administrator.GAPS)


def run(wanted=()):
    """Runs what an operator may do, under the faults."""
    ready(World, runbook_faults.FAULTS, runbook_faults.PLANNED, set(wanted), GAPS)


def ready(world_of, faults, plans, wanted, gaps):
    """Runs the faults and plans of these pages, or all."""
    for tool in ("aws", "jq"):
        if shutil.which(tool) is None:
            print(f"skipped: the runbook (there is no {tool})")
            return
    pages = runbook_pages.read()
    require("each block has its fault", not uncovered(pages), [str(block) for block in uncovered(pages)])
    faults = [fault for fault in faults if wanted & set(fault.pages) or not wanted]
    plans = [plan for plan in plans if plan.page in wanted or not wanted]
    if not faults and not plans:
        return
    world = world_of()
    runbook = Runbook(world, pages)
    print(f"  {'page':<32} {'blocks':>6}  before  after  seconds  fault")
    try:
        for fault in faults:
            runbook.under(fault)
        for plan in plans:
            runbook.planned(plan)
    finally:
        world.close()
    for gap in gaps + [gap for one in faults + plans for gap in one.gaps]:
        print(f"  gap: {gap}")
    if runbook.failures:
        said = "\n".join(f"FAILED: {what[:200]}\n{what[200:][-600:]}" for what in runbook.failures)
        raise SystemExit(f"{said}\nFAILED: {len(runbook.failures)} commands or verifications of the runbook")
    calls = [call for ran in runbook.ran.values() for one in ran for call in one.calls]
    print(f"the runbook passed: {len(runbook.ran)} blocks, {len(calls)} commands")


if __name__ == "__main__":
    if sys.argv[1:] == ["--alone"]:
        alone()
    else:
        run(sys.argv[1:])
        administrators(sys.argv[1:])
