//! Jobs as a sender has them, a line each: JSONL, or CSV whose columns are mapped to the members of an input.
//!
//! **Invariant:** memory does not grow with the file. A line is read up to a limit, and the rest of a longer one is
//! skipped.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use nightshift_core::json::{self, JsonFault};
use nightshift_core::task::Tasks;
use nightshift_tasks::Registry;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::csv_records::{Fault, Records};
use crate::error::Failure;
use crate::files;
use crate::text::counted;

/// Longer lines are not jobs: SQS takes no message over 1 MiB (Amazon SQS message quotas).
const LINE_BYTES_MAX: u64 = 1_048_576;
/// The longest `MessageGroupId` (SendMessage, "MessageGroupId").
const GROUP_CHARS_MAX: usize = 128;

/// Where jobs come from, and how a line becomes one.
#[derive(Debug, Clone, Args)]
pub struct Source {
    /// JSONL (a job a line) or, where the name ends in .csv, CSV with a header; - is standard input.
    pub file: PathBuf,
    /// Lines are inputs of this task, not whole jobs. CSV needs it.
    #[arg(long, value_name = "NAME")]
    pub task: Option<String>,
    /// Read as CSV, whatever the name.
    #[arg(long)]
    pub csv: bool,
    /// What stands between the cells of CSV, where that is no comma: ';' in most files of a German spreadsheet.
    #[arg(long, value_name = "CHARACTER", value_parser = delimiter)]
    pub delimiter: Option<char>,
    /// A member of the input is taken from this column; without any, each column is the member of its name.
    #[arg(long = "map", value_name = "MEMBER=COLUMN", value_parser = mapping)]
    pub maps: Vec<(String, String)>,
    /// The column (of JSONL lines with --task: the member) that is the job's reference, and no part of the input.
    #[arg(long, value_name = "COLUMN")]
    pub reference: Option<String>,
    /// The column, or the member of the input, by which SQS shares the workers fairly among senders.
    #[arg(long, value_name = "COLUMN")]
    pub group: Option<String>,
}

fn mapping(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((member, column)) if !member.is_empty() && !column.is_empty() => {
            Ok((member.to_owned(), column.to_owned()))
        }
        _ => Err("write MEMBER=COLUMN, such as text=body".to_owned()),
    }
}

fn delimiter(text: &str) -> Result<char, String> {
    match text.chars().next() {
        Some(one) if text.len() == 1 && !matches!(one, '"' | '\r' | '\n') => Ok(one),
        _ => Err("write one ASCII character, such as ';'".to_owned()),
    }
}

/// One job, as it will be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The body.
    pub body: String,
    /// The `MessageGroupId`.
    pub group: Option<String>,
}

/// A line, by its number from 1, and the job that it holds, or why it holds none.
pub type Line = (u64, Result<Draft, String>);

impl Source {
    /// Whether it is standard input.
    pub fn is_stdin(&self) -> bool {
        self.file == Path::new("-")
    }

    fn is_csv(&self) -> bool {
        self.csv || self.file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"))
    }

    /// What another build is told, so that it reads the same.
    pub fn arguments(&self) -> Vec<OsString> {
        let file = self.file.clone().into_os_string();
        std::iter::once(file).chain(self.read_as().into_iter().map(OsString::from)).collect()
    }

    /// How the file is read, whatever its name: the options that say so.
    pub fn read_as(&self) -> Vec<String> {
        let mut told: Vec<String> = self.is_csv().then(|| "--csv".to_owned()).into_iter().collect();
        let delimiter = self.delimiter.map(String::from);
        for (name, value) in [
            ("--delimiter", &delimiter),
            ("--task", &self.task),
            ("--reference", &self.reference),
            ("--group", &self.group),
        ] {
            told.extend(value.iter().flat_map(|value| [name.to_owned(), value.clone()]));
        }
        told.extend(
            self.maps.iter().flat_map(|(member, column)| ["--map".to_owned(), format!("{member}={column}")]),
        );
        told
    }

    /// Opens it.
    pub fn open(&self) -> Result<Box<dyn Read + Send>, Failure> {
        if self.is_stdin() { Ok(Box::new(io::stdin())) } else { Ok(Box::new(files::open(&self.file)?)) }
    }

