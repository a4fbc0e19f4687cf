//! Fleets of real workers at a provider's rate limit, on virtual time: how much of the limit they use, and how many of
//! their calls it refuses.
//!
//! The provider is a token bucket that holds a minute's worth and refills evenly ("Rate limits", Claude API docs). It
//! says in its headers what was left when it let a call in, which is a call's whole duration old when it is read. The
//! queue never runs dry, and Lambda hands an environment its next batch as soon as it reported the last one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use nightshift_core::limits::Limits;
use nightshift_core::model::{
    Answer, FailureClass, Headroom, ModelFailure, ModelReply, ModelRequest, RetryAdvice, Usage, Window,
};
use nightshift_core::split_mix::SplitMix64;
use nightshift_ports::Model;
use nightshift_tests::memory::{Says, World, message};
use serde_json::json;
use tokio::time::Instant;

/// What is simulated.
#[derive(Debug, Clone, Copy)]
pub struct Fleet {
    /// Environments that work.
    pub workers: u32,
    /// Environments that could work: the maximum concurrency of the stack.
    pub concurrency_max: u32,
    /// The provider's limit.
    pub requests_per_minute: u64,
    /// The provider's limit; 0: none.
    pub tokens_per_minute: u64,
    /// Shortest duration of a call.
    pub call_ms_min: u64,
    /// Mean duration of a call; what is above the shortest is exponential.
    pub call_ms_mean: u64,
    /// Whether the provider sends its headers.
    pub headers: bool,
    /// Whether the stack was told the limits.
    pub told: bool,
    /// Length of the run.
    pub minutes: u64,
    /// Reproduces the run.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Used {
    /// Of what the bucket refilled after the first minutes, the share that was called; of the tighter limit.
    pub share: f64,
    /// Of all calls of the run, the share that was refused.
    pub refused: f64,
    /// Calls that were let in.
    pub calls: u64,
}

/// What a run needs to find its pace is not held against its use of the limit; its refusals are.
const WARM_UP_MINUTES: u64 = 5;
/// Tokens of one call: evenly between these.
const TOKENS: (u64, u64) = (600, 1_800);
/// The function's timeout by default.
const TIME_LEFT_MS: u64 = 300_000;

/// Runs one fleet; a seed and a fleet give the same numbers on every machine.
pub async fn run(fleet: Fleet) -> Used {
    let provider = Arc::new(Provider::new(fleet));
    // Its own model is never asked: the workers are given the provider.
    let world = World::new(|_, _| Says::Text(String::new()));
    let told = |limit: u64| if fleet.told { limit } else { 0 };
    let limits = Limits {
        concurrency_max: fleet.concurrency_max,
        requests_per_minute: told(fleet.requests_per_minute),
        tokens_per_minute: told(fleet.tokens_per_minute),
        spend_cap_micro_usd: u64::MAX / 4,
        ..Limits::default()
    };
    let environments = (0..fleet.workers).map(|number| {
        let worker = world.worker_with(limits.clone(), provider.clone());
        let (world, batch_size) = (Arc::clone(&world), limits.batch_size);
        async move {
            for invocation in 0_u64.. {
                let batch = (0..batch_size).map(|index| {
                    let id = format!("{number}-{invocation}-{index}");
                    let body =
                        json!({"task": "categorize_ticket", "input": {"text": format!("Ticket {id}")}});
                    message(&world, &id, body.to_string())
                });
                let batch: Vec<_> = batch.collect();
                worker.process_batch(&format!("{number}-{invocation}"), TIME_LEFT_MS, batch).await;
                // What the world remembers for scenarios would fill the memory here.
                world.on_write(|_, _| None);
            }
        }
    });
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let started = Instant::now();
    let all = futures_util::future::join_all(environments);
    tokio::pin!(all);
    let mut after_warm_up = Counts::default();
    for (until, count) in [(WARM_UP_MINUTES, true), (fleet.minutes, false)] {
        let _ = tokio::time::timeout_at(started + minutes(until), &mut all).await;
        if count {
            after_warm_up = provider.counts();
        }
    }
    let end = provider.counts();
    let measured = (fleet.minutes - WARM_UP_MINUTES) as f64;
    let share = |used: u64, per_minute: u64| match per_minute {
        0 => 0.0,
        _ => used as f64 / (per_minute as f64 * measured),
    };
    Used {
        share: share(end.calls - after_warm_up.calls, fleet.requests_per_minute)
            .max(share(end.tokens - after_warm_up.tokens, fleet.tokens_per_minute)),
        refused: end.refused as f64 / (end.calls + end.refused).max(1) as f64,
        calls: end.calls,
    }
}

