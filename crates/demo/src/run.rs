//! Brings the stand-ins up, sends the jobs, and waits until the queue is empty.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use anyhow::{Context, bail};
use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_sqs::types::{QueueAttributeName, SendMessageBatchRequestEntry};
use nightshift_aws::ledger::table;
use nightshift_core::input_hash::InputHash;
use nightshift_core::job;
use nightshift_core::limits::Limits;
use nightshift_core::task::Tasks;
use nightshift_local::aws::{Item, LocalAws, Sample, StoredMessage};
use nightshift_local::lambda::{EventSource, Function, Lambda, LambdaStats};
use nightshift_local::model_stub::{ModelStub, StubSettings};
use secrecy::ExposeSecret;
use tokio::time::Instant;

use crate::jobs;
use crate::refused::Refused;
use crate::watch::{Real, Watch, say};
use crate::{Arguments, Provider, StructuredOutput};

const REGION: &str = "eu-central-1";
const STACK: &str = "demo";
const LEDGER: &str = "demo-ledger";
const JOBS: &str = "demo-jobs";
const DEAD_LETTERS: &str = "demo-dead-letters";
const CRASHED: &str = "demo-crashed";
/// A demo is watched, so its waits are seconds where a deployed stack waits minutes.
const STUB_TIMEOUT_S: u64 = 15;
const STUB_CALL_TIMEOUT_MS: u64 = 2_000;
/// A real model is given the time that a deployed worker gives it.
const REAL_TIMEOUT_S: u64 = 300;
const REAL_CALL_TIMEOUT: Duration = Duration::from_secs(120);
const BATCH: u32 = 10;
/// What one run with the real model may cost: the worker's own default for a day.
const REAL_SPEND_CAP_USD: &str = "50";
/// Bytes of one `SendMessageBatch` (Amazon SQS message quotas: 1 MiB), less room for its envelope.
const SEND_BYTES_MAX: usize = 900 * 1_024;

/// One pass over the jobs.
pub struct Pass {
    /// Messages that were put on the queue.
    pub sent: usize,
    /// Until the queue was empty.
    pub took: Duration,
    /// Calls that reached the model in this pass; `None`: the real provider was asked.
    pub model_calls: Option<u64>,
    /// Messages in `dead-letters` after it.
    pub dead_letters: usize,
    /// The function's own count of duplicates in this pass.
    pub duplicates: u64,
}

/// Everything that a run left behind.
pub struct Run {
    /// The message bodies, in order.
    pub bodies: Vec<String>,
    /// For each of them its line in the file, from 1.
    pub lines: Vec<usize>,
    /// Lines of the user's file that were not sent.
    pub bad_lines: Vec<(usize, String)>,
    /// One, or two with `--twice`.
    pub passes: Vec<Pass>,
    /// The ledger's records after the first pass.
    pub records: Vec<Item>,
    /// The dead letters of the first pass.
    pub dead_letters: Vec<StoredMessage>,
    /// What SQS itself gave up on; must be nothing.
    pub crashed: usize,
    /// Everything that was published.
    pub metrics: Vec<Sample>,
    /// AWS requests by service and action.
    pub requests: BTreeMap<String, u64>,
    /// Why calls were repeated, with how often.
    pub retries: BTreeMap<String, u64>,
    /// Why messages were handed back, with how often.
    pub hand_backs: BTreeMap<String, u64>,
    /// Lambda's counts.
    pub lambda: LambdaStats,
    /// Texts that must reach the model byte for byte, and how many of them did; `None`: the real provider was asked.
    pub texts: Option<(usize, usize)>,
    /// Ctrl-C was pressed.
    pub interrupted: bool,
}

/// A server that is not there would be asked again and again for minutes: that is what the worker is for.
async fn is_there(base_url: &str) -> anyhow::Result<()> {
    let uri = base_url.parse::<http::Uri>().unwrap_or_default();
    let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else {
        bail!(Refused::Usage(format!("{base_url} is no URL: begin with http:// or https://")));
    };
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    let address = (host.trim_matches(['[', ']']), port);
    let connects =
        tokio::time::timeout(Duration::from_secs(5), tokio::net::TcpStream::connect(address)).await;
    let nobody = || format!("nobody answers at {base_url}: start the server first, or mend the address");
    connects.with_context(nobody)?.with_context(nobody)?;
    Ok(())
}