    /// The lines of what was opened. Blank ones are left out, but counted.
    pub fn lines<R: Read>(&self, read: R, tasks: &Registry) -> Result<Lines<R>, Failure> {
        if let Some(task) = &self.task
            && tasks.find(task).is_none()
        {
            let known = tasks.names().join(", ");
            return Err(Failure::not_found(format!("There is no task {task:?}; there are: {known}.")));
        }
        if self.is_csv() {
            let Some(task) = &self.task else {
                return Err(Failure::usage("A CSV file has inputs of one task: name it with --task."));
            };
            let mut records =
                Records::new(read, LINE_BYTES_MAX, self.delimiter.map_or(b',', |one| one as u8));
            let columns = Columns::of(self, task, &header(&mut records)?, tasks)?;
            return Ok(Lines { kind: Kind::Csv(records, columns) });
        }
        if self.delimiter.is_some() {
            return Err(Failure::usage("--delimiter is for CSV: give --csv too, where the file is some."));
        }
        if !self.maps.is_empty() {
            return Err(Failure::usage("--map is for CSV: in JSONL the members have their names already."));
        }
        if self.reference.is_some() && self.task.is_none() {
            return Err(Failure::usage(
                "--reference names a member of an input, so it needs --task: a whole job has its reference already.",
            ));
        }
        let shape =
            Shape { task: self.task.clone(), reference: self.reference.clone(), group: self.group.clone() };
        Ok(Lines { kind: Kind::Jsonl(BufReader::with_capacity(64 * 1_024, read), shape, 0) })
    }
}

/// The first record; one without cells where there is none.
fn header<R: Read>(records: &mut Records<R>) -> Result<csv::StringRecord, Failure> {
    let line = records.line();
    match records.next().map_err(|error| unreadable(line, &error))? {
        None => Ok(csv::StringRecord::new()),
        Some((_, Ok(header))) => Ok(header),
        Some((_, Err(Fault::TooLong))) => Err(Failure::failed(format!(
            "The header has more than {LINE_BYTES_MAX} bytes: the first line of CSV names its columns."
        ))),
        Some((_, Err(fault))) => Err(Failure::failed(of_csv(fault))),
    }
}

/// Lines on their way in.
pub struct Lines<R> {
    kind: Kind<R>,
}

enum Kind<R> {
    Jsonl(BufReader<R>, Shape, u64),
    Csv(Records<R>, Columns),
}

struct Shape {
    task: Option<String>,
    reference: Option<String>,
    group: Option<String>,
}

impl<R: Read> Lines<R> {
    /// The next line; `None` at the end.
    ///
    /// # Errors
    /// When the file itself cannot be read on.
    pub fn next(&mut self) -> Result<Option<Line>, Failure> {
        match &mut self.kind {
            Kind::Jsonl(read, shape, number) => loop {
                *number += 1;
                let Some(line) = bounded_line(read).map_err(|error| unreadable(*number, &error))? else {
                    return Ok(None);
                };
                match line {
                    Bounded::TooLong => return Ok(Some((*number, Err(too_long())))),
                    Bounded::Line(bytes) => match String::from_utf8(bytes) {
                        Ok(text) => {
                            // A byte order mark is no part of the first job.
                            let text = text.trim_start_matches('\u{feff}').trim();
                            if !text.is_empty() {
                                return Ok(Some((*number, shape.draft(text))));
                            }
                        }
                        Err(_) => return Ok(Some((*number, Err(not_utf8())))),
                    },
                }
            },
            Kind::Csv(records, columns) => {
                let line = records.line();
                let record = records.next().map_err(|error| unreadable(line, &error))?;
                // It has taken in all rows that follow, and nobody can say how many those are.
                if let Some((_, Err(fault @ Fault::NeverClosed { .. }))) = record {
                    return Err(Failure::usage(of_csv(fault)));
                }
                Ok(record.map(|(line, cells)| {
                    (line, cells.map_err(of_csv).and_then(|cells| columns.draft(&cells)))
                }))
            }
        }
    }
}

