//! Whose rules a schema is lowered to, and what each of them takes.

use serde_json::Value;

/// llama.cpp refuses a grammar with 2,000 repetitions or more of one thing (`MAX_REPETITION_THRESHOLD`).
const REPEATS_MAX: u64 = 1_500;
/// String formats that the providers compile; the same in all their lists.
const FORMATS: [&str; 9] =
    ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"];
/// Those of which llama.cpp and vLLM mean the same.
const OWN_SERVER_FORMATS: [&str; 4] = ["date-time", "time", "date", "uuid"];

/// Whose rules to lower to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Anthropic's `output_config.format`.
    Anthropic,
    /// Bedrock's `outputConfig.textFormat`: Anthropic's rules, for models of others too.
    Bedrock,
    /// OpenAI's and Azure's `response_format` with `strict`.
    OpenAiStrict,
    /// The same to a model server of one's own.
    OwnServer,
    /// The same to whoever else speaks it, and to OpenAI's fine-tuned models, which take fewer keywords.
    OpenAiCompatible,
    /// The input schema of a tool that the model is made to use, for models without structured output.
    BedrockTool,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Anthropic,
        Self::Bedrock,
        Self::OpenAiStrict,
        Self::OwnServer,
        Self::OpenAiCompatible,
        Self::BedrockTool,
    ];

    /// Whether every member must be required.
    pub(super) fn requires_all(self) -> bool {
        matches!(self, Self::OpenAiStrict | Self::OwnServer | Self::OpenAiCompatible)
    }

    pub(super) fn takes_recursion(self) -> bool {
        self.requires_all()
    }

    pub(super) fn takes_any_top(self) -> bool {
        matches!(self, Self::Anthropic | Self::OwnServer)
    }

    pub(super) fn takes_format(self, format: &str) -> bool {
        match self {
            Self::Anthropic | Self::Bedrock => FORMATS.contains(&format) || format == "uri",
            Self::OpenAiStrict | Self::OpenAiCompatible => FORMATS.contains(&format),
            Self::OwnServer => OWN_SERVER_FORMATS.contains(&format),
            Self::BedrockTool => false,
        }
    }

    pub(super) fn takes_pattern(self, pattern: &str) -> bool {
        matches!(self, Self::Anthropic | Self::OpenAiStrict | Self::OwnServer) && is_plain_pattern(pattern)
    }

    /// Whether this bound of a value of this type is sent; `beside_pattern`: a pattern or a format is sent with it.
    pub(super) fn takes_bound(self, keyword: &str, bound: &Value, kind: &str, beside_pattern: bool) -> bool {
        match (self, keyword) {
            (Self::OpenAiStrict, "minProperties" | "maxProperties" | "minLength" | "maxLength") => false,
            (Self::OpenAiStrict, _) => bound.is_number(),
            (Self::OwnServer, "minLength" | "maxLength") if beside_pattern => false,
            (Self::OwnServer, "minLength" | "maxLength" | "minItems" | "maxItems") => {
                bound.as_u64().is_some_and(|count| count <= REPEATS_MAX)
            }
            (Self::OwnServer, "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum") => {
                kind == "integer" && bound.is_i64()
            }
            (Self::Anthropic | Self::Bedrock, "minItems") => bound.as_u64().is_some_and(|count| count <= 1),
            _ => false,
        }
    }
}

/// Whether all engines read the pattern alike, as one that the whole text must match: anchored at both ends, plain
/// characters, classes without negation, groups and counts. No shorthand, no dot, nothing that looks around.
fn is_plain_pattern(pattern: &str) -> bool {
    let Some(inside) = pattern.strip_prefix('^').and_then(|rest| rest.strip_suffix('$')) else {
        return false;
    };
    let plain = |c: char| {
        c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '_' | ',' | ':' | '/' | '@' | '#' | '%')
    };
    let (mut depth, mut repeats) = (0_u32, 1_u64);
    // Whether a branch has something in it, and whether the last of it may be repeated.
    let (mut has_some, mut is_atom) = (false, false);
    let mut chars = inside.chars().peekable();
    while let Some(c) = chars.next() {
        (has_some, is_atom) = match c {
            '(' if chars.peek() != Some(&'?') => {
                depth += 1;
                (false, false)
            }
            ')' if depth > 0 && has_some => {
                depth -= 1;
                (true, true)
            }
            '|' if depth > 0 && has_some => (false, false),
            '[' => {
                let class: String = chars.by_ref().take_while(|c| *c != ']').collect();
                if class.is_empty() || !class.chars().all(|c| plain(c) || c == '.') {
                    return false;
                }
                (true, true)
            }
            '\\' if chars
                .next_if(|c| matches!(c, '.' | '-' | '/' | '+' | '*' | '?' | '(' | ')'))
                .is_some() =>
            {
                (true, true)
            }
            '?' | '*' | '+' if is_atom => (true, false),
            '{' if is_atom => {
                let count: String = chars.by_ref().take_while(|c| *c != '}').collect();
                let numbers = count.split(',').map(|n| if n.is_empty() { Ok(1) } else { n.parse::<u64>() });
                let Ok(numbers) = numbers.collect::<Result<Vec<_>, _>>() else { return false };
                repeats = repeats.saturating_mul(numbers.into_iter().max().unwrap_or(1).max(1));
                (true, false)
            }
            c if plain(c) => (true, true),
            _ => return false,
        };
    }
    depth == 0 && repeats <= REPEATS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_patterns_are_told_from_others() {
        for pattern in [
            "^a$",
            "^[a-z]{2,3}(-[A-Z][a-z]{3})?(-([A-Z]{2}|[0-9]{3}))?$",
            "^[0-9]{4}-W(0[1-9]|[1-4][0-9]|5[0-3])$",
            "^(a?|b+)\\.x$",
        ] {
            assert!(is_plain_pattern(pattern), "{pattern}");
        }
        for pattern in [
            "",
            "^",
            "a",
            "^a",
            "a$",
            "^a|b$",
            "^\\d$",
            "^.$",
            "^[^a]$",
            "^(?:a)$",
            "^(?!a)b$",
            "^a{2}{3}$",
            "^a**$",
            "^(a$",
            "^a)$",
            "^()$",
            "^[]$",
            "^\"$",
            "^é$",
            "^a{2000}$",
            "^((a{40}){40}){2}$",
            "^a\\b$",
            "^a+?$",
            "^a{x}$",
        ] {
            assert!(!is_plain_pattern(pattern), "{pattern}");
        }
    }
}