/// Brings everything up, works until the queue is empty, and takes it down.
pub async fn run(arguments: &Arguments) -> anyhow::Result<Run> {
    let jobs = jobs_of(arguments)?;
    if let Some(base_url) = &arguments.base_url {
        is_there(base_url).await?;
    }
    let aws = LocalAws::start(REGION).await.context("cannot start the stand-in for AWS")?;
    let stub = model_stub(arguments).await?;
    let clients = Clients::new(&aws);
    clients.make_stack(&aws, 6 * timeout_s(arguments)).await?;
    let function = function(arguments, &aws, stub.as_ref())?;
    let (batch, concurrency) = open_at_once(arguments);
    let source = EventSource {
        endpoint_url: aws.endpoint_url().to_owned(),
        region: REGION.to_owned(),
        queue_url: aws.queue_url(JOBS),
        batch_size: batch,
        window: Duration::ZERO,
        maximum_concurrency: usize::try_from(concurrency)?,
    };
    let (lambda, mut events) = Lambda::start(function, source).await?;
    let mut watch = Watch::new(arguments.verbose, real(arguments));
    let mut passes = Vec::new();
    let mut first_dead_letters = Vec::new();
    let mut records = Vec::new();
    let mut interrupted = false;
    for number in 1..=if arguments.twice { 2 } else { 1 } {
        // What failed would rightly be tried afresh: a message sent after a failure is a new request.
        let bodies = if number == 1 { jobs.bodies.clone() } else { with_result(&jobs.bodies, &records) };
        let calls_before = stub.as_ref().map(|stub| stub.stats().calls);
        let duplicates_before = counted(&aws.metrics(), "JobsDuplicate");
        let dead_letters_before = depth(&aws, DEAD_LETTERS);
        let started = Instant::now();
        watch.begin(number, bodies.len());
        let work = async {
            clients.send(&aws.queue_url(JOBS), &bodies).await?;
            watch.until_empty(&aws, JOBS, &mut events, bodies.len()).await
        };
        tokio::select! {
            worked = work => worked?,
            _ = tokio::signal::ctrl_c() => interrupted = true,
        }
        watch.end();
        if number == 1 {
            first_dead_letters = aws.messages(DEAD_LETTERS);
            records = aws.items(LEDGER);
        }
        passes.push(Pass {
            sent: bodies.len(),
            took: started.elapsed(),
            model_calls: stub.as_ref().zip(calls_before).map(|(stub, before)| stub.stats().calls - before),
            dead_letters: depth(&aws, DEAD_LETTERS) - dead_letters_before,
            duplicates: counted(&aws.metrics(), "JobsDuplicate") - duplicates_before,
        });
        if interrupted {
            say_that_it_stops(timeout_s(arguments));
            break;
        }
    }
    let lambda = stopped(lambda, interrupted).await?;
    watch.drain(&mut events);
    let run = Run {
        texts: stub.as_ref().map(|stub| texts_that_arrived(&jobs.bodies, stub)),
        bodies: jobs.bodies,
        lines: jobs.lines,
        bad_lines: jobs.bad_lines,
        passes,
        records,
        dead_letters: first_dead_letters,
        crashed: depth(&aws, CRASHED),
        metrics: aws.metrics(),
        requests: aws.requests(),
        retries: watch.retries,
        hand_backs: watch.hand_backs,
        lambda,
        interrupted,
    };
    aws.stop().await;
    Ok(run)
}

fn say_that_it_stops(timeout_s: u64) {
    say(&format!(
        "stopping: the function finishes what it has begun, in up to {timeout_s} s; a second Ctrl-C ends it at once"
    ));
}

/// Lets the function end what it has begun, but for somebody who asks a second time.
async fn stopped(lambda: Lambda, interrupted: bool) -> anyhow::Result<LambdaStats> {
    tokio::select! {
        stats = lambda.stop() => Ok(stats),
        _ = tokio::signal::ctrl_c(), if interrupted => {
            bail!(Refused::Interrupted("ended at once: what the function had begun is lost".to_owned()))
        }
    }
}

/// The jobs that are asked for; what is no job is said, and not sent.
fn jobs_of(arguments: &Arguments) -> anyhow::Result<jobs::Jobs> {
    let jobs = match &arguments.jobs {
        Some(path) => jobs::from_file(path)?,
        None => jobs::built_in(),
    };
    for (line, what) in &jobs.bad_lines {
        say(&format!("line {line} is not sent: {what}"));
    }
    Ok(jobs)
}

async fn model_stub(arguments: &Arguments) -> anyhow::Result<Option<ModelStub>> {
    if arguments.provider != Provider::Stub {
        return Ok(None);
    }
    let settings = StubSettings {
        seed: arguments.seed,
        faults: arguments.faults.unwrap_or(nightshift_local::model_stub::Faults::Some),
        answers: jobs::answers(&my_tasks::registry()),
        ..StubSettings::default()
    };
    ModelStub::start(settings).await.context("cannot start the model stub").map(Some)
}

