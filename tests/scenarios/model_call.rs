//! L: every documented answer of a provider, over HTTP, through the real adapter and the real worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use nightshift_core::limits::Limits;
use nightshift_core::metric::{HandBackCause, Outcome};
use nightshift_models::{
    Anthropic, AnthropicSettings, Bedrock, BedrockAuth, BedrockSettings, Http, OpenAi, OpenAiSettings,
    StructuredOutput,
};
use nightshift_ports::{Model, ModelKey, PortError};
use nightshift_tests::cases;
use nightshift_tests::http::{Answer, Server};
use nightshift_tests::memory::{World, again, message};
use nightshift_worker::{Message, Worker};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::stage::{context, key, output, reason, ticket, world};

/// Real time passes here, so the waits are short; everything else is as by default.
fn limits() -> Limits {
    Limits {
        backoff_base_ms: 1,
        backoff_ms_max: 5,
        call_timeout_ms: 6_000,
        deadline_margin_ms: 1_000,
        lease_margin_ms: 1_000,
        ..Limits::default()
    }
}

/// The function's timeout in these scenarios.
const TIME_LEFT_MS: u64 = 15_000;

struct Key;

#[async_trait]
impl ModelKey for Key {
    async fn get(&self) -> Result<SecretString, PortError> {
        Ok("sk-scenario".into())
    }
    fn forget(&self) {}
}

fn adapter(provider: &str, base_url: String) -> Arc<dyn Model> {
    let http = Http::new().unwrap();
    match provider {
        "anthropic" => {
            let settings = AnthropicSettings {
                model: "claude-haiku-5-5".to_owned(),
                base_url,
                structured_output: StructuredOutput::TextFormat,
            };
            Arc::new(Anthropic::new(&settings, http, Arc::new(Key)).unwrap())
        }
        "bedrock" => {
            let settings = BedrockSettings {
                model: "global.anthropic.claude-haiku-5-5".to_owned(),
                region: "us-east-1".to_owned(),
                base_url: Some(base_url),
                structured_output: None,
            };
            Arc::new(Bedrock::new(&settings, http, BedrockAuth::Key(Arc::new(Key))).unwrap())
        }
        "openai" => {
            let settings = OpenAiSettings {
                model: "gpt-6-luna".to_owned(),
                base_url,
                structured_output: StructuredOutput::TextFormat,
            };
            Arc::new(OpenAi::new(&settings, http, Some(Arc::new(Key))).unwrap())
        }
        other => panic!("{other}"),
    }
}

/// A finished answer with this text, in the provider's words.
fn answered(provider: &str, text: &str) -> Answer {
    let body = match provider {
        "anthropic" => json!({
            "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-haiku-5-5",
            "content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "stop_sequence": null,
            "usage": {"input_tokens": 100, "output_tokens": 20},
        }),
        "bedrock" => json!({
            "output": {"message": {"role": "assistant", "content": [{"text": text}]}},
            "stopReason": "end_turn",
            "usage": {"inputTokens": 100, "outputTokens": 20, "totalTokens": 120},
            "metrics": {"latencyMs": 500},
        }),
        _ => json!({
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1_758_000_000, "model": "gpt-6-luna",
            "choices": [{
                "index": 0, "finish_reason": "stop",
                "message": {"role": "assistant", "content": text, "refusal": null},
            }],
            "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
        }),
    };
    (200, vec![("content-type".to_owned(), "application/json".to_owned())], body.to_string())
}

#[derive(Debug, Clone)]
struct Case {
    provider: String,
    name: String,
    expected: String,
    answer: Answer,
}

impl Case {
    fn new(case: &Value, truncated: &str) -> Self {
        let text = |name: &str| case[name].as_str().unwrap().to_owned();
        // The placeholder stands inside a JSON string, so what replaces it is escaped like one.
        let escaped = Value::String(truncated.to_owned()).to_string();
        let body = case["body"].as_str().map_or_else(|| case["body"].to_string(), str::to_owned);
        let body = body.replace("{{PAYLOAD_TRUNCATED}}", escaped.trim_matches('"'));
        assert!(!body.contains("{{PAYLOAD"), "{case}");
        let headers = case["headers"].as_object().unwrap().iter();
        Self {
            provider: text("provider"),
            name: format!("{} {}", text("provider"), text("name")),
            expected: text("expected"),
            answer: (
                u16::try_from(case["status"].as_u64().unwrap()).unwrap(),
                headers.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect(),
                body,
            ),
        }
    }
}

