//! What a model id says: the family behind regions, vendors, versions and dates, and how to make it think least.

/// The start of a cross-region inference profile on Bedrock, which names where requests may be served.
const REGION_PREFIXES: [&str; 11] =
    ["global.", "us-gov.", "us.", "eu.", "apac.", "ap.", "au.", "jp.", "ca.", "sa.", "uk."];

/// A model id of Bedrock, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BedrockId<'a> {
    /// Whether requests go through the profile that may serve them anywhere, which is the cheapest.
    pub is_global: bool,
    /// The vendor: `anthropic`, `amazon`, `meta`, ...
    pub vendor: &'a str,
    /// The model without region, vendor, date and version: `claude-haiku-4-5`, `nova-lite`.
    pub model: &'a str,
}

/// Takes a model id or the ARN of a model or system-defined inference profile apart. `None` for what does not say which
/// model it is, such as the ARN of an application inference profile or of provisioned throughput.
#[must_use]
pub fn bedrock(id: &str) -> Option<BedrockId<'_>> {
    let id = match id.strip_prefix("arn:") {
        Some(arn) => {
            let (kind, name) = arn
                .rsplit(':')
                .next()
                .filter(|r| r.contains('/'))
                .or_else(|| arn.split(':').find(|r| r.contains('/')))?
                .split_once('/')?;
            // A version such as `v1:0` holds a colon of its own, so the name is what follows the first slash of the ARN.
            let name = arn
                .find(&format!("{kind}/{name}"))
                .and_then(|at| arn.get(at + kind.len() + 1..))
                .unwrap_or(name);
            if !matches!(kind, "foundation-model" | "inference-profile") {
                return None;
            }
            name
        }
        None => id,
    };
    let prefix = REGION_PREFIXES.iter().find(|prefix| id.starts_with(**prefix));
    let id = prefix.map_or(Some(id), |prefix| id.strip_prefix(*prefix))?;
    let (vendor, model) = id.split_once('.')?;
    Some(BedrockId { is_global: prefix == Some(&"global."), vendor, model: without_version(model) })
}

/// A model without `:0`, `-v1` and `-20250929` at its end.
#[must_use]
pub fn without_version(model: &str) -> &str {
    let model = model.split(':').next().unwrap_or(model);
    let model = match model.rsplit_once("-v") {
        Some((name, version)) if !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => model,
    };
    without_date(model)
}

/// A model without `-20250929`, `-2025-04-14` or `-latest` at its end.
#[must_use]
pub fn without_date(model: &str) -> &str {
    let model = model.strip_suffix("-latest").unwrap_or(model);
    let is_date = |text: &str, lengths: &[usize]| {
        let parts: Vec<&str> = text.split('-').collect();
        parts.len() == lengths.len()
            && parts
                .iter()
                .zip(lengths)
                .all(|(part, length)| part.len() == *length && part.bytes().all(|b| b.is_ascii_digit()))
    };
    for (length, form) in [(8, &[8][..]), (10, &[4, 2, 2][..])] {
        if let Some(at) = model.len().checked_sub(length + 1)
            && let (Some(name), Some(rest)) = (model.get(..at), model.get(at..))
            && rest.strip_prefix('-').is_some_and(|date| is_date(date, form))
        {
            return name;
        }
    }
    model
}

/// How to keep a model from thinking before it answers. Thinking counts against the output tokens, whose limit is made
/// for the answer alone: a job whose limit goes into thinking is truncated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeastThinking {
    /// It does not think unless it is asked to, or we do not know it: say nothing.
    Unsaid,
    /// `thinking` of this type.
    Type(&'static str),
    /// It always thinks; the lowest effort makes it think least.
    LowEffort,
}

/// Says it for a Claude model, by its id without date and vendor.
///
/// Source: "Claude Sonnet 5.5 migration guide", "What's new in Claude Opus 5.5", "Claude Haiku 5.5" (Claude API docs),
/// October 2026: Sonnet 5.5 refuses `disabled` and takes `between_tools`; Opus 5.5 and Fable think always; Opus 5,
/// Sonnet 5 and Haiku 5.5 take `disabled` at their default effort; older models think only when asked to.
#[must_use]
pub fn least_thinking(model: &str) -> LeastThinking {
    match model {
        "claude-sonnet-5-5" => LeastThinking::Type("between_tools"),
        "claude-sonnet-5" | "claude-opus-5" | "claude-haiku-5-5" => LeastThinking::Type("disabled"),
        "claude-opus-5-5" | "claude-fable-5" | "claude-fable-5-1" | "claude-mythos-5"
        | "claude-mythos-5-1" => LeastThinking::LowEffort,
        _ => LeastThinking::Unsaid,
    }
}

/// The `reasoning_effort` with which an OpenAI model reasons least, by its id without date; `None` for models that do
/// not reason or that we do not know, which refuse the setting.
///
/// Source: "Reasoning models" (OpenAI API docs); "Day 0 Support: GPT-6 Sol and GPT-6 Luna" (LiteLLM docs).
#[must_use]
pub fn least_reasoning(model: &str) -> Option<&'static str> {
    match model {
        "gpt-5" | "gpt-5-mini" | "gpt-5-nano" => Some("minimal"),
        "gpt-5.1" | "gpt-5.2" | "gpt-5.4" | "gpt-5.4-mini" | "gpt-5.4-nano" | "gpt-5.5" | "gpt-5.6-sol"
        | "gpt-5.6-terra" | "gpt-5.6-luna" | "gpt-6-sol" | "gpt-6-luna" => Some("none"),
        "o1" | "o3" | "o3-mini" | "o4-mini" => Some("low"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bedrock_ids_are_taken_apart() {
        for (id, expected) in [
            ("anthropic.claude-haiku-4-5-20251001-v1:0", Some((false, "anthropic", "claude-haiku-4-5"))),
            ("us.anthropic.claude-sonnet-4-20250514-v1:0", Some((false, "anthropic", "claude-sonnet-4"))),
            ("global.anthropic.claude-sonnet-5-5", Some((true, "anthropic", "claude-sonnet-5-5"))),
            ("eu.amazon.nova-lite-v1:0", Some((false, "amazon", "nova-lite"))),
            ("us-gov.anthropic.claude-opus-4-6-v1", Some((false, "anthropic", "claude-opus-4-6"))),
            ("us.meta.llama3-3-70b-instruct-v1:0", Some((false, "meta", "llama3-3-70b-instruct"))),
            (
                "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-haiku-4-5-20251001-v1:0",
                Some((false, "anthropic", "claude-haiku-4-5")),
            ),
            (
                "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/global.anthropic.claude-opus-5",
                Some((true, "anthropic", "claude-opus-5")),
            ),
            ("arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/abc123", None),
            ("arn:aws:bedrock:eu-west-1:123456789012:provisioned-model/abc", None),
            ("claude", None),
        ] {
            let parts = bedrock(id).map(|id| (id.is_global, id.vendor, id.model));
            assert_eq!(parts, expected, "{id}");
        }
    }

    #[test]
    fn dates_are_left_out() {
        for (id, name) in [
            ("claude-haiku-4-5-20251001", "claude-haiku-4-5"),
            ("gpt-4.1-mini-2025-04-14", "gpt-4.1-mini"),
            ("claude-3-5-haiku-latest", "claude-3-5-haiku"),
            ("gpt-4o", "gpt-4o"),
            ("claude-opus-5-5", "claude-opus-5-5"),
            ("20251001", "20251001"),
            ("x-20251001-20251001", "x-20251001"),
            ("é", "é"),
        ] {
            assert_eq!(without_date(id), name);
        }
    }
}
