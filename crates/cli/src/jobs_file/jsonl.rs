//! JSONL: a job a line or, with a task, an input a line.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};

use nightshift_core::json;
use serde_json::value::RawValue;

use super::draft::{Draft, Line, group, job, scalar, sendable};
use super::fault::{LINE_BYTES_MAX, like_csv, not_utf8, too_long, unreadable};
use crate::error::Failure;

/// Of the name of a column.
const NAME_BYTES_MAX: usize = 64;

/// Lines on their way in.
pub struct Jsonl<R> {
    read: BufReader<R>,
    shape: Shape,
    /// Of the last line that was read, from 1.
    number: u64,
    /// A line that is not blank was read.
    begun: bool,
}

/// What a line is, and what stands apart in it.
pub struct Shape {
    /// Lines are inputs of this task, not whole jobs.
    pub task: Option<String>,
    /// The member that is the job's reference.
    pub reference: Option<String>,
    /// The member that is the group.
    pub group: Option<String>,
}

impl<R: Read> Jsonl<R> {
    /// Before the first line.
    pub fn new(read: R, shape: Shape) -> Self {
        Self { read: BufReader::with_capacity(64 * 1_024, read), shape, number: 0, begun: false }
    }

    /// The first line is a line like all others, whatever it reads like.
    pub fn without_header(self) -> Self {
        Self { begun: true, ..self }
    }

    /// The next line that is not blank; `None` at the end.
    ///
    /// # Errors
    /// When the file itself cannot be read on.
    pub fn next(&mut self) -> Result<Option<Line>, Failure> {
        loop {
            self.number += 1;
            let number = self.number;
            let Some(line) = bounded_line(&mut self.read).map_err(|error| unreadable(number, &error))? else {
                return Ok(None);
            };
            let drafted = match line {
                Bounded::TooLong => Err(too_long()),
                Bounded::Line(bytes) => {
                    let is_utf8 = std::str::from_utf8(&bytes).is_ok();
                    let text = String::from_utf8_lossy(&bytes);
                    // A byte order mark is no part of the first job.
                    let text = text.trim_start_matches('\u{feff}').trim();
                    if text.is_empty() {
                        continue;
                    }
                    if !self.begun
                        && let Some(delimiter) = self.shape.delimiter_of_header(text)
                    {
                        return Err(like_csv(delimiter, is_utf8));
                    }
                    if is_utf8 { self.shape.draft(text) } else { Err(not_utf8()) }
                }
            };
            self.begun = true;
            return Ok(Some((number, drafted)));
        }
    }
}

enum Bounded {
    Line(Vec<u8>),
    TooLong,
}

fn bounded_line(read: &mut impl BufRead) -> io::Result<Option<Bounded>> {
    let mut line = Vec::new();
    if read.by_ref().take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    let whole = line.last() == Some(&b'\n') || line.len() as u64 <= LINE_BYTES_MAX;
    if !whole {
        read.skip_until(b'\n')?;
        return Ok(Some(Bounded::TooLong));
    }
    Ok(Some(Bounded::Line(line)))
}

impl Shape {
    /// What stands between the cells of a first line that is no JSON, and reads like the names of columns, some of which may
    /// be empty. One word alone may be anything, but where lines are inputs of a task.
    fn delimiter_of_header(&self, line: &str) -> Option<char> {
        let is_foreign = |c: char| matches!(c, '{' | '}' | '[' | ']' | ':') || c.is_control();
        let delimiter = ['\t', ';'].into_iter().find(|one| line.contains(*one)).unwrap_or(',');
        let names: Vec<_> = line.split(delimiter).map(|cell| cell.trim().trim_matches('"')).collect();
        let is_row = self.task.is_some() || names.len() > 1;
        let are_names = names.iter().all(|name| name.len() <= NAME_BYTES_MAX && !name.contains(is_foreign))
            && names.iter().any(|name| !name.is_empty());
        let is_header = is_row && are_names && serde_json::from_str::<&RawValue>(line).is_err();
        is_header.then_some(delimiter)
    }

