//! What models cost, as data with its source and date: `prices.json` beside this file.
//!
//! **Invariant:** a model that is not in the table has no price, rather than none at all: [`price_of`] answers `None`,
//! and whoever starts the worker must be told the price or stop. The spend cap is only as true as this table.

use std::collections::BTreeMap;

use nightshift_core::cost::{LongPrompt, Price, Rates};
use serde::Deserialize;

use crate::model_id;

const TABLE: &str = include_str!("prices.json");

/// The price of a model of a provider (`anthropic`, `bedrock`, `openai`, `rehearsal`). `None`: not in the table.
///
/// Dates and versions at the end of an id are left out, as are the region and ARN of a Bedrock id.
#[must_use]
pub fn price_of(provider: &str, model: &str) -> Option<Price> {
    // The table is read once per start, and only for one model; it is not worth keeping.
    let table: Table = serde_json::from_str(TABLE).ok()?;
    let model = model.trim();
    match provider {
        // No call is paid, whatever the rehearsal is made of.
        "rehearsal" => Some(Price::flat(0, 0)),
        "bedrock" => {
            let id = model_id::bedrock(model)?;
            if let Some(entry) = table.find("bedrock", &format!("{}.{}", id.vendor, id.model)) {
                return entry.price(100);
            }
            let entry = table.find(id.vendor, id.model)?;
            entry.price(if id.is_global { 100 } else { table.regional_percent(id.vendor, id.model) })
        }
        _ => {
            let exact = table.find(provider, model);
            exact.or_else(|| table.find(provider, model_id::without_date(model)))?.price(100)
        }
    }
}

