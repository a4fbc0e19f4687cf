//! What comes from a sender, a model or a provider, made harmless for where it is shown.
//!
//! A terminal obeys control characters, and a reader is misled by those that turn the direction of a line; a
//! spreadsheet runs what looks like a formula.

use std::fmt::Write as _;

/// Whether a terminal, or the eye before it, may be misled by this character.
///
/// Control characters (Cc) move the cursor, and C1 controls are escape sequences of one character; the directional ones
/// are those of UAX #9 ("Unicode Bidirectional Algorithm", 2.1 to 2.5 with the marks); U+2028 and U+2029 break lines;
/// U+FEFF, the interlinear annotations and the tag characters are invisible and can carry text that nobody sees.
pub fn is_hazardous(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{061c}'
                | '\u{200b}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// So many of them: `1 job`, `2 jobs`.
pub fn counted(count: u64, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

/// Which of the two goes with so many.
pub fn agreeing<'a>(count: u64, one: &'a str, more: &'a str) -> &'a str {
    if count == 1 { one } else { more }
}

/// For a terminal: hazardous characters are left out, line breaks and tabs become spaces.
pub fn shown(text: &str) -> String {
    let plain = |c: char| match c {
        '\n' | '\r' | '\t' => Some(' '),
        c if is_hazardous(c) => None,
        c => Some(c),
    };
    text.chars().filter_map(plain).collect()
}

/// For a terminal, as `shown`, but lines stay lines.
pub fn shown_lines(text: &str) -> String {
    text.split('\n').map(shown).collect::<Vec<_>>().join("\n")
}

/// For columns that are cut at tabs and line breaks: hazardous characters are escaped, and the backslash with them, so
/// that each cell can be read back.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_hazardous(c) => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// For a cell of a CSV file: what a spreadsheet would run gets a leading `'` ("CSV Injection", OWASP).
pub fn guarded(text: &str) -> String {
    match text.chars().next() {
        Some('=' | '+' | '-' | '@' | '\t' | '\r' | '\n' | '＝' | '＋' | '－' | '＠') => {
            format!("'{text}")
        }
        _ => text.to_owned(),
    }
}

/// Lines that end where a terminal of this width does. What stands in backticks is copied, so it stays whole, as every word
/// does; the terminal itself breaks what is longer than its line.
pub fn wrapped(text: &str, width: usize) -> String {
    let options = textwrap::Options::new(width)
        .break_words(false)
        .word_separator(textwrap::WordSeparator::AsciiSpace)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    textwrap::fill(&joined(text, &['`']), options).replace(JOIN, " ")
}

/// A command that goes on in further lines, where a terminal of this width has no room for it in one.
pub fn command_lines(command: &str, width: usize) -> String {
    const GOES_ON: &str = " \\";
    if command.chars().count() <= width {
        return command.to_owned();
    }
    let before = command.len() - command.trim_start().len();
    let further = " ".repeat(before + 4);
    let mut lines = vec![" ".repeat(before)];
    for word in joined(command.trim_start(), &['\'', '"']).split(' ') {
        let Some(line) = lines.last_mut() else { break };
        let is_first = line.trim_start().is_empty();
        let after = line.chars().count() + usize::from(!is_first) + word.chars().count();
        if is_first || after + GOES_ON.len() <= width {
            line.push_str(if is_first { "" } else { " " });
            line.push_str(word);
        } else {
            line.push_str(GOES_ON);
            lines.push(format!("{further}{word}"));
        }
    }
    lines.join("\n").replace(JOIN, " ")
}

/// Where two words stay on one line.
const JOIN: char = '\u{a0}';

/// Blanks between two of the same marks become joins.
fn joined(text: &str, marks: &[char]) -> String {
    let mut open = None;
    let join = |c: char| match (open, c) {
        (None, c) if marks.contains(&c) => {
            open = Some(c);
            c
        }
        (Some(mark), c) if c == mark => {
            open = None;
            c
        }
        (Some(_), ' ') => JOIN,
        (_, c) => c,
    };
    text.chars().map(join).collect()
}

/// A sum in US dollars, to the cent; what is less than a dollar to a hundredth of one, for few jobs cost less than a cent.
pub fn dollars(usd: f64) -> String {
    if usd < 1.0 { format!("{usd:.4}") } else { format!("{usd:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_loses_its_power_and_other_text_nothing() {
        for (text, on_a_terminal, in_columns) in [
            ("plain", "plain", "plain"),
            ("naïve 日本語 👩‍👩‍👧 עברית", "naïve 日本語 👩‍👩‍👧 עברית", "naïve 日本語 👩‍👩‍👧 עברית"),
            ("\u{1b}[31mred\u{1b}[0m", "[31mred[0m", "\\u{1b}[31mred\\u{1b}[0m"),
            ("\u{1b}]0;title\u{7}", "]0;title", "\\u{1b}]0;title\\u{7}"),
            ("a\u{9b}2Jb", "a2Jb", "a\\u{9b}2Jb"),
            ("one\ntwo\tthree\r", "one two three ", "one\\ntwo\\tthree\\r"),
            ("invoice\u{202e}gpj.exe", "invoicegpj.exe", "invoice\\u{202e}gpj.exe"),
            ("\u{2066}x\u{2069}", "x", "\\u{2066}x\\u{2069}"),
            ("a\\nb", "a\\nb", "a\\\\nb"),
            ("\0\u{8}\u{7f}", "", "\\u{0}\\u{8}\\u{7f}"),
            ("x\u{e0041}\u{feff}", "x", "x\\u{e0041}\\u{feff}"),
            ("", "", ""),
        ] {
            assert_eq!(shown(text), on_a_terminal);
            assert_eq!(escaped(text), in_columns);
        }
        assert_eq!(shown_lines("a\u{1b}\nb\r\n"), "a\nb \n");
    }

    #[test]
    fn what_costs_less_than_a_cent_is_not_said_to_cost_nothing() {
        assert_eq!([0.0007, 0.25, 1.93146, 150.0].map(dollars), ["0.0007", "0.2500", "1.93", "150.00"]);
    }

    #[test]
    fn a_spreadsheet_runs_nothing() {
        for (text, cell) in [
            ("=1+1", "'=1+1"),
            ("+49 30", "'+49 30"),
            ("-5", "'-5"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\t=1"),
            ("\r=1", "'\r=1"),
            ("\n=1", "'\n=1"),
            ("＝1+1", "'＝1+1"),
            ("＋49", "'＋49"),
            ("－5", "'－5"),
            ("＠SUM(A1)", "'＠SUM(A1)"),
            ("a=1", "a=1"),
            ("'=1", "'=1"),
            ("", ""),
        ] {
            assert_eq!(guarded(text), cell);
        }
    }

    #[test]
    fn a_line_ends_where_the_terminal_does_and_breaks_no_word_and_no_command() {
        for (text, width, lines) in [
            ("one two", 20, "one two"),
            ("one two three", 8, "one two\nthree"),
            ("a dead-letters/queue", 8, "a\ndead-letters/queue"),
            ("run `nightshift status --prefix a` now", 12, "run\n`nightshift status --prefix a`\nnow"),
            ("an open ` mark goes on", 8, "an open\n` mark goes on"),
            ("one\n  two three", 8, "one\n  two\nthree"),
            ("", 8, ""),
        ] {
            assert_eq!(wrapped(text, width), lines, "{text}");
        }
    }

    #[test]
    fn a_command_that_is_longer_than_the_terminal_can_be_copied() {
        for (command, width, lines) in [
            ("  nightshift status", 19, "  nightshift status"),
            (
                "  nightshift status --reason 'two words'",
                30,
                "  nightshift status --reason \\\n      'two words'",
            ),
            ("  a | jq '.b c'", 10, "  a | jq \\\n      '.b c'"),
            ("nightshift-is-longer", 5, "nightshift-is-longer"),
        ] {
            assert_eq!(command_lines(command, width), lines, "{command}");
        }
    }
}