/// What providers document, and what users of other clients reported.
const ALL: [&str; 2] = ["documented.json", "reported.json"];

/// The cases of these classes; in those that are cut off, this is what was said.
fn documented(files: &[&str], classes: &[&str], truncated: &str) -> Option<Vec<Case>> {
    let folder = cases::folder("model_errors")?;
    let read = |file: &&str| -> Vec<Value> {
        let all: Vec<Value> = serde_json::from_str(&cases::text(&folder, file)).unwrap();
        assert!(all.len() >= 28, "{}", all.len());
        all
    };
    let cases: Vec<_> = files
        .iter()
        .flat_map(read)
        .collect::<Vec<_>>()
        .iter()
        .map(|case| Case::new(case, truncated))
        .filter(|case| classes.contains(&case.expected.as_str()))
        .collect();
    assert!(!cases.is_empty(), "{classes:?}");
    Some(cases)
}

/// Runs each case beside the others; a panic in one names it.
async fn for_each<F: Future<Output = ()> + Send + 'static>(cases: Vec<Case>, run: impl Fn(Case) -> F) {
    let mut running = tokio::task::JoinSet::new();
    for case in cases {
        running.spawn(run(case));
    }
    while let Some(result) = running.join_next().await {
        result.unwrap();
    }
}

/// One ticket before a provider that answers with the case, `bad` times or always, and then well.
struct Call {
    world: Arc<World>,
    server: Server,
    calls: Arc<AtomicUsize>,
    case: Case,
    message: Message,
}

impl Call {
    async fn new(case: Case, bad: usize) -> Self {
        let calls = Arc::new(AtomicUsize::new(0));
        let (counted, says) = (calls.clone(), case.clone());
        let server = Server::start(move |_| {
            let nth = counted.fetch_add(1, Ordering::SeqCst);
            Some(if nth < bad {
                says.answer.clone()
            } else {
                answered(&says.provider, &output().to_string())
            })
        })
        .await;
        let world = world(|_, _| panic!("the world's own model is not asked"));
        let message = message(&world, "m-1", ticket("one"));
        Self { world, server, calls, case, message }
    }