/// Dollars as they are written ("0.035") in millionths of a dollar. `None` for what is not a plain decimal, has more
/// than six places, or is beyond a million dollars per million tokens.
#[must_use]
pub fn micro_usd(dollars: &str) -> Option<u64> {
    let dollars = dollars.trim();
    let (whole, fraction) = dollars.split_once('.').unwrap_or((dollars, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || whole.len() > 6 || fraction.len() > 6 {
        return None;
    }
    let fraction: u64 = format!("{fraction:0<6}").parse().ok()?;
    whole.parse::<u64>().ok().map(|whole| whole * 1_000_000 + fraction)
}

/// Dollars per million tokens read, and written, as they were typed.
pub type Typed = (String, String);

/// Reads a price as it is typed, `0.8/4`.
///
/// # Errors
/// What to write, where it is no such price.
pub fn typed(text: &str) -> Result<Typed, &'static str> {
    match text.split_once('/') {
        Some((input, output)) if micro_usd(input).is_some() && micro_usd(output).is_some() => {
            Ok((input.to_owned(), output.to_owned()))
        }
        _ => Err("write dollars per million tokens read and written, such as 0.8/4"),
    }
}

#[derive(Deserialize)]
struct Table {
    prices: Vec<Source>,
}

#[derive(Deserialize)]
struct Source {
    provider: String,
    /// On Bedrock: the vendor whose own prices these are.
    #[serde(default)]
    of: Option<String>,
    #[serde(default)]
    regional_percent: Option<u64>,
    /// The models for which a region costs the same.
    #[serde(default)]
    regional_same: Vec<String>,
    models: BTreeMap<String, Entry>,
    /// The titles of the pages that the prices were read from.
    #[cfg_attr(not(test), expect(dead_code, reason = "for readers of the table, and checked by a test"))]
    source: String,
    /// The month in which they were read.
    #[cfg_attr(not(test), expect(dead_code, reason = "for readers of the table, and checked by a test"))]
    read: String,
}

#[derive(Deserialize)]
struct Entry {
    input: String,
    output: String,
    #[serde(default)]
    long_prompt: Option<LongEntry>,
}

#[derive(Deserialize)]
struct LongEntry {
    over_tokens: u64,
    input: String,
    output: String,
}

impl Table {
    fn find(&self, provider: &str, model: &str) -> Option<&Entry> {
        self.prices
            .iter()
            .filter(|source| source.provider == provider)
            .find_map(|source| source.models.get(model))
    }

    fn regional_percent(&self, vendor: &str, model: &str) -> u64 {
        let of_vendor = self.prices.iter().find(|source| source.of.as_deref() == Some(vendor));
        of_vendor
            .filter(|source| !source.regional_same.iter().any(|same| same == model))
            .and_then(|source| source.regional_percent)
            .unwrap_or(100)
    }
}

impl Entry {
    fn price(&self, percent: u64) -> Option<Price> {
        let long_prompt = match &self.long_prompt {
            Some(long) => Some(LongPrompt {
                over_input_tokens: long.over_tokens,
                rates: rates(&long.input, &long.output, percent)?,
            }),
            None => None,
        };
        Some(Price { ordinary: rates(&self.input, &self.output, percent)?, long_prompt })
    }
}

fn rates(input: &str, output: &str, percent: u64) -> Option<Rates> {
    let of = |dollars: &str| micro_usd(dollars).map(|micro| (micro * percent).div_ceil(100));
    Some(Rates { input_micro_usd_per_mtok: of(input)?, output_micro_usd_per_mtok: of(output)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_of_the_table_is_a_price_with_a_source() {
        let table: Table = serde_json::from_str(TABLE).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for source in &table.prices {
            assert!(source.source.len() > 10 && source.read.len() == 7, "{}", source.source);
            for (model, entry) in &source.models {
                assert!(seen.insert((source.provider.clone(), model.clone())), "{model} is there twice");
                let price = entry.price(100).unwrap_or_else(|| panic!("{model} has no price"));
                assert!(price.ordinary.input_micro_usd_per_mtok > 0, "{model}");
                assert!(
                    price.ordinary.output_micro_usd_per_mtok >= price.ordinary.input_micro_usd_per_mtok,
                    "{model}"
                );
                if let Some(long) = price.long_prompt {
                    assert!(
                        long.rates.input_micro_usd_per_mtok > price.ordinary.input_micro_usd_per_mtok,
                        "{model}"
                    );
                }
            }
        }
        assert!(seen.len() > 30);
    }

    #[test]
    fn models_are_found_under_all_their_names() {
        for (provider, model, price) in [
            ("anthropic", "claude-haiku-4-5", Some((1_000_000, 5_000_000))),
            ("anthropic", "claude-haiku-4-5-20251001", Some((1_000_000, 5_000_000))),
            ("anthropic", "claude-sonnet-5", Some((2_000_000, 10_000_000))),
            ("anthropic", "claude-3-5-haiku-latest", Some((800_000, 4_000_000))),
            ("openai", "gpt-4.1-mini-2025-04-14", Some((400_000, 1_600_000))),
            ("openai", "gpt-6-luna", Some((100_000, 500_000))),
            ("bedrock", "global.anthropic.claude-haiku-4-5-20251001-v1:0", Some((1_000_000, 5_000_000))),
            ("bedrock", "us.anthropic.claude-haiku-4-5-20251001-v1:0", Some((1_100_000, 5_500_000))),
            ("bedrock", "anthropic.claude-sonnet-5-5", Some((2_200_000, 11_000_000))),
            ("bedrock", "us.anthropic.claude-sonnet-4-20250514-v1:0", Some((3_000_000, 15_000_000))),
            ("bedrock", "us.amazon.nova-micro-v1:0", Some((35_000, 140_000))),
            ("bedrock", "amazon.nova-2-lite-v1:0", Some((330_000, 2_750_000))),
            ("rehearsal", "anything", Some((0, 0))),
            ("anthropic", "claude-of-tomorrow", None),
            ("anthropic", "gpt-4.1", None),
            ("openai", "qwen3:8b", None),
            ("bedrock", "claude-haiku-4-5", None),
            ("bedrock", "arn:aws:bedrock:us-east-1:1:application-inference-profile/x", None),
            ("nobody", "claude-haiku-4-5", None),
        ] {
            let found = price_of(provider, model)
                .map(|p| (p.ordinary.input_micro_usd_per_mtok, p.ordinary.output_micro_usd_per_mtok));
            assert_eq!(found, price, "{provider} {model}");
        }
    }

    #[test]
    fn long_prompts_have_their_own_price() {
        let long = price_of("anthropic", "claude-haiku-5-5").unwrap().long_prompt.unwrap();
        assert_eq!((long.over_input_tokens, long.rates.input_micro_usd_per_mtok), (100_000, 500_000));
        assert_eq!(price_of("anthropic", "claude-haiku-4-5").unwrap().long_prompt, None);
    }

    #[test]
    fn dollars_are_read_without_rounding() {
        for (text, micro) in [
            ("3", Some(3_000_000)),
            ("0.035", Some(35_000)),
            ("0", Some(0)),
            ("22.50", Some(22_500_000)),
            (" 1.000001 ", Some(1_000_001)),
            ("1.", Some(1_000_000)),
            (".5", None),
            ("1.0000001", None),
            ("-1", None),
            ("1e3", None),
            ("1,5", None),
            ("", None),
            ("9999999", None),
        ] {
            assert_eq!(micro_usd(text), micro, "{text:?}");
        }
    }
}