fn function(arguments: &Arguments, aws: &LocalAws, stub: Option<&ModelStub>) -> anyhow::Result<Function> {
    let base_url = stub.map(ModelStub::base_url).or_else(|| arguments.base_url.clone());
    let provider = arguments.provider.word();
    let key = match arguments.provider {
        Provider::Stub => None,
        Provider::Anthropic => arguments.anthropic_api_key.as_ref(),
        Provider::Openai => arguments.openai_api_key.as_ref(),
    };
    let key = match key {
        Some(key) => key.expose_secret().to_owned(),
        // Such a server asks for none, and the protocol of Anthropic has a place for one.
        None if base_url.is_some() => "demo-key".to_owned(),
        None => bail!(Refused::NotAllowed(format!(
            "--provider {provider} needs the key in the environment variable {}; a server of your own is named by --base-url",
            real(arguments).map_or("", |real| real.key)
        ))),
    };
    // Where nobody is paid, no number of jobs is too many.
    let spend_cap_usd = if base_url.is_some() { "100000" } else { REAL_SPEND_CAP_USD };
    let price = match &arguments.price {
        Some((input, output)) => (input.as_str(), output.as_str()),
        None if arguments.base_url.is_some() => ("0", "0"),
        None => ("", ""),
    };
    let call_timeout_ms =
        real(arguments).map_or(STUB_CALL_TIMEOUT_MS, |real| real.call_timeout.as_millis() as u64);
    let timeout_s = timeout_s(arguments);
    let (batch, concurrency) = open_at_once(arguments);
    let mut function = Function::new("demo-worker", &arguments.function);
    function.timeout = Duration::from_secs(timeout_s);
    function.freeze = true;
    for (name, value) in [
        ("STACK", STACK.to_owned()),
        ("JOBS_URL", aws.queue_url(JOBS)),
        ("DEAD_LETTERS_URL", aws.queue_url(DEAD_LETTERS)),
        ("LEDGER_TABLE", LEDGER.to_owned()),
        ("PROVIDER", provider.to_owned()),
        ("MODEL", arguments.model.clone()),
        ("MODEL_KEY", key),
        ("MODEL_BASE_URL", base_url.unwrap_or_default()),
        ("MODEL_INPUT_USD_PER_MTOK", price.0.to_owned()),
        ("MODEL_OUTPUT_USD_PER_MTOK", price.1.to_owned()),
        ("STRUCTURED_OUTPUT", arguments.structured_output.map_or("", StructuredOutput::word).to_owned()),
        ("CALL_TIMEOUT_MS", call_timeout_ms.to_string()),
        ("BACKOFF_BASE_MS", "50".to_owned()),
        ("BACKOFF_MS_MAX", "1000".to_owned()),
        ("HAND_BACK_BASE_MS", "1000".to_owned()),
        ("HAND_BACK_MS_MAX", "4000".to_owned()),
        ("CAPACITY_WAIT_MS_MAX", "180000".to_owned()),
        ("DEADLINE_MARGIN_MS", "3000".to_owned()),
        ("LEASE_MARGIN_MS", "2000".to_owned()),
        ("FUNCTION_TIMEOUT_MS", (timeout_s * 1_000).to_string()),
        ("VISIBILITY_TIMEOUT_MS", (6 * timeout_s * 1_000).to_string()),
        ("BATCH_SIZE", batch.to_string()),
        ("MAXIMUM_CONCURRENCY", concurrency.to_string()),
        ("SPEND_CAP_USD_PER_DAY", spend_cap_usd.to_owned()),
    ] {
        function = function.with_variable(&format!("NIGHTSHIFT_{name}"), value);
    }
    Ok(function)
}

/// Who is asked, where it is not the stub.
fn real(arguments: &Arguments) -> Option<Real> {
    let key = match arguments.provider {
        Provider::Stub => return None,
        Provider::Anthropic => "ANTHROPIC_API_KEY",
        Provider::Openai => "OPENAI_API_KEY",
    };
    Some(Real { key, call_timeout: REAL_CALL_TIMEOUT })
}

fn timeout_s(arguments: &Arguments) -> u64 {
    match arguments.provider {
        Provider::Stub => STUB_TIMEOUT_S,
        Provider::Anthropic | Provider::Openai => REAL_TIMEOUT_S,
    }
}

/// Messages of a batch and batches at once, each message being at most one open call.
fn open_at_once(arguments: &Arguments) -> (u32, u32) {
    let Some(in_flight) = arguments.in_flight else { return (BATCH, arguments.concurrency) };
    let batch = in_flight.min(BATCH);
    (batch, in_flight / batch)
}

/// The real SDK clients, for what a sender and Terraform would do.
struct Clients {
    sqs: aws_sdk_sqs::Client,
    dynamodb: aws_sdk_dynamodb::Client,
}

