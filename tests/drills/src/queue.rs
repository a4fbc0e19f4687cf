//! An SQS queue on virtual time, and what AWS publishes of it.

use std::collections::{BTreeMap, BTreeSet};

use nightshift_core::message::Attribute;
use nightshift_core::redrive::Depth;

const MINUTE_MS: u64 = 60_000;
/// A queue that nobody has called for this long has no metrics; they begin again up to 15 minutes after the first call.
/// ("Available CloudWatch metrics for Amazon SQS")
const ACTIVE_MS: u64 = 6 * 60 * MINUTE_MS;
const BEGINS_LATE_MS: u64 = 15 * MINUTE_MS;
/// The age leaves out what was received this often. ("Available CloudWatch metrics for Amazon SQS")
const RECEIVES_LEFT_OUT: u32 = 3;

/// A message in a queue.
#[derive(Debug, Clone)]
pub struct Held {
    pub id: u64,
    pub body: String,
    pub attributes: Vec<(String, Attribute)>,
    pub sent_ms: u64,
    pub receives: u32,
    visible_ms: u64,
}

#[derive(Debug, Default)]
pub struct Queue {
    held: BTreeMap<u64, Held>,
    order: BTreeSet<(u64, u64)>,
    sent: u64,
    sent_before: u64,
    /// The last call, and when its metrics begin.
    touched_ms: Option<u64>,
    begins_ms: u64,
}

impl Queue {
    /// Somebody calls it.
    pub fn touch(&mut self, now_ms: u64) {
        if self.touched_ms.is_none_or(|last| last + ACTIVE_MS < now_ms) {
            self.begins_ms = now_ms + BEGINS_LATE_MS;
        }
        self.touched_ms = Some(now_ms);
    }

    pub fn send(&mut self, now_ms: u64, body: String, attributes: Vec<(String, Attribute)>) {
        self.touch(now_ms);
        let id = self.sent;
        self.sent += 1;
        self.order.insert((now_ms, id));
        self.held.insert(id, Held { id, body, attributes, sent_ms: now_ms, receives: 0, visible_ms: now_ms });
    }

    /// Up to `most` messages, hidden for this long.
    pub fn receive(&mut self, now_ms: u64, most: usize, hidden_ms: u64) -> Vec<Held> {
        self.touch(now_ms);
        let ready: Vec<(u64, u64)> = self.order.range(..=(now_ms, u64::MAX)).take(most).copied().collect();
        let mut received = Vec::new();
        for entry in ready {
            self.order.remove(&entry);
            let Some(message) = self.held.get_mut(&entry.1) else { continue };
            message.receives += 1;
            message.visible_ms = now_ms + hidden_ms;
            self.order.insert((message.visible_ms, message.id));
            received.push(message.clone());
        }
        received
    }

    /// `ChangeMessageVisibility` by the handle of the last delivery.
    pub fn hide(&mut self, now_ms: u64, handle: &str, for_ms: u64) {
        let Some(message) = find(&mut self.held, handle) else { return };
        self.order.remove(&(message.visible_ms, message.id));
        message.visible_ms = now_ms + for_ms;
        self.order.insert((message.visible_ms, message.id));
    }

    /// `DeleteMessage` by the handle of the last delivery.
    pub fn delete(&mut self, handle: &str) -> Option<Held> {
        let id = find(&mut self.held, handle)?.id;
        let message = self.held.remove(&id)?;
        self.order.remove(&(message.visible_ms, message.id));
        Some(message)
    }

    /// What SQS publishes at the end of a minute: names, values.
    pub fn metrics(&mut self, now_ms: u64) -> Vec<(&'static str, f64)> {
        let sent = std::mem::replace(&mut self.sent_before, self.sent);
        let silent = self.touched_ms.is_none_or(|last| last + ACTIVE_MS < now_ms) || now_ms < self.begins_ms;
        if silent {
            return Vec::new();
        }
        let visible = self.order.range(..=(now_ms, u64::MAX)).count();
        let mut metrics = vec![
            ("ApproximateNumberOfMessagesVisible", visible as f64),
            ("NumberOfMessagesSent", (self.sent - sent) as f64),
        ];
        let hidden = self.held.len() - visible;
        if hidden > 0 {
            metrics.push(("ApproximateNumberOfMessagesNotVisible", hidden as f64));
        }
        let counted = self.held.values().filter(|message| message.receives < RECEIVES_LEFT_OUT);
        if let Some(oldest_ms) = counted.map(|message| message.sent_ms).min() {
            let age_s = now_ms.saturating_sub(oldest_ms) as f64 / 1e3;
            metrics.push(("ApproximateAgeOfOldestMessage", age_s));
        }
        metrics
    }

    /// What `GetQueueAttributes` says, which every minute's run of the sentinel asks for.
    pub fn depth(&mut self, now_ms: u64) -> Depth {
        self.touch(now_ms);
        let visible = self.order.range(..=(now_ms, u64::MAX)).count();
        Depth { visible: visible as u64, hidden: (self.held.len() - visible) as u64 }
    }

    /// Those that it holds, the oldest first.
    pub fn held(&self) -> impl Iterator<Item = &Held> {
        self.held.values()
    }

    /// Whether something can be received.
    #[must_use]
    pub fn is_ready(&self, now_ms: u64) -> bool {
        self.order.first().is_some_and(|(visible_ms, _)| *visible_ms <= now_ms)
    }
}

impl Held {
    /// The handle of the last delivery.
    #[must_use]
    pub fn handle(&self) -> String {
        format!("{}/{}", self.id, self.receives)
    }
}

fn find<'a>(held: &'a mut BTreeMap<u64, Held>, handle: &str) -> Option<&'a mut Held> {
    let (id, receives) = handle.split_once('/')?;
    let message = held.get_mut(&id.parse().ok()?)?;
    (message.receives.to_string() == receives).then_some(message)
}
