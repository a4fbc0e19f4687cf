//! The Runtime API of one environment (Developer Guide, "Using the Lambda runtime API for custom runtimes").

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use serde_json::json;
use tokio::sync::{Notify, oneshot};

use super::lock;
use crate::clock::now_ms;
use crate::http::{Answer, HttpRequest, HttpResponse};

/// The largest answer (Developer Guide, "Lambda quotas": 6 MB).
const RESPONSE_BYTES_MAX: usize = 6 * 1024 * 1024;
const PREFIX: &str = "/2018-06-01/runtime/";

/// What the runtime said about an invocation.
#[derive(Debug)]
pub(super) enum Reply {
    Response(Bytes),
    Error(String),
}

/// An invocation on its way to the runtime.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) request_id: String,
    pub(super) payload: Bytes,
    pub(super) timeout: Duration,
    /// Told when the runtime has taken it.
    pub(super) taken: oneshot::Sender<()>,
    /// Told what the runtime makes of it.
    pub(super) reply: oneshot::Sender<Reply>,
}

/// What the process is told and asked; one per environment.
#[derive(Debug, Default)]
pub(super) struct RuntimeApi {
    arn: String,
    state: Mutex<State>,
    offered: Notify,
    /// Told each time when the runtime asks for work and there is none.
    pub(super) waiting: Notify,
}

#[derive(Debug, Default)]
struct State {
    offer: Option<Offer>,
    current: Option<(String, oneshot::Sender<Reply>)>,
    init_error: Option<String>,
}

impl RuntimeApi {
    pub(super) fn new(arn: String) -> Arc<Self> {
        Arc::new(RuntimeApi { arn, ..RuntimeApi::default() })
    }

    /// Gives the runtime its next invocation; an environment has at most one.
    pub(super) fn offer(&self, offer: Offer) {
        lock(&self.state).offer = Some(offer);
        self.offered.notify_one();
    }

    /// Does something while it is certain that there is no invocation and none can come.
    pub(super) fn if_idle(&self, act: impl FnOnce()) {
        let state = lock(&self.state);
        if state.offer.is_none() && state.current.is_none() {
            act();
        }
    }

    /// What the runtime reported as the error of its start.
    pub(super) fn init_error(&self) -> Option<String> {
        lock(&self.state).init_error.clone()
    }

    pub(super) async fn handle(&self, request: HttpRequest) -> Answer {
        let path = request.path.strip_prefix(PREFIX).unwrap_or_default();
        let response = match (&request.method, path) {
            (&Method::GET, "invocation/next") => self.next().await,
            (&Method::POST, "init/error") => {
                let error = String::from_utf8_lossy(&request.body).into_owned();
                lock(&self.state).init_error = Some(error);
                accepted()
            }
            (&Method::POST, path) => {
                match path.strip_prefix("invocation/").and_then(|rest| rest.split_once('/')) {
                    Some((id, "response")) if request.body.len() > RESPONSE_BYTES_MAX => {
                        self.reply(id, Reply::Error("the response is larger than 6 MB".to_owned()));
                        error(413, "RequestEntityTooLarge")
                    }
                    Some((id, "response")) => self.reply(id, Reply::Response(request.body.clone())),
                    Some((id, "error")) => {
                        let error = String::from_utf8_lossy(&request.body).into_owned();
                        self.reply(id, Reply::Error(error))
                    }
                    _ => error(404, "NotFound"),
                }
            }
            _ => error(404, "NotFound"),
        };
        Answer::Respond(response)
    }

    async fn next(&self) -> HttpResponse {
        loop {
            let offered = self.offered.notified();
            let offer = {
                let mut state = lock(&self.state);
                let offer = state.offer.take();
                if let Some(offer) = offer {
                    let deadline_ms = now_ms() + i64::try_from(offer.timeout.as_millis()).unwrap_or(i64::MAX);
                    state.current = Some((offer.request_id.clone(), offer.reply));
                    // The receiver is gone only when the invocation was given up; the runtime's answer is then refused.
                    let _ = offer.taken.send(());
                    Some((offer.request_id, offer.payload, deadline_ms))
                } else {
                    None
                }
            };
            if let Some((request_id, payload, deadline_ms)) = offer {
                let trace = request_id.replace('-', "");
                return HttpResponse::new(200, "application/json", payload)
                    .with_header("lambda-runtime-aws-request-id", request_id)
                    .with_header("lambda-runtime-deadline-ms", deadline_ms.to_string())
                    .with_header("lambda-runtime-invoked-function-arn", self.arn.clone())
                    .with_header("lambda-runtime-trace-id", trace_id(deadline_ms, &trace));
            }
            self.waiting.notify_one();
            offered.await;
        }
    }

    fn reply(&self, id: &str, reply: Reply) -> HttpResponse {
        let mut state = lock(&self.state);
        match state.current.take() {
            Some((current, sender)) if current == id => {
                // The receiver is gone when the invocation was given up in the meantime.
                let _ = sender.send(reply);
                accepted()
            }
            other => {
                state.current = other;
                error(400, "InvalidRequestID")
            }
        }
    }
}

/// Unsampled, in the form that X-Ray gives to trace headers.
fn trace_id(at_ms: i64, digits: &str) -> String {
    let root: String = digits.chars().take(24).collect();
    let parent: String = digits.chars().skip(16).take(16).collect();
    format!("Root=1-{:08x}-{root};Parent={parent};Sampled=0", at_ms / 1000)
}

fn accepted() -> HttpResponse {
    HttpResponse::json(202, &json!({ "status": "OK" }))
}

fn error(status: u16, kind: &str) -> HttpResponse {
    HttpResponse::json(status, &json!({ "errorType": kind, "errorMessage": kind }))
}
