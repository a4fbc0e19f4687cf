//! Small types for the members of inputs and outputs, each with its rule and its schema in one place.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use validator::{Validate, ValidateLength, ValidationError, ValidationErrors};

use crate::violations::WHOLE;

/// A rule for `#[validate(custom(function = not_blank))]`: something that can be seen. The empty text passes, because
/// `length(min = 1)` refuses it where it must not be.
///
/// # Errors
/// The text has characters, and all of them are white space.
pub fn not_blank(text: &str) -> Result<(), ValidationError> {
    if text.is_empty() || text.chars().any(|c| !c.is_whitespace()) {
        return Ok(());
    }
    Err(ValidationError::new("blank").with_message(Cow::Borrowed("must not be blank")))
}

/// What a rule about a whole value reports.
fn refused(error: ValidationError) -> Result<(), ValidationErrors> {
    let mut errors = ValidationErrors::new();
    errors.add(WHOLE, error);
    Err(errors)
}

/// A text of 1 to `CHARS_MAX` characters that is not blank, as the element of a list, where attributes cannot reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Line<const CHARS_MAX: u64>(String);

impl<const CHARS_MAX: u64> Line<CHARS_MAX> {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const CHARS_MAX: u64> From<&str> for Line<CHARS_MAX> {
    /// Unchecked, as reading is: `validate` checks.
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl<const CHARS_MAX: u64> Validate for Line<CHARS_MAX> {
    fn validate(&self) -> Result<(), ValidationErrors> {
        if !self.0.validate_length(Some(1), Some(CHARS_MAX), None) {
            let mut error = ValidationError::new("length");
            error.add_param(Cow::Borrowed("min"), &1);
            error.add_param(Cow::Borrowed("max"), &CHARS_MAX);
            error.add_param(Cow::Borrowed("value"), &self.0);
            return refused(error);
        }
        not_blank(&self.0).or_else(refused)
    }
}

impl<const CHARS_MAX: u64> JsonSchema for Line<CHARS_MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Owned(format!("Line{CHARS_MAX}"))
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "minLength": 1, "maxLength": CHARS_MAX})
    }
}

/// A language as BCP 47 writes it, as far as texts need it: a language of two or three letters, then perhaps a script,
/// then perhaps a region. `pt`, `pt-BR`, `zh-Hant-TW`; `und` for none or unknown, `mul` for several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LanguageCode(String);

impl LanguageCode {
    const PATTERN: &str = "^[a-z]{2,3}(-[A-Z][a-z]{3})?(-([A-Z]{2}|[0-9]{3}))?$";

    /// The code.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is_valid(&self) -> bool {
        let mut subtags = self.0.split('-');
        let language = subtags.next().unwrap_or_default();
        if !matches!(language.len(), 2 | 3) || !language.bytes().all(|b| b.is_ascii_lowercase()) {
            return false;
        }
        let mut next = subtags.next();
        if let Some(script) = next.filter(|subtag| subtag.len() == 4) {
            let (first, rest) = script.split_at_checked(1).unwrap_or_default();
            if !first.bytes().all(|b| b.is_ascii_uppercase()) || !rest.bytes().all(|b| b.is_ascii_lowercase())
            {
                return false;
            }
            next = subtags.next();
        }
        let region = next.is_none_or(|region| match region.len() {
            2 => region.bytes().all(|b| b.is_ascii_uppercase()),
            3 => region.bytes().all(|b| b.is_ascii_digit()),
            _ => false,
        });
        region && subtags.next().is_none()
    }
}

impl From<&str> for LanguageCode {
    /// Unchecked, as reading is: `validate` checks.
    fn from(code: &str) -> Self {
        Self(code.to_owned())
    }
}

impl Validate for LanguageCode {
    fn validate(&self) -> Result<(), ValidationErrors> {
        if self.is_valid() {
            return Ok(());
        }
        refused(ValidationError::new("language").with_message(Cow::Borrowed(
            "must be a language code such as en, pt-BR or zh-Hant, or und for none",
        )))
    }
}

impl JsonSchema for LanguageCode {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("LanguageCode")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": Self::PATTERN, "examples": ["en", "pt-BR", "zh-Hant", "und"]})
    }
}

/// A week as ISO 8601 writes it, `2026-W47`. Week 53 exists only in years that start on a Thursday, and in leap years
/// that start on a Wednesday.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IsoWeek(String);

impl IsoWeek {
    const PATTERN: &str = "^[0-9]{4}-W(0[1-9]|[1-4][0-9]|5[0-3])$";

