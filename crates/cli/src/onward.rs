//! The commands that messages name, made complete: whoever named a stack on the command line is sent on to the same one.
//!
//! A message has each command in backticks, and `render` passes all of our own words through `complete`; a test holds the
//! sources to the backticks.

use std::sync::OnceLock;

use clap::ArgMatches;
use clap::parser::ValueSource;

/// How a command begins in a message.
const BEGINS: &str = "`nightshift ";
/// The arguments that say which stack is meant.
const OF_THE_PLACE: [&str; 2] = ["prefix", "region"];

/// What this process was given, for all that it says.
static GIVEN: OnceLock<Given> = OnceLock::new();

/// The flags that stood on the command line, with their values; what the environment says holds for the next command too.
#[derive(Debug, Default)]
struct Given(Vec<(&'static str, String)>);

impl Given {
    fn of(matches: &ArgMatches) -> Self {
        let typed = |name: &&str| matches.value_source(name) == Some(ValueSource::CommandLine);
        let value = |name| matches.get_one::<String>(name).map(|value| (name, quoted(value)));
        Self(OF_THE_PLACE.into_iter().filter(typed).filter_map(value).collect())
    }

    fn complete(&self, text: &str) -> String {
        let mut parts = text.split(BEGINS);
        let mut whole = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let command = part.split('`').next().unwrap_or_default();
            whole.push_str(BEGINS);
            for (name, value) in &self.0 {
                if !command.contains(&format!("--{name} ")) {
                    whole.push_str(&format!("--{name} {value} "));
                }
            }
            whole.push_str(part);
        }
        whole
    }
}

/// As a shell reads it as one word.
fn quoted(value: &str) -> String {
    let is_plain = value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if is_plain { value.to_owned() } else { format!("'{}'", value.replace('\'', r"'\''")) }
}

/// Remembers what was given on the command line, once.
pub fn remember(matches: &ArgMatches) {
    let _ = GIVEN.set(Given::of(matches));
}

/// The text, whose commands ask the stack that this one asks.
pub fn complete(text: &str) -> String {
    GIVEN.get().map_or_else(|| text.to_owned(), |given| given.complete(text))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::Arguments;

    #[test]
    fn a_command_that_a_message_names_asks_the_stack_that_was_named() {
        let given = |words: &str| {
            let words = words.split(' ').filter(|word| !word.is_empty());
            Given::of(
                &Arguments::command().try_get_matches_from(["nightshift"].into_iter().chain(words)).unwrap(),
            )
        };
        let message =
            "`nightshift redrive list` says, and `nightshift doctor`: no nightshift status, no `other`.";
        for (words, said) in [
            ("status", message),
            (
                "--prefix t-prod status",
                "`nightshift --prefix t-prod redrive list` says, and `nightshift --prefix t-prod doctor`: no nightshift status, no `other`.",
            ),
            (
                "redrive list --prefix t-prod --region eu-west-1",
                "`nightshift --prefix t-prod --region eu-west-1 redrive list` says, and `nightshift --prefix t-prod --region eu-west-1 doctor`: no nightshift status, no `other`.",
            ),
            (
                "--prefix it's status",
                r"`nightshift --prefix 'it'\''s' redrive list` says, and `nightshift --prefix 'it'\''s' doctor`: no nightshift status, no `other`.",
            ),
        ] {
            assert_eq!(given(words).complete(message), said, "{words}");
        }
        let both = given("--prefix a --region b status");
        assert_eq!(
            both.complete("`nightshift --prefix c resume`, never closed: `nightshift status"),
            "`nightshift --region b --prefix c resume`, never closed: `nightshift --prefix a --region b status"
        );
    }
}
