//! What a task is, the registry, and the tasks that Nightshift brings along. A user's own are in `crates/my-tasks`.
//!
//! A task is one struct pair, a few sentences of instructions, and the list of blocks that carry the input to the
//! model. From the output type alone follow the JSON Schema that the model is given, the type its answer is read
//! into, and the rules the answer is checked by.
//!
//! **Invariant:** a task is a pure function of its input. Nothing here knows a clock, randomness, the network or the
//! environment: the same input makes the same prompt, byte for byte, so that a repeated job is a repeated key.
//!
//! **Invariant:** no violation quotes the value it complains about. Violations go to logs and dead letters, values
//! are customers' text.

mod definition;
mod parts;
mod prompt;
mod reading;
mod registry;
mod schema;
mod violations;

pub mod categorize_ticket;
pub mod summarize_email;
pub mod weekly_report;

pub use definition::{Example, TaskDefinition};
pub use parts::{IsoWeek, LanguageCode, Line, not_blank};
pub use prompt::Block;
pub use registry::{Description, Registry};

/// The tasks that Nightshift brings along. `my_tasks::registry` adds a user's, and is what programs are built with: a
/// task that is not listed there does not exist, and its jobs are dead letters, `unknown_task`.
#[must_use]
pub fn registry() -> Registry {
    Registry::default()
        .with::<categorize_ticket::CategorizeTicket>()
        .with::<summarize_email::SummarizeEmail>()
        .with::<weekly_report::WeeklyReport>()
}

/// When this build was made, in milliseconds since 1970, as the build script said in `NIGHTSHIFT_BUILT_AT_MS`;
/// 0 when it said nothing, which makes every other build newer.
///
/// A record that an older build finished is worked on again when its job is sent again and the task has changed.
pub const BUILT_AT_MS: u64 = match option_env!("NIGHTSHIFT_BUILT_AT_MS") {
    None => 0,
    Some(text) => match u64::from_str_radix(text, 10) {
        Ok(ms) => ms,
        // In a constant it is a message from the compiler, and no program.
        Err(_) => panic!("NIGHTSHIFT_BUILT_AT_MS must be a whole number of milliseconds since 1970"),
    },
};