    /// The week.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Year and week, when the form is right; whether the year has that week is another question.
    fn parts(&self) -> Option<(u32, u32)> {
        let (year, week) = self.0.split_once("-W")?;
        let number = |digits: &str, length: usize| {
            (digits.len() == length && digits.bytes().all(|b| b.is_ascii_digit()))
                .then(|| digits.parse().ok())?
        };
        let (year, week) = (number(year, 4)?, number(week, 2)?);
        (1..=53).contains(&week).then_some((year, week))
    }
}

impl From<&str> for IsoWeek {
    /// Unchecked, as reading is: `validate` checks.
    fn from(week: &str) -> Self {
        Self(week.to_owned())
    }
}

/// How many weeks the year has: 53 when its last day, or the last day of the year before, falls right.
fn weeks_in(year: u32) -> u32 {
    // The day of the week of 31 December, 0 for Sunday; exact for all years of the Gregorian calendar from 1 on.
    let last_day = |year: u32| (year + year / 4 - year / 100 + year / 400) % 7;
    let ends_on_thursday = last_day(year) == 4;
    let starts_on_thursday = year.checked_sub(1).is_some_and(|before| last_day(before) == 3);
    if ends_on_thursday || starts_on_thursday { 53 } else { 52 }
}

impl Validate for IsoWeek {
    fn validate(&self) -> Result<(), ValidationErrors> {
        let message = match self.parts() {
            Some((year, week)) if week <= weeks_in(year) => return Ok(()),
            Some(_) => "names week 53 of a year that has only 52 ISO weeks",
            None => "must be an ISO 8601 week such as 2026-W47",
        };
        refused(ValidationError::new("iso_week").with_message(Cow::Borrowed(message)))
    }
}

impl JsonSchema for IsoWeek {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("IsoWeek")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": Self::PATTERN, "examples": ["2026-W47"]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::violations::of_rules;

    fn fault(value: &impl Validate) -> Option<String> {
        value.validate().err().map(|errors| of_rules(&errors).0.join(" "))
    }

    #[test]
    fn lines_have_something_to_read_and_an_end() {
        for (text, expected) in [
            ("a", None),
            ("日本", None),
            ("", Some("The value at $ has 0 and must have 1 to 3 characters.")),
            ("日本語だ", Some("The value at $ has 4 and must have 1 to 3 characters.")),
            (" \u{a0}\n", Some("The value at $ must not be blank.")),
        ] {
            assert_eq!(fault(&Line::<3>::from(text)).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn language_codes_are_the_simple_ones_of_bcp_47() {
        for code in ["en", "de", "und", "mul", "pt-BR", "zh-Hant", "zh-Hant-TW", "es-419", "sr-Latn"] {
            assert_eq!(fault(&LanguageCode::from(code)), None, "{code}");
        }
        for code in [
            "",
            "e",
            "EN",
            "English",
            "english",
            "en_US",
            "en-us",
            "en-",
            "-en",
            "en-USA",
            "en-Latn-",
            "zh-hant",
            "zh-Hant-TW-x",
            "de-DE-1996",
            "日本",
            "en ",
            "en-日",
        ] {
            assert!(fault(&LanguageCode::from(code)).is_some(), "{code}");
        }
    }

    #[test]
    fn iso_weeks_exist_in_their_year() {
        for week in [
            "2026-W47", "2026-W01", "2026-W53", "2020-W53", "2015-W53", "2009-W53", "2000-W52", "1976-W53",
            "2025-W52", "9999-W52",
        ] {
            assert_eq!(fault(&IsoWeek::from(week)), None, "{week}");
        }
        for week in ["2025-W53", "2021-W53", "2024-W53", "2027-W53", "1900-W53", "2100-W53"] {
            assert_eq!(
                fault(&IsoWeek::from(week)).unwrap(),
                "The value at $ names week 53 of a year that has only 52 ISO weeks.",
                "{week}"
            );
        }
        for week in [
            "",
            "2026-W00",
            "2026-W54",
            "2026-W99",
            "2026-47",
            "2026W47",
            "2026-w47",
            "26-W47",
            "02026-W47",
            "2026-W4",
            "2026-W047",
            "2026-W47-1",
            " 2026-W47",
            "2026-W47 ",
            "+026-W47",
            "2026-W+7",
            "２０２６-W47",
            "2026-W47\n",
        ] {
            assert_eq!(
                fault(&IsoWeek::from(week)).unwrap(),
                "The value at $ must be an ISO 8601 week such as 2026-W47.",
                "{week:?}"
            );
        }
    }

    #[test]
    fn long_years_are_71_in_every_400() {
        // The Gregorian calendar repeats after 400 years, 20,871 weeks: 400 × 52 and 71 more.
        assert_eq!((2001..=2400).filter(|year| weeks_in(*year) == 53).count(), 71);
    }
}
