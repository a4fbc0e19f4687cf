//! Text that is safe to keep and to show.

/// A JSON text with everything outside ASCII escaped, so that no console or shell can damage it.
#[must_use]
pub fn ascii_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() && c != '\u{7f}' {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

/// At most `chars_max` characters of a text, of which one at least, the last of them an ellipsis where something was cut.
#[must_use]
pub fn cut(text: &str, chars_max: usize) -> String {
    if text.chars().nth(chars_max).is_none() {
        return text.to_owned();
    }
    text.chars().take(chars_max.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_text_says_so_and_is_no_longer_than_asked_for() {
        for (text, cut_to_3) in
            [("", ""), ("abc", "abc"), ("abcd", "ab…"), ("日本語", "日本語"), ("日本語です", "日本…")]
        {
            assert_eq!(cut(text, 3), cut_to_3);
        }
    }

    #[test]
    fn nothing_but_plain_ascii_is_left_in_a_json_text() {
        assert_eq!(ascii_json("{\"a\": \"ä😀\u{7f}~\"}"), r#"{"a": "\u00e4\ud83d\ude00\u007f~"}"#);
    }
}
