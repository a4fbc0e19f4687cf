//! Jobs as a sender has them, a line each: JSONL, or CSV whose columns are mapped to the members of an input.
//!
//! **Invariant:** memory does not grow with the file. A line is read up to a limit, and the rest of a longer one is
//! skipped.

mod columns;
mod csv_records;
mod draft;
mod fault;
mod jsonl;
mod members;

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use nightshift_core::task::Tasks;
use nightshift_tasks::Registry;

use self::columns::Rows;
pub use self::draft::{Draft, Line};
use self::jsonl::{Jsonl, Shape};
use crate::error::Failure;
use crate::files;

/// Where jobs come from, and how a line becomes one.
#[derive(Debug, Clone, Args)]
pub struct Source {
    /// JSONL (a job a line) or, where the name ends in .csv, CSV with a header; - is standard input.
    pub file: PathBuf,
    /// Lines are inputs of this task, not whole jobs. CSV needs it.
    #[arg(long, value_name = "NAME")]
    pub task: Option<String>,
    /// Read as CSV, whatever the name: standard input has none.
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

    /// From its first byte; a file that cannot be read is told by its path.
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
            return Ok(Lines { kind: Kind::Csv(Rows::new(read, self, task, tasks)?) });
        }
        if self.delimiter.is_some() {
            return Err(Failure::usage("--delimiter is for CSV: give --csv too, where the file is some."));
        }
        if !self.maps.is_empty() {
            return Err(Failure::usage(
                "--map is for CSV: give --csv too, where the file is some; in JSONL the members have their names already.",
            ));
        }
        if self.reference.is_some() && self.task.is_none() {
            return Err(Failure::usage(
                "--reference names a member of an input, so it needs --task: a whole job has its reference already.",
            ));
        }
        let shape =
            Shape { task: self.task.clone(), reference: self.reference.clone(), group: self.group.clone() };
        Ok(Lines { kind: Kind::Jsonl(Jsonl::new(read, shape)) })
    }
}

/// Lines on their way in.
pub struct Lines<R> {
    kind: Kind<R>,
}

enum Kind<R> {
    Jsonl(Jsonl<R>),
    Csv(Rows<R>),
}

impl<R: Read> Lines<R> {
    /// Of a file some of which was sent already: a first line of JSONL that reads like a header was left out then.
    pub fn without_header(self) -> Self {
        let kind = match self.kind {
            Kind::Jsonl(lines) => Kind::Jsonl(lines.without_header()),
            rows => rows,
        };
        Self { kind }
    }

    /// The next line; `None` at the end.
    ///
    /// # Errors
    /// When the file itself cannot be read on.
    pub fn next(&mut self) -> Result<Option<Line>, Failure> {
        match &mut self.kind {
            Kind::Jsonl(lines) => lines.next(),
            Kind::Csv(rows) => rows.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn source(file: &str, edit: impl FnOnce(&mut Source)) -> Source {
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

    pub fn read(source: &Source, text: &[u8]) -> Vec<Line> {
        let tasks = my_tasks::registry();
        let mut lines = source.lines(text, &tasks).unwrap();
        std::iter::from_fn(|| lines.next().unwrap()).collect()
    }

    pub fn body(body: &str) -> Result<Draft, String> {
        Ok(Draft { body: body.to_owned(), group: None })
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
        assert_eq!(refused(source("a.jsonl", |s| s.delimiter = Some(';')), ""), Some(2));
        for bad in ["", ";;", "\"", "\n", "é"] {
            assert!(delimiter(bad).is_err(), "{bad:?}");
        }
    }
}