    /// One delivery to a fresh environment: none of the last one's waits are left.
    async fn deliver(&mut self) -> Outcome {
        let model = adapter(&self.case.provider, self.server.url());
        let worker: Worker = self.world.worker_with(limits(), model);
        let started = Instant::now();
        let report = worker.process_batch("request", TIME_LEFT_MS, vec![self.message.clone()]).await;
        assert!(started.elapsed() < Duration::from_millis(TIME_LEFT_MS), "{}", self.case.name);
        let handed_back = matches!(report.outcomes[0], Outcome::HandedBack(_));
        assert_eq!(report.failed_message_ids.len(), usize::from(handed_back), "{}", self.case.name);
        self.message = again(&self.message);
        report.outcomes[0]
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn is_stored(&self) -> bool {
        self.world.stored().contains(&key("one"))
    }
}

#[tokio::test]
async fn l1_after_a_failure_that_passes_the_second_call_is_stored() {
    let Some(cases) = documented(&ALL, &["retry"], "") else { return };
    for_each(cases, |case| async move {
        let mut call = Call::new(case, 1).await;
        let mut outcome = call.deliver().await;
        if matches!(outcome, Outcome::HandedBack(_)) {
            outcome = call.deliver().await;
        }
        assert_eq!(outcome, Outcome::Succeeded, "{}", call.case.name);
        assert_eq!(call.calls(), 2, "{}", call.case.name);
        assert!(call.is_stored() && call.world.letters().is_empty(), "{}", call.case.name);
    })
    .await;
}

#[tokio::test]
async fn l1_what_may_pass_is_settled_either_way() {
    // A provider may or may not answer these well the second time; ours calls again, and stores only what is valid.
    let Some(cases) = documented(&ALL, &["retry_or_permanent"], "") else { return };
    for_each(cases.clone(), |case| async move {
        let mut call = Call::new(case, 1).await;
        let mut outcome = call.deliver().await;
        for _ in 0..3 {
            if matches!(outcome, Outcome::HandedBack(_)) {
                outcome = call.deliver().await;
            }
        }
        match outcome {
            Outcome::Succeeded => assert_eq!(call.calls(), 2, "{}", call.case.name),
            Outcome::DeadLettered(_) => assert_eq!(call.calls(), 1, "{}", call.case.name),
            other => panic!("{}: {other:?}", call.case.name),
        }
    })
    .await;
    for_each(cases, |case| async move {
        let mut call = Call::new(case, usize::MAX).await;
        for _ in 0..3 {
            if !matches!(call.deliver().await, Outcome::HandedBack(_)) {
                break;
            }
        }
        assert!(!call.is_stored(), "{}", call.case.name);
        assert!(call.calls() <= 15, "{}: {} calls in three deliveries", call.case.name, call.calls());
    })
    .await;
}

/// Few cases are permanent, so here are three providers' words for a request that is longer than a limit.
fn permanent() -> Vec<Case> {
    let error = json!({"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 1200000 tokens > 1000000 maximum"}});
    let chat = json!({"error": {"message": "This model's maximum context length is 128000 tokens.", "type": "invalid_request_error", "param": null, "code": null}});
    let bedrock = json!({"message": "Input is too long for requested model."});
    [
        ("anthropic", 400, vec![], error),
        ("openai", 400, vec![], chat),
        ("bedrock", 400, vec![("x-amzn-errortype".to_owned(), "ValidationException".to_owned())], bedrock),
    ]
    .into_iter()
    .map(|(provider, status, mut headers, body)| {
        headers.push(("content-type".to_owned(), "application/json".to_owned()));
        Case {
            provider: provider.to_owned(),
            name: format!("{provider} permanent"),
            expected: "permanent".to_owned(),
            answer: (status, headers, body.to_string()),
        }
    })
    .collect()
}

