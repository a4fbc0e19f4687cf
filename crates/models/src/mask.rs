//! Takes keys out of what a provider says, and bounds it.

use nightshift_core::text::cut;

/// What is kept of a provider's message, in characters: enough to recognise the cause, too little for a body.
pub const MESSAGE_CHARS_MAX: usize = 300;
/// What is kept of an error's name, in characters.
pub const NAME_CHARS_MAX: usize = 80;

/// How keys begin. A word with one of these beginnings is a key, however much of it a provider shows.
const KEY_PREFIXES: [&str; 10] =
    ["sk-", "sk_", "AKIA", "ASIA", "ABSK", "bedrock-api-key-", "AIza", "gsk_", "xai-", "eyJ"];
/// Words after which the next word is a key, in lower case.
const KEY_INTRODUCTIONS: [&str; 9] = [
    "bearer",
    "key provided:",
    "api key:",
    "api_key:",
    "api-key:",
    "x-api-key:",
    "token:",
    "password:",
    "secret:",
];
/// Short keys would be found in ordinary words; real ones are longer.
const KEY_CHARS_MIN: usize = 8;
/// A word of letters and digits this long is taken for a key: request ids and UUIDs are shorter.
const LONG_WORD_CHARS: usize = 40;

/// `text` without keys, on one line, at most `chars_max` characters. `key` is the key that was sent, if any.
pub fn masked(text: &str, key: Option<&str>, chars_max: usize) -> String {
    let text = match key {
        Some(key) if key.len() >= KEY_CHARS_MIN => text.replace(key, "***"),
        _ => text.to_owned(),
    };
    // Before it is cut: half a key is still a secret.
    let mut out = String::with_capacity(text.len().min(chars_max * 4));
    let mut said = String::new();
    for word in text.split([' ', '\n', '\r', '\t']) {
        if word.is_empty() {
            continue;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        let introduced = KEY_INTRODUCTIONS.iter().any(|words| said.ends_with(words));
        let masked_word = if introduced { "***".to_owned() } else { masked_word(word) };
        out.extend(masked_word.chars().map(|c| if c.is_control() { ' ' } else { c }));
        said.push(' ');
        said.push_str(&word.to_ascii_lowercase());
        // Only the last words matter; this keeps the work linear.
        if said.len() > 64 {
            let mut from = said.len() - 32;
            while !said.is_char_boundary(from) {
                from += 1;
            }
            said.drain(..from);
        }
    }
    cut(&out, chars_max)
}

/// An error's name: a short identifier, nothing else. `key` is the key that was sent, if any.
pub fn name(text: &str, key: Option<&str>) -> String {
    let identifier = |text: &str| -> String {
        text.chars()
            .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '#'))
            .collect()
    };
    // Looked for in what is kept: characters that are dropped could stand in the middle of it.
    let name = match key.map(identifier) {
        Some(key) if key.len() >= KEY_CHARS_MIN => identifier(text).replace(&key, "***"),
        _ => identifier(text),
    };
    let name: String = name.chars().take(NAME_CHARS_MAX).collect();
    if name.is_empty() { "unnamed".to_owned() } else { masked_word(&name) }
}

/// The word, with each run of key characters in it that looks like a key replaced.
fn masked_word(word: &str) -> String {
    let is_key_char =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '*' | '+' | '/' | '=' | '.' | '…');
    let mut out = String::with_capacity(word.len());
    let mut run = String::new();
    for c in word.chars() {
        if is_key_char(c) {
            run.push(c);
        } else {
            push_run(&mut out, &run);
            run.clear();
            out.push(c);
        }
    }
    push_run(&mut out, &run);
    out
}

fn push_run(out: &mut String, run: &str) {
    // A path or an assignment carries a key in one of its parts.
    let looks_like_key = |part: &str| {
        KEY_PREFIXES.iter().any(|prefix| part.starts_with(prefix) && part.len() > prefix.len())
            || (part.len() >= LONG_WORD_CHARS
                && part.bytes().any(|b| b.is_ascii_digit())
                && part.bytes().any(|b| b.is_ascii_alphabetic())
                && !part.contains('.'))
    };
    if run.split(['=', '/', '.']).any(looks_like_key) || looks_like_key(run) {
        out.push_str("***");
    } else {
        out.push_str(run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_their_fragments_do_not_survive() {
        for (said, kept) in [
            (
                "Incorrect API key provided: sk-xxxx. You can find it",
                "Incorrect API key provided: *** You can find it",
            ),
            ("Incorrect API key provided: abc1****9xyz. See", "Incorrect API key provided: *** See"),
            ("bad key sk-ant-api03-Zz_9-x in request", "bad key *** in request"),
            ("key \"sk-proj-1234567890\"", "key \"***\""),
            ("Authorization: Bearer abc.def.ghi was refused", "Authorization: Bearer *** was refused"),
            ("user AKIAIOSFODNN7EXAMPLE is not", "user *** is not"),
            ("token=ASIAIOSFODNN7EXAMPLE", "***"),
            ("signature wJalrXUtnFEMI7K7MDENGbPxRfiCYEXAMPLEKEY12 x", "signature *** x"),
            ("model: claude-sonnet-5", "model: claude-sonnet-5"),
            ("request req_011CSHoEeqs5C35K2UUqR7Fy failed", "request req_011CSHoEeqs5C35K2UUqR7Fy failed"),
            ("ask-me about disk-space", "ask-me about disk-space"),
        ] {
            assert_eq!(masked(said, None, MESSAGE_CHARS_MAX), kept, "{said}");
        }
    }

    #[test]
    fn the_key_that_was_sent_is_masked_in_whatever_form_it_has() {
        assert_eq!(masked("no such key my-odd-key!", Some("my-odd-key!"), 300), "no such key ***");
    }

    #[test]
    fn messages_are_one_line_and_bounded_in_characters() {
        assert_eq!(masked("a\nb\r\n\tc\u{0}d", None, 300), "a b c d");
        let long = masked(&"é ".repeat(400), None, MESSAGE_CHARS_MAX);
        assert_eq!(long.chars().count(), MESSAGE_CHARS_MAX);
        // A key at the cut is masked, not halved.
        let cut = masked(&format!("{} sk-ant-1234567890", "x".repeat(295)), None, MESSAGE_CHARS_MAX);
        assert!(!cut.contains("sk-"), "{cut}");
    }

    #[test]
    fn names_are_identifiers() {
        assert_eq!(name("ThrottlingException", None), "ThrottlingException");
        assert_eq!(name("<b>x</b>", None), "bxb");
        assert_eq!(name(" \n", None), "unnamed");
        assert_eq!(name(&"a".repeat(500), None).len(), NAME_CHARS_MAX);
    }

    #[test]
    fn the_key_that_was_sent_is_no_part_of_a_name() {
        let key = Some("sk-ant-Kq8vZ2xT5n");
        assert_eq!(name("xsk-ant-Kq8vZ2xT5n", key), "x***");
        assert_eq!(name("x sk-ant- Kq8vZ2xT5n", key), "x***", "split by what a name drops");
        assert_eq!(name("no_such_open!sesame42", Some("open!sesame42")), "no_such_***");
    }
}