impl Clients {
    fn new(aws: &LocalAws) -> Self {
        let http = aws_smithy_http_client::Builder::new().build_http();
        let credentials = Credentials::new("demo", "demo", None, None, "demo");
        let sqs = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .endpoint_url(aws.endpoint_url())
            .credentials_provider(credentials.clone())
            .http_client(http.clone())
            .build();
        let dynamodb = aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .endpoint_url(aws.endpoint_url())
            .credentials_provider(credentials)
            .http_client(http)
            .build();
        Self {
            sqs: aws_sdk_sqs::Client::from_conf(sqs),
            dynamodb: aws_sdk_dynamodb::Client::from_conf(dynamodb),
        }
    }

    async fn make_stack(&self, aws: &LocalAws, visibility_s: u64) -> anyhow::Result<()> {
        for queue in [CRASHED, DEAD_LETTERS] {
            self.sqs.create_queue().queue_name(queue).send().await?;
        }
        let arn = self
            .sqs
            .get_queue_attributes()
            .queue_url(aws.queue_url(CRASHED))
            .attribute_names(QueueAttributeName::QueueArn)
            .send()
            .await?
            .attributes
            .and_then(|mut attributes| attributes.remove(&QueueAttributeName::QueueArn))
            .context("the queue has no ARN")?;
        let redrive = serde_json::json!({"deadLetterTargetArn": arn, "maxReceiveCount": 100}).to_string();
        self.sqs
            .create_queue()
            .queue_name(JOBS)
            .attributes(QueueAttributeName::VisibilityTimeout, visibility_s.to_string())
            .attributes(QueueAttributeName::MessageRetentionPeriod, "604800")
            .attributes(QueueAttributeName::RedrivePolicy, redrive)
            .send()
            .await?;
        table::create(&self.dynamodb, LEDGER).await?;
        Ok(())
    }

    async fn send(&self, queue_url: &str, bodies: &[String]) -> anyhow::Result<()> {
        let mut rest = bodies;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fitting = rest.iter().take(10).take_while(|body| {
                bytes += body.len();
                bytes <= SEND_BYTES_MAX
            });
            let (batch, later) = rest.split_at(fitting.count().max(1));
            let mut request = self.sqs.send_message_batch().queue_url(queue_url);
            for (index, body) in batch.iter().enumerate() {
                let entry = SendMessageBatchRequestEntry::builder()
                    .id(index.to_string())
                    .message_body(body)
                    .build()?;
                request = request.entries(entry);
            }
            let answer = request.send().await.context("cannot put jobs on the queue")?;
            if let Some(failure) = answer.failed().first() {
                bail!("SQS refused a job: {}", failure.message().unwrap_or(failure.code()));
            }
            rest = later;
        }
        Ok(())
    }
}

/// The jobs whose input has a result.
fn with_result(bodies: &[String], records: &[Item]) -> Vec<String> {
    let text = |item: &Item, name: &str| item.get(name).and_then(|value| value.as_text().map(str::to_owned));
    let done: HashSet<String> = records
        .iter()
        .filter(|item| text(item, "state").as_deref() == Some("done"))
        .filter_map(|item| text(item, "id"))
        .collect();
    let has_result = |body: &&String| {
        job::parse(body, Limits::default().body_bytes_max)
            .is_ok_and(|job| done.contains(InputHash::of_job(&job.task, &job.input).as_str()))
    };
    bodies.iter().filter(has_result).cloned().collect()
}

fn depth(aws: &LocalAws, queue: &str) -> usize {
    aws.depth(queue).map_or(0, |depth| depth.total())
}

/// The sum of a metric over the whole stack.
pub fn counted(metrics: &[Sample], name: &str) -> u64 {
    let stack_only = |sample: &&Sample| sample.name == name && sample.dimensions.len() == 1;
    metrics.iter().filter(stack_only).map(|sample| sample.value * sample.count).sum::<f64>().round() as u64
}

/// How many distinct prompts the jobs make, and how many of them the model was shown byte for byte.
fn texts_that_arrived(bodies: &[String], stub: &ModelStub) -> (usize, usize) {
    let tasks = my_tasks::registry();
    let expected: HashSet<String> = bodies
        .iter()
        .filter_map(|body| job::parse(body, Limits::default().body_bytes_max).ok())
        .filter_map(|job| tasks.find(&job.task)?.prompt(&job.input).ok())
        .map(|prompt| prompt.user)
        .collect();
    let arrived: HashSet<String> = stub.requests().into_iter().map(|request| request.text).collect();
    let found = expected.iter().filter(|text| arrived.contains(*text)).count();
    (expected.len(), found)
}
