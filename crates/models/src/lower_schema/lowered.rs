//! The schemas that a client has lowered, each once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use nightshift_core::model::ModelRequest;
use serde_json::Value;

use super::{Target, lower};

/// The schemas of the tasks as one target takes them, each lowered when it is first needed.
pub(crate) struct LoweredSchemas {
    target: Target,
    by_name: Mutex<HashMap<String, Option<Arc<Value>>>>,
}

impl LoweredSchemas {
    pub(crate) fn new(target: Target) -> Self {
        Self { target, by_name: Mutex::default() }
    }

    /// `None`, said once per task, where the schema has a form that the target does not take. The validator enforces it
    /// either way, and the prompt describes it.
    pub(crate) fn of(&self, request: &ModelRequest) -> Option<Arc<Value>> {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = by_name.get(&request.schema_name) {
            return known.clone();
        }
        let lowered = lower(&request.schema, self.target)
            .inspect_err(|error| {
                tracing::warn!(
                    task = %request.schema_name,
                    %error,
                    "the output schema cannot be sent as structured output; answers are only validated"
                );
            })
            .ok()
            .map(Arc::new);
        by_name.insert(request.schema_name.clone(), lowered.clone());
        lowered
    }
}
