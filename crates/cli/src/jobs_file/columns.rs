//! CSV whose columns are mapped to the members of an input.

use std::io::Read;

use nightshift_core::json::JsonFault;
use nightshift_tasks::Registry;
use serde_json::{Map, Value};

use super::Source;
use super::csv_records::{Fault, Records};
use super::draft::{Draft, Line, group, job, sendable, strict};
use super::fault::{LINE_BYTES_MAX, of_csv, unreadable};
use super::members::{Members, Type};
use crate::error::Failure;
use crate::text::counted;

/// Rows on their way in.
pub struct Rows<R> {
    records: Records<R>,
    columns: Columns,
}

impl<R: Read> Rows<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// Where it cannot be read, or no input of the task comes of what it names.
    pub fn new(read: R, source: &Source, task: &str, tasks: &Registry) -> Result<Self, Failure> {
        let mut records = Records::new(read, LINE_BYTES_MAX, source.delimiter.map_or(b',', |one| one as u8));
        let header = header(&mut records)?;
        let names = header.iter().map(|name| name.trim_start_matches('\u{feff}').trim()).collect();
        let columns = Header { source, names }.columns(task, &Members::of(task, tasks))?;
        Ok(Self { records, columns })
    }

    /// The next row; `None` at the end.
    ///
    /// # Errors
    /// When the file itself cannot be read on.
    pub fn next(&mut self) -> Result<Option<Line>, Failure> {
        let line = self.records.line();
        let record = self.records.next().map_err(|error| unreadable(line, &error))?;
        // It has taken in all rows that follow, and nobody can say how many those are.
        if let Some((_, Err(fault @ Fault::NeverClosed { .. }))) = record {
            return Err(Failure::usage(of_csv(fault)));
        }
        Ok(record
            .map(|(line, cells)| (line, cells.map_err(of_csv).and_then(|cells| self.columns.draft(&cells)))))
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

/// The names of the columns, and what is wanted of them.
struct Header<'a> {
    source: &'a Source,
    names: Vec<&'a str>,
}

impl Header<'_> {
    fn columns(&self, task: &str, members: &Members) -> Result<Columns, Failure> {
        let Self { source, names } = self;
        self.refuse_semicolons()?;
        self.refuse_mapped_twice()?;
        let reference = source.reference.as_deref().map(|name| self.find(name)).transpose()?;
        let group =
            source.group.as_deref().map(|name| Ok((self.find(name)?, name.to_owned()))).transpose()?;
        let taken = if source.maps.is_empty() {
            let is_group = |at: usize| group.as_ref().is_some_and(|(group, _)| *group == at);
            let named = names.iter().enumerate().filter(|(at, name)| {
                // The group may be a member of the input too, where the input has such a member.
                reference != Some(*at) && (!is_group(*at) || members.has(name))
            });
            let named =
                named.map(|(_, name)| Ok((self.find(name)?, (*name).to_owned(), members.type_of(name))));
            named.collect::<Result<Vec<_>, Failure>>()?
        } else {
            members.refuse_unmapped(&source.maps)?;
            let mapped = source
                .maps
                .iter()
                .map(|(member, column)| Ok((self.find(column)?, member.clone(), members.type_of(member))));
            mapped.collect::<Result<Vec<_>, Failure>>()?
        };
        if source.maps.is_empty() {
            let is_taken = |name: &str| members.has(name) || self.is_named(name);
            members.refuse_unknown(names.iter().copied().filter(|name| !is_taken(name)))?;
        }
        // A file of nothing has no header, and no line that would lack a member.
        if !names.is_empty() {
            members.refuse_lacking(taken.iter().map(|(_, member, _)| member.as_str()), names)?;
        }
        Ok(Columns {
            task: task.to_owned(),
            members: taken,
            reference,
            group,
            width: names.len(),
            delimiter: source.delimiter,
        })
    }

    fn refuse_semicolons(&self) -> Result<(), Failure> {
        if let [only] = self.names[..]
            && only.contains(';')
            && self.source.delimiter.is_none()
            && !self.source.maps.iter().any(|(_, column)| column == only)
        {
            return Err(Failure::usage(
                "The header has one column with semicolons in it: where they stand between the cells, give --delimiter ';'.",
            ));
        }
        Ok(())
    }

    fn refuse_mapped_twice(&self) -> Result<(), Failure> {
        let maps = &self.source.maps;
        for (number, (member, column)) in maps.iter().enumerate() {
            if let Some((_, former)) = maps.iter().take(number).find(|(mapped, _)| mapped == member) {
                return Err(Failure::usage(format!(
                    "The member {member:?} is mapped to {former:?} and to {column:?}, and only one can count: leave one out."
                )));
            }
        }
        Ok(())
    }

    /// Whether the column is the reference or the group.
    fn is_named(&self, column: &str) -> bool {
        [&self.source.reference, &self.source.group].into_iter().flatten().any(|name| name == column)
    }

    /// Where the column stands, from 0.
    fn find(&self, column: &str) -> Result<usize, Failure> {
        let names = &self.names;
        let mut named = names.iter().enumerate().filter(|(_, name)| **name == column).map(|(at, _)| at);
        let sentence = match (named.next(), named.count()) {
            (Some(at), 0) => return Ok(at),
            (Some(_), more) => format!(
                "The column {column:?} occurs {} times in the header, and which of them is meant would be a guess: give each a name of its own{}.",
                more + 1,
                if self.source.maps.is_empty() && !self.is_named(column) {
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

impl Columns {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs_file::fault::too_long;
    use crate::jobs_file::tests::{body, read, source};

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
    fn a_cell_that_a_worker_would_refuse_is_not_mended_on_the_way() {
        let told = |source: &Source, text: &str| read(source, text.as_bytes()).pop().unwrap().1.unwrap_err();
        let rows = source("reports.csv", |s| s.task = Some("weekly_report".to_owned()));
        let members = Members::of("weekly_report", &my_tasks::registry());
        let column = members.types.iter().find_map(|(name, of)| (*of == Type::Json).then_some(name)).unwrap();
        let others: Vec<_> =
            members.required.iter().filter(|member| *member != column).map(String::as_str).collect();
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
}