fn unreadable(number: u64, error: &io::Error) -> Failure {
    Failure::failed(format!("The file cannot be read on at line {number}: {error}."))
}

/// As strictly as the worker reads a body, because what is written anew no longer shows what was wrong with it.
fn strict(text: &str) -> Result<Value, JsonFault> {
    let value = json::parse(text)?;
    json::exact_numbers(text)?;
    Ok(value)
}

/// The members of a JSON object as they were written; none of what is no object.
fn raw_members(text: &str) -> BTreeMap<String, &RawValue> {
    serde_json::from_str(text).unwrap_or_default()
}

fn too_long() -> String {
    format!(
        "The line has more than {LINE_BYTES_MAX} bytes, and SQS takes no longer message: send less text, or a reference to it."
    )
}

fn not_utf8() -> String {
    "The line is not UTF-8: save the file as UTF-8.".to_owned()
}

fn of_csv(fault: Fault) -> String {
    match fault {
        Fault::TooLong => too_long(),
        Fault::NotUtf8 => not_utf8(),
        Fault::NeverClosed { opened } => format!(
            "The quote that opens in line {opened} is never closed, and takes in the rest of the file: close it, or double it where it is part of the text, and run the command again."
        ),
        Fault::ClosedInside { opened, closed } => format!(
            "The quote that opens in line {opened} closes in line {closed} in the middle of a cell: double each quote that is part of the text."
        ),
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

/// What a cell of a column becomes.
struct Columns {
    task: String,
    members: Vec<(usize, String, Type)>,
    reference: Option<usize>,
    group: Option<(usize, String)>,
    width: usize,
    delimiter: Option<char>,
}

/// What the schema of an input says of a member. A text stays one, whatever it looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Text,
    /// The cell is JSON: a number, a flag, an array or an object.
    Json,
}

impl Columns {
    fn of(
        source: &Source,
        task: &str,
        header: &csv::StringRecord,
        tasks: &Registry,
    ) -> Result<Self, Failure> {
        let names: Vec<&str> = header.iter().map(|name| name.trim_start_matches('\u{feff}').trim()).collect();
        if let [only] = names[..]
            && only.contains(';')
            && source.delimiter.is_none()
            && !source.maps.iter().any(|(_, column)| column == only)
        {
            return Err(Failure::usage(
                "The header has one column with semicolons in it: where they stand between the cells, give --delimiter ';'.",
            ));
        }
        let is_named = |column: &str| {
            [&source.reference, &source.group].into_iter().flatten().any(|name| name == column)
        };
        let find = |column: &str| {
            let mut named = names.iter().enumerate().filter(|(_, name)| **name == column).map(|(at, _)| at);
            let sentence = match (named.next(), named.count()) {
                (Some(at), 0) => return Ok(at),
                (Some(_), more) => format!(
                    "The column {column:?} occurs {} times in the header, and which of them is meant would be a guess: give each a name of its own{}.",
                    more + 1,
                    if source.maps.is_empty() && !is_named(column) {
                        ", or say with --map which columns are wanted"
                    } else {
                        ""
                    }
                ),
                (None, _) if names.is_empty() => format!(
                    "There is no column {column:?}, because there is no header: begin the file with the names of its columns."
                ),
                (None, _) => format!("There is no column {column:?}; there are: {}.", names.join(", ")),
            };
            Err(Failure::usage(sentence))
        };
        for (number, (member, column)) in source.maps.iter().enumerate() {
            if let Some((_, former)) = source.maps.iter().take(number).find(|(mapped, _)| mapped == member) {
                return Err(Failure::usage(format!(
                    "The member {member:?} is mapped to {former:?} and to {column:?}, and only one can count: leave one out."
                )));
            }
        }
        let reference = source.reference.as_deref().map(find).transpose()?;
        let group = source.group.as_deref().map(|name| Ok((find(name)?, name.to_owned()))).transpose()?;
        let schema = input_schema(task, tasks);
        let types = types(&schema);
        let type_of = |member: &str| types.get(member).copied().unwrap_or(Type::Text);
        let members = if source.maps.is_empty() {
            let is_apart =
                |at: usize| reference == Some(at) || group.as_ref().is_some_and(|(group, _)| *group == at);
            let named = names.iter().enumerate().filter(|(at, name)| {
                // The group may be a member of the input too, where the input has such a member.
                !is_apart(*at) || (reference != Some(*at) && types.contains_key(**name))
            });
            named
                .map(|(_, name)| Ok((find(name)?, (*name).to_owned(), type_of(name))))
                .collect::<Result<Vec<_>, Failure>>()?
        } else {
            refuse_no_members(task, &source.maps, &types)?;
            let mapped = source
                .maps
                .iter()
                .map(|(member, column)| Ok((find(column)?, member.clone(), type_of(member))));
            mapped.collect::<Result<Vec<_>, Failure>>()?
        };
        if source.maps.is_empty() {
            let is_taken = |name: &str| types.contains_key(name) || is_named(name);
            refuse_unknown(task, names.iter().copied().filter(|name| !is_taken(name)), &types)?;
        }
        // A file of nothing has no header, and no line that would lack a member.
        if !names.is_empty() {
            refuse_lacking(task, &members, &names, &schema)?;
        }
        Ok(Self {
            task: task.to_owned(),
            members,
            reference,
            group,
            width: names.len(),
            delimiter: source.delimiter,
        })
    }

    fn draft(&self, record: &csv::StringRecord) -> Result<Draft, String> {
        if record.len() != self.width {
            let cells = counted(record.len() as u64, "cell");
            return Err(if record.len() < self.width {
                format!(
                    "The line has {cells} and the header {}: each line needs all of them, empty ones too.",
                    self.width
                )
            } else {
                format!(
                    "The line has {cells} and the header {}: a cell with {} or a line break must stand in quotes.",
                    self.width,
                    self.delimiter.map_or_else(|| "a comma".to_owned(), String::from)
                )
            });
        }
        let cell = |at: usize| record.get(at).unwrap_or_default();
        let mut input = Map::new();
        for (at, member, of) in &self.members {
            let value = match (of, cell(*at)) {
                (Type::Text, text) => Value::from(text),
                // An empty cell is how a spreadsheet leaves a member out.
                (Type::Json, "") => continue,
                (Type::Json, text) => strict(text).map_err(|fault| match fault {
                    JsonFault::Syntax { .. } | JsonFault::TrailingData { .. } => format!("The cell of {member:?} is not the JSON that its type asks for (a number, true, false, an array or an object)."),
                    fault => format!("The cell of {member:?} cannot be read: {fault}."),
                })?,
            };
            input.insert(member.clone(), value);
        }
        let reference = self.reference.map(cell).filter(|text| !text.is_empty()).map(str::to_owned);
        let group = self.group.as_ref().map(|(at, name)| group(cell(*at), name)).transpose()?;
        Ok(Draft { body: sendable(job(&self.task, &Value::Object(input), reference)), group })
    }
}

/// Once for the file: each of its lines would be refused for the same column.
fn refuse_unknown<'a>(
    task: &str,
    columns: impl Iterator<Item = &'a str>,
    types: &BTreeMap<String, Type>,
) -> Result<(), Failure> {
    let columns: Vec<_> = columns.map(|column| format!("{column:?}")).collect();
    if columns.is_empty() || types.is_empty() {
        return Ok(());
    }
    let (is, no_members) =
        if columns.len() == 1 { ("The column", "is no member") } else { ("The columns", "are no members") };
    Err(Failure::usage(format!(
        "{is} {} {no_members} of the input of {task}, which has: {}. Say with --map MEMBER=COLUMN which columns are wanted.",
        columns.join(", "),
        listed(types)
    )))
}