struct Provider {
    fleet: Fleet,
    output: String,
    state: Mutex<Bucket>,
}

struct Bucket {
    filled: Instant,
    requests: f64,
    tokens: f64,
    random: SplitMix64,
    counts: Counts,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    calls: u64,
    tokens: u64,
    refused: u64,
}

impl Provider {
    fn new(fleet: Fleet) -> Self {
        Self {
            fleet,
            output: nightshift_tests::ticket_answer().to_string(),
            state: Mutex::new(Bucket {
                filled: Instant::now(),
                requests: fleet.requests_per_minute as f64,
                tokens: fleet.tokens_per_minute as f64,
                random: SplitMix64::new(fleet.seed),
                counts: Counts::default(),
            }),
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Bucket) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn counts(&self) -> Counts {
        self.with(|bucket| bucket.counts)
    }
}

impl Bucket {
    fn fill(&mut self, fleet: &Fleet) {
        let now = Instant::now();
        let minutes = now.duration_since(self.filled).as_secs_f64() / 60.0;
        self.filled = now;
        let (requests, tokens) = (fleet.requests_per_minute as f64, fleet.tokens_per_minute as f64);
        self.requests = (self.requests + minutes * requests).min(requests);
        self.tokens = (self.tokens + minutes * tokens).min(tokens);
    }

    fn headroom(&self, fleet: &Fleet) -> Headroom {
        if !fleet.headers {
            return Headroom::default();
        }
        let window = |limit: u64, left: f64| match limit {
            0 => Window::default(),
            _ => Window { limit: Some(limit), remaining: Some(left.max(0.0) as u64), reset_ms: None },
        };
        Headroom {
            requests: window(fleet.requests_per_minute, self.requests),
            tokens: window(fleet.tokens_per_minute, self.tokens),
        }
    }
}

#[async_trait]
impl Model for Provider {
    async fn call(&self, _: &ModelRequest) -> Result<ModelReply, ModelFailure> {
        let fleet = &self.fleet;
        let admitted = self.with(|bucket| {
            bucket.fill(fleet);
            let drawn = TOKENS.0 + (bucket.random.fraction() * (TOKENS.1 - TOKENS.0) as f64) as u64;
            let tokens = if fleet.tokens_per_minute == 0 { 0.0 } else { drawn as f64 };
            let wait_s = |missing: f64, per_minute: u64| (missing * 60.0 / per_minute as f64).ceil().max(1.0);
            if bucket.requests < 1.0 || bucket.tokens < tokens {
                bucket.counts.refused += 1;
                let wait_s = if bucket.requests < 1.0 {
                    wait_s(1.0 - bucket.requests, fleet.requests_per_minute)
                } else {
                    wait_s(tokens - bucket.tokens, fleet.tokens_per_minute)
                };
                return Err((wait_s, bucket.headroom(fleet)));
            }
            bucket.requests -= 1.0;
            bucket.tokens -= tokens;
            bucket.counts.calls += 1;
            bucket.counts.tokens += drawn;
            let above =
                -(1.0 - bucket.random.fraction()).ln() * (fleet.call_ms_mean - fleet.call_ms_min) as f64;
            let took = Duration::from_millis(fleet.call_ms_min + above as u64);
            Ok((took, drawn, bucket.headroom(fleet)))
        });
        match admitted {
            Ok((took, tokens, headroom)) => {
                tokio::time::sleep(took).await;
                Ok(ModelReply {
                    answer: Answer::Text(self.output.clone()),
                    usage: Usage { input_tokens: tokens * 3 / 4, output_tokens: tokens - tokens * 3 / 4 }
                        .into(),
                    request_id: None,
                    headroom,
                })
            }
            Err((wait_s, headroom)) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Err(ModelFailure {
                    class: FailureClass::Capacity,
                    status: Some(429),
                    error_type: "rate_limit_error".to_owned(),
                    message: "This request would exceed your rate limit".to_owned(),
                    request_id: None,
                    advice: RetryAdvice { retry_after: Some(wait_s.to_string()), ..RetryAdvice::default() },
                    headroom,
                    oversize: None,
                })
            }
        }
    }
}