    fn draft(&self, text: &str) -> Result<Draft, String> {
        // A whole job is sent as it was written, byte for byte; the worker's own parser judges it.
        if self.task.is_none() && self.group.is_none() {
            return Ok(Draft { body: sendable(text.to_owned()), group: None });
        }
        let unreadable = |fault| format!("The line cannot be read: {fault}.");
        let mut value = json::parse(text).map_err(unreadable)?;
        let members = raw_members(text);
        // A reference becomes a text, and loses no digit by that.
        let reference = self.reference.as_ref().and_then(|name| Some((name, *members.get(name)?)));
        let exact = match reference {
            None => json::exact_numbers(text),
            Some((name, _)) => {
                let mut others = members.iter().filter(|(member, _)| *member != name);
                others.try_for_each(|(_, member)| json::exact_numbers(member.get()))
            }
        };
        exact.map_err(unreadable)?;
        let reference = match reference {
            None => None,
            Some((name, written)) => {
                value.as_object_mut().and_then(|input| input.shift_remove(name));
                scalar(written).map_err(|kind| {
                    format!("The reference in {name:?} is {kind}: give a text, a number or a flag.")
                })?
            }
        };
        let group = self.group.as_ref().map(|name| {
            let inside = members.get("input").map(|input| raw_members(input.get())).unwrap_or_default();
            let input = if self.task.is_some() { &members } else { &inside };
            let value = input.get(name).and_then(|value| scalar(value).ok()?);
            group(value.as_deref().unwrap_or_default(), name)
        });
        let body = match &self.task {
            Some(task) => job(task, &value, reference),
            None => text.to_owned(),
        };
        Ok(Draft { body: sendable(body), group: group.transpose()? })
    }
}