fn refuse_no_members(
    task: &str,
    maps: &[(String, String)],
    types: &BTreeMap<String, Type>,
) -> Result<(), Failure> {
    let unknown = maps.iter().find(|(member, _)| !types.is_empty() && !types.contains_key(member));
    let Some((member, _)) = unknown else { return Ok(()) };
    Err(Failure::usage(format!(
        "--map: {member:?} is no member of the input of {task}, which has: {}.",
        listed(types)
    )))
}

fn refuse_lacking(
    task: &str,
    members: &[(usize, String, Type)],
    columns: &[&str],
    schema: &Value,
) -> Result<(), Failure> {
    let required = required(schema);
    let lacks = |member: &&str| !members.iter().any(|(_, has, _)| has == member);
    let Some(member) = required.into_iter().find(lacks) else { return Ok(()) };
    Err(Failure::usage(format!(
        "No column is the member {member:?}, which an input of {task} must have; the columns are: {}. Say with --map {member}=COLUMN which one it is.",
        columns.join(", ")
    )))
}

fn listed(types: &BTreeMap<String, Type>) -> String {
    types.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn input_schema(task: &str, tasks: &Registry) -> Value {
    tasks.describe(task).map(|description| description.input_schema).unwrap_or_default()
}

/// The members that each input must have, by its schema.
fn required(schema: &Value) -> Vec<&str> {
    let names = schema.get("required").and_then(Value::as_array);
    names.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The types of the members of an input, by its schema.
fn types(schema: &Value) -> BTreeMap<String, Type> {
    let members = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    let is_text = |member: &Value| match member.get("type") {
        Some(Value::String(name)) => name == "string",
        Some(Value::Array(names)) => names.iter().any(|name| name == "string"),
        // A reference to a definition: texts with a name of their own, such as a language code, are strings there.
        _ => member
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|path| schema.pointer(path.trim_start_matches('#')))
            .is_some_and(|definition| definition.get("type").is_some_and(|of| of == "string")),
    };
    members
        .iter()
        .map(|(name, member)| (name.clone(), if is_text(member) { Type::Text } else { Type::Json }))
        .collect()
}

fn job(task: &str, input: &Value, reference: Option<String>) -> String {
    match reference {
        Some(reference) => serde_json::json!({"task": task, "input": input, "reference": reference}),
        None => serde_json::json!({"task": task, "input": input}),
    }
    .to_string()
}

/// The text of a text, a number or a flag, and none of null. A number stays as it was written: `1.10` names something else
/// than `1.1`.
fn scalar(written: &RawValue) -> Result<Option<String>, &'static str> {
    match serde_json::from_str(written.get()) {
        Ok(Value::String(text)) => Ok(Some(text)),
        Ok(Value::Null) => Ok(None),
        Ok(Value::Array(_)) => Err("an array"),
        Ok(Value::Object(_)) => Err("an object"),
        _ => Ok(Some(written.get().to_owned())),
    }
}