#[tokio::test]
async fn l2_a_request_that_can_never_work_is_one_call_and_a_dead_letter() {
    let mut cases = permanent();
    cases.extend(documented(&ALL, &["permanent"], "").unwrap_or_default());
    for_each(cases, |case| async move {
        let status = case.answer.0;
        let mut call = Call::new(case, usize::MAX).await;
        let outcome = call.deliver().await;
        assert!(matches!(outcome, Outcome::DeadLettered(_)), "{}: {outcome:?}", call.case.name);
        assert_eq!(call.calls(), 1, "{}", call.case.name);
        assert!(!call.is_stored());
        let letter = call.world.letters().remove(0);
        assert_eq!(reason(&letter), "request_rejected");
        let detail = context(&letter)["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(&format!("(HTTP {status}): ")), "{}: {detail}", call.case.name);
        let sizes = match call.case.provider.as_str() {
            "anthropic" => "1200000 tokens were requested, and the limit is 1000000",
            _ if detail.contains("Limit 30000") => "342389 tokens were requested, and the limit is 30000",
            _ => "The request is too large: ",
        };
        assert!(detail.contains(sizes), "{}: {detail}", call.case.name);
        // Delivered again, the letter is sent again; the model is not called again.
        assert_eq!(call.deliver().await, outcome);
        assert_eq!((call.calls(), call.world.letters().len()), (1, 2), "{}", call.case.name);
    })
    .await;
}

#[tokio::test]
async fn l3_an_account_that_is_refused_is_one_call_per_delivery_and_no_jobs_fault() {
    let Some(cases) = documented(&ALL, &["permanent_account"], "") else { return };
    for_each(cases, |case| async move {
        let mut call = Call::new(case, 3).await;
        for delivery in 1..=3 {
            let outcome = call.deliver().await;
            assert_eq!(outcome, Outcome::HandedBack(HandBackCause::Account), "{}", call.case.name);
            assert_eq!(call.calls(), delivery, "{}", call.case.name);
        }
        assert!(call.world.letters().is_empty() && !call.is_stored(), "{}", call.case.name);
        // When the account is well again, so is the job.
        assert_eq!(call.deliver().await, Outcome::Succeeded, "{}", call.case.name);
    })
    .await;
}

#[tokio::test]
async fn l4_what_was_refused_or_cut_off_is_one_call_and_never_stored() {
    let whole = output().to_string();
    // Cut inside a string; and a value that is whole and valid, which is still not a finished answer.
    for said in [&whole[..whole.len() - 20], &whole] {
        let Some(cases) = documented(&ALL, &["refusal", "truncated"], said) else { return };
        for_each(cases, |case| async move {
            let mut call = Call::new(case, usize::MAX).await;
            let outcome = call.deliver().await;
            assert!(matches!(outcome, Outcome::DeadLettered(_)), "{}: {outcome:?}", call.case.name);
            assert_eq!(call.calls(), 1, "{}", call.case.name);
            assert!(!call.is_stored(), "{}", call.case.name);
            let expected = if call.case.expected == "refusal" { "refused" } else { "truncated" };
            let letter = call.world.letters().remove(0);
            assert_eq!(reason(&letter), expected, "{}", call.case.name);
            let detail = context(&letter)["detail"].as_str().unwrap().to_owned();
            // All of them wrote fewer tokens than the task allows, whatever they call what stopped them.
            let is_full = expected == "truncated";
            assert_eq!(detail.contains("fill the model's context"), is_full, "{}: {detail}", call.case.name);
            assert!(!detail.contains("raise"), "{}: {detail}", call.case.name);
        })
        .await;
    }
}

#[tokio::test]
async fn l5_a_failure_that_does_not_pass_is_called_as_often_as_allowed_and_reported() {
    let Some(cases) = documented(&ALL[..1], &["retry"], "") else { return };
    for_each(cases, |case| async move {
        let mut call = Call::new(case, usize::MAX).await;
        let outcome = call.deliver().await;
        assert!(
            matches!(outcome, Outcome::HandedBack(HandBackCause::Capacity | HandBackCause::CallFailed)),
            "{}: {outcome:?}",
            call.case.name
        );
        assert!((1..=5).contains(&call.calls()), "{}: {} calls", call.case.name, call.calls());
        assert!(call.world.letters().is_empty() && !call.is_stored(), "{}", call.case.name);
        // Over all deliveries, what may have been billed stops at its limit; waiting for capacity does not count.
        match call.deliver().await {
            Outcome::HandedBack(HandBackCause::Capacity) => {}
            Outcome::DeadLettered(reason) => {
                assert_eq!(reason.as_str(), "attempts_exhausted", "{}", call.case.name);
                assert_eq!(call.calls(), 6, "{}", call.case.name);
            }
            other => panic!("{}: {other:?}", call.case.name),
        }
    })
    .await;
}

#[tokio::test]
async fn l6_a_model_that_says_nothing_twice_is_not_asked_the_same_a_third_time() {
    for provider in ["anthropic", "bedrock", "openai"] {
        let case = Case {
            provider: provider.to_owned(),
            name: format!("{provider} silent"),
            expected: String::new(),
            answer: answered(provider, " "),
        };
        let mut call = Call::new(case, usize::MAX).await;
        let outcome = call.deliver().await;
        assert!(matches!(outcome, Outcome::DeadLettered(_)), "{provider}: {outcome:?}");
        assert_eq!(
            call.calls(),
            2,
            "{provider}: the second was told what was wrong, and a third would be the same"
        );
        let letter = call.world.letters().remove(0);
        assert_eq!(reason(&letter), "invalid_output", "{provider}");
        let detail = context(&letter)["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("asking again would repeat a request"), "{provider}: {detail}");
    }
}