/// The members of a JSON object as they were written; none of what is no object.
fn raw_members(text: &str) -> BTreeMap<String, &RawValue> {
    serde_json::from_str(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs_file::Source;
    use crate::jobs_file::tests::{body, read, source};

    #[test]
    fn a_line_of_jsonl_is_sent_as_it_was_written() {
        let lines = read(
            &source("jobs.jsonl", |_| {}),
            "\u{feff}{\"task\": \"t\",  \"input\": 1.50}\r\n\n not a job\n{\"a\":\"\u{ffff}\"}".as_bytes(),
        );
        assert_eq!(
            lines,
            [
                (1, body("{\"task\": \"t\",  \"input\": 1.50}")),
                (3, body("not a job")),
                (4, body("{\"a\":\"\\uffff\"}")),
            ]
        );
    }

    #[test]
    fn lines_that_cannot_be_sent_are_told_by_their_number_and_the_rest_goes_on() {
        let long = vec![b'x'; 1_048_577];
        let text = [&long[..], b"\n\xff\n{}\n", &long[..]].concat();
        let lines = read(&source("jobs.jsonl", |_| {}), &text);
        let numbers: Vec<_> = lines.iter().map(|(number, line)| (*number, line.is_ok())).collect();
        assert_eq!(numbers, [(1, false), (2, false), (3, true), (4, false)]);
        let exact = vec![b'x'; 1_048_576];
        assert!(read(&source("jobs.jsonl", |_| {}), &exact)[0].1.is_ok());
    }

    #[test]
    fn a_file_that_begins_with_the_header_of_csv_is_refused_whole() {
        let whole = source("-", |_| {});
        let of_task = source("-", |s| s.task = Some("categorize_ticket".to_owned()));
        let (comma, semicolon, tab) = (
            "give --csv, and --task",
            "give --csv, --delimiter ';', and --task",
            "give --csv, --delimiter $'\\t', and --task",
        );
        let long = format!("Hello, {}\n", "and more ".repeat(8));
        for (source, text, advice) in [
            (&whole, &b"Id,text\n1,hello\n"[..], comma),
            (&whole, b"a, b\n", comma),
            (&whole, "\u{feff}\n\n\"Id\";\"text\"\r\n".as_bytes(), semicolon),
            (&whole, b"Id;Name, first\n", semicolon),
            (&whole, b"Id\tWhat the customer wrote\n", tab),
            (&of_task, b"subject,text\nhello,two\n", comma),
            (&of_task, b"text\nhello\n", comma),
            // Columns without a name, at the end of what a spreadsheet had selected or between others.
            (&whole, b"Id,text,,\r\n", comma),
            (&whole, b"Id;;text;\n", semicolon),
            // In Latin-1.
            (&whole, b"Gr\xf6\xdfe;Text\n", "save it as UTF-8, and give --csv, --delimiter ';', and --task"),
            (&of_task, b"Gr\xf6\xdfe\n", "save it as UTF-8, and give --csv, and --task"),
            // One word that is no job is a bad line, and what is whole or broken JSON is JSONL.
            (&whole, b"hello\n", ""),
            (&whole, b"\xff\n", ""),
            (&of_task, b"\x1f\x8b\x08\x00\xf6\n", ""),
            (&whole, b"{\"task\":\"t\",\"input\":{}}\nId,text\n", ""),
            (&whole, b"{\"task\":\"t\",\"input\":{\n", ""),
            (&whole, b"\"task\":\"t\",\"input\":1\n", ""),
            (&of_task, b"1.5\n", ""),
            (&of_task, b"\"hello\"\n", ""),
            (&whole, b",\n", ""),
            (&whole, b";;\n", ""),
            (&whole, long.as_bytes(), ""),
        ] {
            let tasks = my_tasks::registry();
            let lines = || source.lines(text, &tasks).unwrap();
            let failure = lines().next().err();
            let shown = String::from_utf8_lossy(text);
            assert_eq!(
                failure.as_ref().map(Failure::exit_code),
                (!advice.is_empty()).then_some(2),
                "{shown}"
            );
            let told = failure.as_ref().and_then(Failure::sentence).unwrap_or_default();
            assert!(told.contains(advice), "{shown}: {told}");
            assert!(lines().without_header().next().is_ok(), "{shown}");
        }
    }

    #[test]
    fn inputs_of_one_task_become_jobs() {
        let inputs = source("inputs.jsonl", |s| {
            s.task = Some("categorize_ticket".to_owned());
            s.reference = Some("id".to_owned());
            s.group = Some("text".to_owned());
        });
        assert_eq!(
            read(&inputs, b"{\"id\":7,\"text\":\"hello\"}\n{\"text\":\"two words\"}\n[1]\n{"),
            [
                (
                    1,
                    Ok(Draft {
                        body: r#"{"task":"categorize_ticket","input":{"text":"hello"},"reference":"7"}"#.to_owned(),
                        group: Some("hello".to_owned()),
                    })
                ),
                (2, Err("The group in \"text\" must have 1 to 128 visible ASCII characters, as SQS wants of a MessageGroupId.".to_owned())),
                (3, Err("The group in \"text\" must have 1 to 128 visible ASCII characters, as SQS wants of a MessageGroupId.".to_owned())),
                (4, Err("The line cannot be read: it is not valid JSON at column 1: EOF while parsing an object.".to_owned())),
            ]
        );
    }

    #[test]
    fn what_a_worker_would_refuse_is_not_mended_on_the_way() {
        let jsonl = |group: Option<&str>| {
            source("inputs.jsonl", |s| {
                s.task = Some("weekly_report".to_owned());
                s.reference = Some("id".to_owned());
                s.group = group.map(str::to_owned);
            })
        };
        let told = |source: &Source, text: &str| read(source, text.as_bytes()).pop().unwrap().1.unwrap_err();
        for (line, why) in [
            (r#"{"text":"a","text":"b"}"#, "The line cannot be read: the member \"text\" appears twice"),
            (r#"{"text":{"n":1,"n":1}}"#, "The line cannot be read: the member \"n\" appears twice"),
            (
                r#"{"text":18446744073709551617}"#,
                "The line cannot be read: the number that starts with 18446744073709551617 is beyond",
            ),
            // What is written anew for it would be taken.
            (
                r#"{"id":"a","text":[9007199254741000.1]}"#,
                "The line cannot be read: the number that starts with 9007199254741000.1 is beyond",
            ),
            (
                r#"{"text":9.007199254740993e15}"#,
                "The line cannot be read: the number that starts with 9.007199254740993e15 is beyond",
            ),
            (
                "[9007199254741000.1]",
                "The line cannot be read: the number that starts with 9007199254741000.1",
            ),
        ] {
            for group in [None, Some("text")] {
                let told = told(&jsonl(group), line);
                assert!(told.starts_with(why), "{told}");
            }
        }
        // A reference is a text in the job, and stays as it was written.
        for (written, reference) in [
            ("18446744073709551615", Some("18446744073709551615")),
            ("9007199254741000.10", Some("9007199254741000.10")),
            ("1.10", Some("1.10")),
            ("1E3", Some("1E3")),
            ("false", Some("false")),
            (r#""a\u00e9""#, Some("aé")),
            (r#""""#, Some("")),
            ("null", None),
        ] {
            let line = format!(r#"{{ "id" : {written} , "text":"a"}}"#);
            let expected =
                job("weekly_report", &serde_json::json!({"text": "a"}), reference.map(str::to_owned));
            assert_eq!(read(&jsonl(None), line.as_bytes()), [(1, body(&expected))]);
        }
        for (written, kind) in [(r#"{"n":1}"#, "an object"), ("[7]", "an array"), ("[]", "an array")] {
            for group in [None, Some("text")] {
                let told = told(&jsonl(group), &format!(r#"{{"id":{written},"text":"a"}}"#));
                assert_eq!(
                    told,
                    format!("The reference in \"id\" is {kind}: give a text, a number or a flag.")
                );
            }
        }
        // And so does what SQS shares the workers by.
        for (line, task) in [(r#"{"id":1.10}"#, true), (r#"{"task":"t","input":{"id":1.10}}"#, false)] {
            let grouped = source("inputs.jsonl", |s| {
                s.task = task.then(|| "weekly_report".to_owned());
                s.group = Some("id".to_owned());
            });
            let (_, draft) = read(&grouped, line.as_bytes()).pop().unwrap();
            assert_eq!(draft.unwrap().group.as_deref(), Some("1.10"));
        }
    }
}