fn group(value: &str, name: &str) -> Result<String, String> {
    let fits = (1..=GROUP_CHARS_MAX).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_graphic());
    if fits {
        Ok(value.to_owned())
    } else {
        Err(format!(
            "The group in {name:?} must have 1 to {GROUP_CHARS_MAX} visible ASCII characters, as SQS wants of a MessageGroupId."
        ))
    }
}

/// SQS refuses U+FFFE and U+FFFF (SendMessage, "Message Body"); as JSON escapes they say the same. They can only stand in
/// strings of a JSON text, so a body that is none is left to the worker's parser to refuse.
fn sendable(body: String) -> String {
    if body.contains(['\u{fffe}', '\u{ffff}']) {
        body.replace('\u{fffe}', "\\ufffe").replace('\u{ffff}', "\\uffff")
    } else {
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(file: &str, edit: impl FnOnce(&mut Source)) -> Source {
        let mut source = Source {
            file: PathBuf::from(file),
            task: None,
            csv: false,
            delimiter: None,
            maps: Vec::new(),
            reference: None,
            group: None,
        };
        edit(&mut source);
        source
    }

    fn read(source: &Source, text: &[u8]) -> Vec<Line> {
        let tasks = my_tasks::registry();
        let mut lines = source.lines(text, &tasks).unwrap();
        std::iter::from_fn(|| lines.next().unwrap()).collect()
    }

    fn body(body: &str) -> Result<Draft, String> {
        Ok(Draft { body: body.to_owned(), group: None })
    }

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
    fn a_row_of_csv_becomes_a_job_by_its_header_or_by_mapping() {
        let by_header = source("tickets.csv", |s| {
            s.task = Some("categorize_ticket".to_owned());
            s.reference = Some("id".to_owned());
        });
        let text = "id,text\n7,\"one, two\nthree\"\n,plain\n8\n9,a,b\n";
        assert_eq!(
            read(&by_header, text.as_bytes()),
            [
                (2, body(r#"{"task":"categorize_ticket","input":{"text":"one, two\nthree"},"reference":"7"}"#)),
                (4, body(r#"{"task":"categorize_ticket","input":{"text":"plain"}}"#)),
                (5, Err("The line has 1 cell and the header 2: each line needs all of them, empty ones too.".to_owned())),
                (6, Err("The line has 3 cells and the header 2: a cell with a comma or a line break must stand in quotes.".to_owned())),
            ]
        );
        let mapped = source("-", |s| {
            s.csv = true;
            s.task = Some("categorize_ticket".to_owned());
            s.maps = vec![("text".to_owned(), "Body".to_owned())];
            s.group = Some("Customer".to_owned());
        });
        assert_eq!(
            read(&mapped, "Customer,Body,Other\nacme,0042,x\n".as_bytes()),
            [(
                2,
                Ok(Draft {
                    body: r#"{"task":"categorize_ticket","input":{"text":"0042"}}"#.to_owned(),
                    group: Some("acme".to_owned())
                })
            )]
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
        let rows = source("reports.csv", |s| s.task = Some("weekly_report".to_owned()));
        let column = types(&input_schema("weekly_report", &my_tasks::registry()))
            .into_iter()
            .find_map(|(name, of)| (of == Type::Json).then_some(name))
            .unwrap();
        let schema = input_schema("weekly_report", &my_tasks::registry());
        let others: Vec<_> = required(&schema).into_iter().filter(|member| *member != column).collect();
        assert!(!others.is_empty());
        for (cell, why) in [
            ("18446744073709551617", "cannot be read: the number that starts with 18446744073709551617"),
            ("9007199254741000.1", "cannot be read: the number that starts with 9007199254741000.1"),
            (r#""[{""a"":1,""a"":2}]""#, "cannot be read: the member \"a\" appears twice"),
            ("many", "is not the JSON that its type asks for"),
        ] {
            let told =
                told(&rows, &format!("{column},{}\n{cell}{}\n", others.join(","), ",".repeat(others.len())));
            assert!(told.starts_with(&format!("The cell of \"{column}\" ")) && told.contains(why), "{told}");
        }
    }

    #[test]
    fn cells_may_be_told_apart_by_another_character() {
        let semicolons = |delimiter| {
            source("tickets.csv", |s| {
                s.task = Some("categorize_ticket".to_owned());
                s.reference = Some("id".to_owned());
                s.delimiter = delimiter;
            })
        };
        let text = "\u{feff}id;text\r\n7;\"one; two\"\r\n8;a, b\r\n9\r\n";
        assert_eq!(
            read(&semicolons(Some(';')), text.as_bytes()),
            [
                (2, ticket("7", "one; two")),
                (3, ticket("8", "a, b")),
                (
                    4,
                    Err("The line has 1 cell and the header 2: each line needs all of them, empty ones too."
                        .to_owned())
                ),
            ]
        );
        let tasks = my_tasks::registry();
        let failure = semicolons(None).lines(text.as_bytes(), &tasks).err().unwrap();
        assert_eq!(failure.exit_code(), 2);
        assert!(failure.sentence().unwrap().contains("one column with semicolons in it"), "{failure:?}");
        assert!(failure.sentence().unwrap().contains("--delimiter ';'"), "{failure:?}");
        // A name may have one all the same.
        let named = source("tickets.csv", |s| {
            s.task = Some("categorize_ticket".to_owned());
            s.maps = vec![("text".to_owned(), "a;b".to_owned())];
        });
        assert_eq!(
            read(&named, b"a;b\nx\n"),
            [(2, body(r#"{"task":"categorize_ticket","input":{"text":"x"}}"#))]
        );
        for bad in ["", ";;", "\"", "\n", "é"] {
            assert!(delimiter(bad).is_err(), "{bad:?}");
        }
        let jsonl = source("jobs.jsonl", |s| s.delimiter = Some(';'));
        assert_eq!(jsonl.lines(&b""[..], &tasks).err().unwrap().exit_code(), 2);
    }

    fn by_header() -> Source {
        source("tickets.csv", |s| {
            s.task = Some("categorize_ticket".to_owned());
            s.reference = Some("id".to_owned());
        })
    }

    fn tickets(text: &str) -> Vec<Line> {
        read(&by_header(), text.as_bytes())
    }

    fn ticket(id: &str, text: &str) -> Result<Draft, String> {
        body(&job("categorize_ticket", &serde_json::json!({ "text": text }), Some(id.to_owned())))
    }

    #[test]
    fn a_quote_that_is_left_open_ends_the_file_and_makes_no_job_of_many() {
        let long = format!("id,text\n7,\"open quote{}\n8,second", " and more\n".repeat(200_000));
        for (text, opened, before) in [
            ("id,text\n7,\"open quote\n8,second customer\n9,third\n", 2, 0),
            ("id,text\n6,\"two\nlines\"\n7,first\n\"8\n8\",\"open", 6, 2),
            (&long, 2, 0),
        ] {
            let tasks = my_tasks::registry();
            let mut lines = by_header().lines(text.as_bytes(), &tasks).unwrap();
            for _ in 0..before {
                assert!(lines.next().unwrap().unwrap().1.is_ok());
            }
            let failure = lines.next().unwrap_err();
            let says =
                format!("The quote that opens in line {opened} is never closed, and takes in the rest");
            assert!(failure.sentence().unwrap().starts_with(&says), "{failure:?}");
            assert_eq!(failure.exit_code(), 2);
        }
        // The next cell with quotes closes it.
        assert_eq!(
            tickets("id,text\n7,\"open quote\n8,\"second customer\"\n9,third\n"),
            [
                (2, Err("The quote that opens in line 2 closes in line 3 in the middle of a cell: double each quote that is part of the text.".to_owned())),
                (4, ticket("9", "third")),
            ]
        );
    }

    #[test]
    fn a_row_has_the_number_of_the_line_on_which_it_begins_whatever_ends_the_lines() {
        for end in ["\n", "\r\n", "\r"] {
            let text = "\n\nid,text\n7,\"one\n\ntwo\"\n\n \n8,three\n\n\n9,four".replace('\n', end);
            let lines = tickets(&text);
            let numbers: Vec<_> = lines.iter().map(|(number, _)| *number).collect();
            assert_eq!(numbers, [4, 8, 9, 12], "{end:?}");
            assert_eq!(lines[0].1, ticket("7", &"one\n\ntwo".replace('\n', end)), "{end:?}");
        }
    }

    #[test]
    fn a_row_or_a_header_of_csv_that_is_too_long_is_said_to_be_and_the_rest_goes_on() {
        let long = "x,\n\"\"".repeat(210_000);
        assert_eq!(
            tickets(&format!("id,text\n7,\"{long}\"\n8,\"short\"\n")),
            [(2, Err(too_long())), (210_003, ticket("8", "short"))]
        );
        let inputs = source("tickets.csv", |s| s.task = Some("categorize_ticket".to_owned()));
        let failed = |text: &str| {
            let failure = inputs.lines(text.as_bytes(), &my_tasks::registry()).err().unwrap();
            failure.sentence().unwrap().to_owned()
        };
        assert_eq!(
            failed(&format!("\"{long}\"\n")),
            "The header has more than 1048576 bytes: the first line of CSV names its columns."
        );
        assert!(failed("id,\"text\n7,x\n").contains("The quote that opens in line 1 is never closed"));
        assert!(failed("\"text").contains("The quote that opens in line 1 is never closed"));
    }

    #[test]
    fn a_file_of_nothing_or_of_a_header_alone_has_no_lines() {
        for text in ["", "\u{feff}", "\n\r\n\n"] {
            assert_eq!(read(&source("jobs.jsonl", |_| {}), text.as_bytes()), []);
        }
        let inputs = source("tickets.csv", |s| s.task = Some("categorize_ticket".to_owned()));
        for text in [
            "",
            "\u{feff}",
            "\n\r\n\n",
            "subject,text",
            "subject,text\r\n",
            "\u{feff}\"subject\",\"text\"\n\n",
        ] {
            assert_eq!(read(&inputs, text.as_bytes()), [], "{text:?}");
        }
        let mapped = source("tickets.csv", |s| {
            s.task = Some("categorize_ticket".to_owned());
            s.maps = vec![("text".to_owned(), "Body".to_owned())];
        });
        let failure = mapped.lines(&b""[..], &my_tasks::registry()).err().unwrap();
        assert_eq!(
            failure.sentence(),
            Some(
                "There is no column \"Body\", because there is no header: begin the file with the names of its columns."
            )
        );
    }

    #[test]
    fn a_column_or_a_member_that_could_be_either_of_two_is_refused() {
        let mapped = |maps: &[(&str, &str)], edit: fn(&mut Source)| {
            source("tickets.csv", |s| {
                s.task = Some("categorize_ticket".to_owned());
                s.maps = maps.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
                edit(s);
            })
        };
        let tasks = my_tasks::registry();
        let text = [("text", "text")];
        for (source, header, says) in [
            (mapped(&[], |_| {}), "text,id,text", "The column \"text\" occurs 2 times in the header"),
            (mapped(&[], |_| {}), "text,,", "The column \"\" occurs 2 times in the header"),
            (mapped(&text, |_| {}), "text, text ", "The column \"text\" occurs 2 times"),
            (
                mapped(&text, |s| s.reference = Some("id".to_owned())),
                "id,id,text,id",
                "\"id\" occurs 3 times",
            ),
            (mapped(&text, |s| s.group = Some("id".to_owned())), "id,text,id", "\"id\" occurs 2 times"),
            (
                mapped(&[("text", "a"), ("other", "a"), ("text", "b")], |_| {}),
                "a,b",
                "The member \"text\" is mapped to \"a\" and to \"b\"",
            ),
            (
                mapped(&[], |s| s.reference = Some("Ref".to_owned())),
                "Ref,id,text,Name",
                "The columns \"id\", \"Name\" are no members of the input of categorize_ticket, which has: subject, text. Say with --map",
            ),
            (mapped(&[("text", "a"), ("text", "a")], |_| {}), "a", "The member \"text\" is mapped to"),
            (
                mapped(&[("txt", "a")], |_| {}),
                "a,b",
                "--map: \"txt\" is no member of the input of categorize_ticket, which has: subject, text.",
            ),
            (
                mapped(&[("subject", "b")], |_| {}),
                "a,b",
                "No column is the member \"text\", which an input of categorize_ticket must have; the columns are: a, b. Say with --map text=COLUMN",
            ),
            (mapped(&[], |s| s.reference = Some("id".to_owned())), "id", "No column is the member \"text\""),
        ] {
            let failure = source.lines(header.as_bytes(), &tasks).err().unwrap();
            assert_eq!(failure.exit_code(), 2, "{header}");
            assert!(failure.sentence().unwrap().contains(says), "{header}: {failure:?}");
        }
        // What nobody uses may occur as often as it likes.
        assert_eq!(
            read(&mapped(&text, |_| {}), b"Comment,text,Comment\na,one,b\n"),
            [(2, body(r#"{"task":"categorize_ticket","input":{"text":"one"}}"#))]
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused_before_a_line_is_read() {
        let tasks = my_tasks::registry();
        let refused = |source: Source, text: &str| {
            source.lines(text.as_bytes(), &tasks).err().map(|failure| failure.exit_code())
        };
        assert_eq!(refused(source("a.csv", |_| {}), "a\n"), Some(2));
        assert_eq!(refused(source("a.jsonl", |s| s.task = Some("nope".to_owned())), ""), Some(5));
        assert_eq!(
            refused(source("a.jsonl", |s| s.maps = vec![("a".to_owned(), "b".to_owned())]), ""),
            Some(2)
        );
        assert_eq!(refused(source("a.jsonl", |s| s.reference = Some("a".to_owned())), ""), Some(2));
        let no_column = source("a.csv", |s| {
            s.task = Some("categorize_ticket".to_owned());
            s.maps = vec![("text".to_owned(), "b".to_owned())];
        });
        assert_eq!(refused(no_column, "a\n"), Some(2));
    }
}
