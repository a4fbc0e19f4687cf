//! How answers are shown: a table on a terminal, plain columns in a pipe, JSON or CSV on request.
//!
//! A command gives rows and says nothing of their form. What comes from outside is marked as such (`Cell::Said`) and made
//! harmless here, once for each form, so that no command can forget it.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use comfy_table::{Attribute, ContentArrangement, Table};
use console::Term;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter};

use crate::error::Failure;
use crate::{onward, text};

/// Of a terminal that does not say how wide it is.
const COLUMNS_USUAL: u16 = 80;

/// Rows of a table that is written as it comes: some screens.
const STREAMED_IN_A_TABLE_MAX: usize = 500;

/// The form of what stands on standard output.
#[derive(Debug, Clone, Copy, Args)]
pub struct Form {
    /// Form of the answer; by default a table on a terminal, and columns with tabs between them in a pipe.
    #[arg(long, global = true, help_heading = "Everywhere", value_enum, value_name = "FORM")]
    output: Option<FormKind>,
    /// In CSV, cells that a spreadsheet would run as a formula stay as they are.
    #[arg(long, global = true, help_heading = "Everywhere")]
    exact: bool,
}

/// Which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormKind {
    /// For people.
    Table,
    /// A line a row, tabs between cells; tabs and line breaks within a cell are escaped.
    Columns,
    /// One document, or one object a line.
    Json,
    /// With a header.
    Csv,
}

/// One line of an answer.
pub trait Row: Serialize {
    /// The names of its cells.
    const COLUMNS: &'static [&'static str];
    /// The cells, in that order; JSON is the row itself.
    fn cells(&self) -> Vec<Cell>;
}

/// What stands in a table's cell, and by what it is told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// Our own words and numbers.
    Ours(String),
    /// What a sender, a model or a provider wrote.
    Said(String),
    /// There is none.
    Nothing,
}

impl Cell {
    /// Our own words, or a number.
    pub fn ours(value: impl ToString) -> Self {
        Self::Ours(value.to_string())
    }

    /// What comes from outside.
    pub fn said(text: impl Into<String>) -> Self {
        Self::Said(text.into())
    }

    /// What comes from outside, if there is any.
    pub fn maybe_said(text: Option<&str>) -> Self {
        text.map_or(Self::Nothing, Self::said)
    }

    /// Our own, if there is any.
    pub fn maybe(value: Option<impl ToString>) -> Self {
        value.map_or(Self::Nothing, Self::ours)
    }

    fn in_form(&self, form: FormKind, terminal: bool, exact: bool) -> String {
        match (self, form) {
            (Self::Nothing, FormKind::Table | FormKind::Columns) => "-".to_owned(),
            (Self::Nothing, _) => String::new(),
            (Self::Ours(word), _) => onward::complete(word),
            (Self::Said(said), FormKind::Table) => text::shown(said),
            (Self::Said(said), FormKind::Columns) => text::escaped(said),
            (Self::Said(said), _) => {
                let said = if terminal { text::shown_lines(said) } else { said.clone() };
                if exact { said } else { text::guarded(&said) }
            }
        }
    }
}

/// Standard output, in the form that was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    form: FormKind,
    exact: bool,
    terminal: bool,
    colour: bool,
    /// Who reads may go, and what follows is told all the same.
    verdict: bool,
}

impl Output {
    /// As the arguments and the terminal say.
    pub fn new(form: Form) -> Self {
        let terminal = io::stdout().is_terminal();
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            form: form.output.unwrap_or(if terminal { FormKind::Table } else { FormKind::Columns }),
            exact: form.exact,
            terminal,
            colour: terminal && !set("NO_COLOR") && !dumb,
            verdict: false,
        }
    }

    /// The same, before a verdict, which the exit code tells: a reader that has seen enough does not make it a yes.
    pub fn before_verdict(self) -> Self {
        Self { verdict: true, ..self }
    }

    fn told(self, written: io::Result<()>) -> Result<(), Failure> {
        match written {
            Err(error) if self.verdict && error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written.map_err(|e| Failure::of_output(&e)),
        }
    }

    /// Whether this answer is for a program.
    pub fn is_json(&self) -> bool {
        self.form == FormKind::Json
    }

    /// Whether this answer is for a person who reads it on a terminal.
    pub fn is_for_people(&self) -> bool {
        self.form == FormKind::Table
    }

    /// Rows, one after the other; all forms but the table keep none of them.
    pub fn rows<R: Row>(&self) -> Rows<R> {
        Rows::new(*self, Box::new(io::stdout()), None)
    }

    /// Rows of which there may be millions: a table holds all of its rows, so what becomes too long for one is columns.
    pub fn streamed<R: Row>(&self) -> Rows<R> {
        let mut rows = self.rows();
        if let Sink::Table { rows_max, .. } = &mut rows.sink {
            *rows_max = STREAMED_IN_A_TABLE_MAX;
        }
        rows
    }

    /// Rows into a file instead, whose path is for whoever is told that it cannot be written; what is a table or columns on
    /// standard output is JSON there.
    pub fn rows_into<R: Row>(&self, file: impl Write + 'static, path: &Path) -> Rows<R> {
        let form = if self.form == FormKind::Csv { FormKind::Csv } else { FormKind::Json };
        let output = Self { form, terminal: false, colour: false, ..*self };
        Rows::new(output, Box::new(file), Some(path.to_owned()))
    }

    /// All of these rows.
    pub fn all<R: Row>(&self, all: impl IntoIterator<Item = R>) -> Result<(), Failure> {
        let mut rows = self.rows();
        for row in all {
            rows.write(&row)?;
        }
        rows.end()
    }

    /// One thing, a line for each of its cells; JSON is one document.
    pub fn one<R: Row>(&self, row: &R) -> Result<(), Failure> {
        match self.form {
            FormKind::Json => self.document(row),
            FormKind::Csv => self.all_of(row),
            FormKind::Table | FormKind::Columns => {
                let cells = row.cells();
                let shown = cells.iter().map(|cell| cell.in_form(self.form, self.terminal, self.exact));
                let lines: String = if self.form == FormKind::Table {
                    trimmed(&self.upright(R::COLUMNS, shown)) + "\n"
                } else {
                    R::COLUMNS.iter().zip(shown).map(|(name, cell)| format!("{name}\t{cell}\n")).collect()
                };
                self.text(&lines)
            }
        }
    }

    fn all_of<R: Row>(&self, row: &R) -> Result<(), Failure> {
        let mut rows = self.rows();
        rows.write(row)?;
        rows.end()
    }

    /// One JSON document, for people with line breaks.
    pub fn document(&self, value: &impl Serialize) -> Result<(), Failure> {
        let document = if self.terminal { pretty(value) } else { json(value) };
        self.text(&(document + "\n"))
    }

    /// Text that is ours, as it is.
    pub fn text(&self, ours: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        self.told(out.write_all(ours.as_bytes()).and_then(|()| out.flush()))
    }

    /// Empties the terminal, for what is shown again and again; in a pipe one look follows the other.
    pub fn clear(&self) -> Result<(), Failure> {
        if self.terminal { self.text("\u{1b}[H\u{1b}[2J") } else { Ok(()) }
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        if !self.colour {
            table.force_no_tty();
        }
        if self.terminal {
            // Forcing no tty also hides the width, by which cells are wrapped.
            table.set_width(columns(&Term::stdout()).unwrap_or(COLUMNS_USUAL));
        }
        table
    }

    /// One row, a line for each of its cells.
    fn upright(&self, names: &[&str], cells: impl Iterator<Item = String>) -> Table {
        let mut table = self.table();
        for (name, cell) in names.iter().zip(cells) {
            table.add_row([self.strong(name), comfy_table::Cell::new(cell)]);
        }
        table
    }

    fn strong(&self, name: &str) -> comfy_table::Cell {
        let cell = comfy_table::Cell::new(name);
        if self.colour { cell.add_attribute(Attribute::Bold) } else { cell }
    }
}

/// Rows on their way out.
pub struct Rows<R> {
    output: Output,
    sink: Sink,
    /// `None`: standard output.
    path: Option<PathBuf>,
    row: PhantomData<fn(R)>,
}

enum Sink {
    Table { rows: Vec<Vec<Cell>>, rows_max: usize, out: Box<dyn Write> },
    Lines(Box<dyn Write>, bool),
    Csv(Box<csv::Writer<Box<dyn Write>>>, bool),
}

impl<R: Row> Rows<R> {
    fn new(output: Output, out: Box<dyn Write>, path: Option<PathBuf>) -> Self {
        let buffered: Box<dyn Write> = Box::new(BufWriter::new(out));
        let sink = match output.form {
            FormKind::Table => Sink::Table { rows: Vec::new(), rows_max: usize::MAX, out: buffered },
            FormKind::Csv => Sink::Csv(Box::new(csv::Writer::from_writer(buffered)), false),
            FormKind::Columns | FormKind::Json => Sink::Lines(buffered, false),
        };
        Self { output, sink, path, row: PhantomData }
    }

    /// One more.
    pub fn write(&mut self, row: &R) -> Result<(), Failure> {
        let written = self.put(row);
        told(self.output, self.path.as_deref(), written)
    }

    fn put(&mut self, row: &R) -> io::Result<()> {
        let Output { form, terminal, exact, .. } = self.output;
        let cells =
            || row.cells().into_iter().map(|cell| cell.in_form(form, terminal, exact)).collect::<Vec<_>>();
        match &mut self.sink {
            Sink::Table { rows, rows_max, .. } => {
                rows.push(row.cells());
                if rows.len() > *rows_max { self.go_on_in_columns() } else { Ok(()) }
            }
            Sink::Lines(out, headed) => {
                if form == FormKind::Json {
                    writeln!(out, "{}", json(row))
                } else {
                    let head = if *headed { Ok(()) } else { writeln!(out, "{}", R::COLUMNS.join("\t")) };
                    *headed = true;
                    head.and_then(|()| writeln!(out, "{}", cells().join("\t")))
                }
            }
            Sink::Csv(out, headed) => {
                if !*headed {
                    *headed = true;
                    out.write_record(R::COLUMNS).map_err(of_csv)?;
                }
                out.write_record(cells()).map_err(of_csv)
            }
        }
    }

    fn go_on_in_columns(&mut self) -> io::Result<()> {
        self.output.form = FormKind::Columns;
        let Output { form, terminal, exact, .. } = self.output;
        let columns = Sink::Lines(Box::new(io::sink()), true);
        let Sink::Table { rows, mut out, .. } = std::mem::replace(&mut self.sink, columns) else {
            return Ok(());
        };
        writeln!(out, "{}", R::COLUMNS.join("\t"))?;
        for row in rows {
            let cells: Vec<_> = row.iter().map(|cell| cell.in_form(form, terminal, exact)).collect();
            writeln!(out, "{}", cells.join("\t"))?;
        }
        self.sink = Sink::Lines(out, true);
        Ok(())
    }

    /// No more.
    pub fn end(self) -> Result<(), Failure> {
        let (output, path) = (self.output, self.path.clone());
        told(output, path.as_deref(), self.finish())
    }

    fn finish(self) -> io::Result<()> {
        let output = self.output;
        match self.sink {
            Sink::Table { rows, mut out, .. } => {
                let Output { form, terminal, exact, .. } = output;
                let cells: Vec<Vec<_>> = rows
                    .iter()
                    .map(|row| row.iter().map(|cell| cell.in_form(form, terminal, exact)).collect())
                    .collect();
                let mut table = output.table();
                if table.width().is_some_and(|width| breaks_words(R::COLUMNS, &cells, width.into())) {
                    for (nth, (row, shown)) in rows.iter().zip(cells).enumerate() {
                        let between = if nth == 0 { "" } else { "\n" };
                        let some = R::COLUMNS.iter().zip(row).zip(shown);
                        let (names, some): (Vec<_>, Vec<_>) = some
                            .filter(|((_, cell), _)| **cell != Cell::Nothing)
                            .map(|((name, _), shown)| (*name, shown))
                            .unzip();
                        let upright = output.upright(&names, some.into_iter());
                        writeln!(out, "{between}{}", trimmed(&upright))?;
                    }
                    return out.flush();
                }
                table.set_header(R::COLUMNS.iter().map(|name| output.strong(name)));
                table.add_rows(cells);
                writeln!(out, "{}", trimmed(&table)).and_then(|()| out.flush())
            }
            Sink::Lines(mut out, headed) => {
                // An empty list of columns still names them.
                let head = if headed || output.form == FormKind::Json {
                    Ok(())
                } else {
                    writeln!(out, "{}", R::COLUMNS.join("\t"))
                };
                head.and_then(|()| out.flush())
            }
            Sink::Csv(mut out, headed) => {
                if !headed {
                    out.write_record(R::COLUMNS).map_err(of_csv)?;
                }
                out.flush()
            }
        }
    }
}

/// What a writer of CSV failed with: as an error of I/O it would have lost its kind, by which a reader that is gone and a full
/// disk are known.
fn of_csv(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

fn told(output: Output, path: Option<&Path>, written: io::Result<()>) -> Result<(), Failure> {
    match path {
        None => output.told(written),
        Some(path) => written.map_err(|error| Failure::of_path(path, "written", &error)),
    }
}

/// Whether a table of this width would break words: nobody reads such a column, and a key in two halves cannot be copied.
fn breaks_words(names: &[&str], rows: &[Vec<String>], width: usize) -> bool {
    let longest = |cell: &str| cell.split_whitespace().map(|word| word.chars().count()).max().unwrap_or(0);
    let column = |nth: usize, name: &str| {
        // A blank on each side.
        2 + rows
            .iter()
            .filter_map(|row| row.get(nth))
            .map(|cell| longest(cell))
            .fold(longest(name), usize::max)
    };
    !rows.is_empty() && names.iter().enumerate().map(|(nth, name)| column(nth, name)).sum::<usize>() > width
}

/// Without the blanks that fill the last column.
fn trimmed(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// JSON on one line. It says exactly the same as always, but hazardous characters are written as escapes.
pub fn json(value: &impl Serialize) -> String {
    serialized(value, Safe(serde_json::ser::CompactFormatter))
}

fn pretty(value: &impl Serialize) -> String {
    serialized(value, Safe(serde_json::ser::PrettyFormatter::new()))
}

fn serialized<F: Formatter>(value: &impl Serialize, formatter: F) -> String {
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    // Our rows are plain structs with string keys, which always serialise, and memory takes every write.
    let _ = value.serialize(&mut serializer);
    String::from_utf8(bytes).unwrap_or_default()
}

/// Escapes what a terminal would obey. JSON itself only asks for the controls below U+0020.
struct Safe<F>(F);

/// Forwards to the formatter below, which knows the line breaks.
macro_rules! forward {
    ($($name:ident ( $($argument:ident : $of:ty),* ) ;)*) => {
        $(fn $name<W: ?Sized + Write>(&mut self, writer: &mut W, $($argument: $of),*) -> io::Result<()> {
            self.0.$name(writer, $($argument),*)
        })*
    };
}

impl<F: Formatter> Formatter for Safe<F> {
    forward! {
        begin_array();
        end_array();
        begin_array_value(first: bool);
        end_array_value();
        begin_object();
        end_object();
        begin_object_key(first: bool);
        end_object_key();
        begin_object_value();
        end_object_value();
        write_char_escape(escape: CharEscape);
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut plain_from = 0;
        for (at, c) in fragment.char_indices().filter(|(_, c)| text::is_hazardous(*c)) {
            writer.write_all(fragment.get(plain_from..at).unwrap_or_default().as_bytes())?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            plain_from = at + c.len_utf8();
        }
        writer.write_all(fragment.get(plain_from..).unwrap_or_default().as_bytes())
    }
}

/// How wide a terminal is. Some, say on a serial line or within `script`, say that they have no columns: nobody knows then.
pub fn columns(terminal: &Term) -> Option<u16> {
    terminal.size_checked().map(|(_, columns)| columns).filter(|columns| *columns > 0)
}

/// Tells a person something, on standard error, its commands complete. Where that is gone there is nobody to tell.
pub fn say(message: &str) {
    let shown = text::shown_lines(&onward::complete(message));
    let shown = match columns(&Term::stderr()) {
        Some(width) => text::wrapped(&shown, width.into()),
        None => shown,
    };
    let mut err = io::stderr().lock();
    let _ = writeln!(err, "{shown}");
}

/// A bar on standard error, by a template of indicatif; hidden where nobody looks.
pub fn progress(of: u64, template: &str) -> ProgressBar {
    // The templates are ours and right; without one the bar is plainer.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(of).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    #[derive(Serialize)]
    struct Example {
        reference: Option<&'static str>,
        calls: u32,
    }

    impl Row for Example {
        const COLUMNS: &'static [&'static str] = &["REFERENCE", "CALLS"];

        fn cells(&self) -> Vec<Cell> {
            vec![Cell::maybe_said(self.reference), Cell::ours(self.calls)]
        }
    }

    #[derive(Clone, Default)]
    struct Shared(Rc<RefCell<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(form: FormKind, exact: bool, terminal: bool, rows: &[Example]) -> String {
        let shared = Shared::default();
        let output = Output { form, exact, terminal, colour: false, verdict: false };
        let mut out = Rows::new(output, Box::new(shared.clone()), None);
        for row in rows {
            out.write(row).unwrap();
        }
        out.end().unwrap();
        let bytes = shared.0.borrow().clone();
        String::from_utf8(bytes).unwrap()
    }

    const HOSTILE: &[Example] = &[
        Example { reference: Some("=cmd|' /C calc'!A0"), calls: 1 },
        Example { reference: Some("a\u{1b}[2J\tb\n\"c\u{202e}\""), calls: 2 },
        Example { reference: None, calls: 3 },
    ];

    #[test]
    fn each_form_shows_the_same_rows_and_obeys_none_of_them() {
        for (form, exact, terminal, expected) in [
            (
                FormKind::Columns,
                false,
                false,
                "REFERENCE\tCALLS\n=cmd|' /C calc'!A0\t1\na\\u{1b}[2J\\tb\\n\"c\\u{202e}\"\t2\n-\t3\n",
            ),
            (
                FormKind::Json,
                false,
                false,
                "{\"reference\":\"=cmd|' /C calc'!A0\",\"calls\":1}\n{\"reference\":\"a\\u001b[2J\\tb\\n\\\"c\\u202e\\\"\",\"calls\":2}\n{\"reference\":null,\"calls\":3}\n",
            ),
            (
                FormKind::Csv,
                false,
                false,
                "REFERENCE,CALLS\n'=cmd|' /C calc'!A0,1\n\"a\u{1b}[2J\tb\n\"\"c\u{202e}\"\"\",2\n,3\n",
            ),
            (
                FormKind::Csv,
                true,
                true,
                "REFERENCE,CALLS\n=cmd|' /C calc'!A0,1\n\"a[2J b\n\"\"c\"\"\",2\n,3\n",
            ),
            (
                FormKind::Table,
                false,
                true,
                " REFERENCE           CALLS\n =cmd|' /C calc'!A0  1\n a[2J b \"c\"          2\n -                   3\n",
            ),
        ] {
            assert_eq!(written(form, exact, terminal, HOSTILE), expected, "{form:?}");
        }
    }

    #[test]
    fn a_table_that_becomes_too_long_goes_on_in_columns() {
        let shared = Shared::default();
        let output =
            Output { form: FormKind::Table, exact: false, terminal: true, colour: false, verdict: false };
        let mut out = Rows::new(output, Box::new(shared.clone()), None);
        if let Sink::Table { rows_max, .. } = &mut out.sink {
            *rows_max = 1;
        }
        for row in HOSTILE {
            out.write(row).unwrap();
        }
        out.end().unwrap();
        let bytes = shared.0.borrow().clone();
        assert_eq!(String::from_utf8(bytes).unwrap(), written(FormKind::Columns, false, true, HOSTILE));
    }

    #[test]
    fn an_empty_list_still_names_its_columns() {
        for (form, expected) in [
            (FormKind::Columns, "REFERENCE\tCALLS\n"),
            (FormKind::Csv, "REFERENCE,CALLS\n"),
            (FormKind::Json, ""),
            (FormKind::Table, " REFERENCE  CALLS\n"),
        ] {
            assert_eq!(written(form, false, false, &[]), expected, "{form:?}");
        }
    }

    #[test]
    fn json_says_the_same_whatever_is_escaped() {
        let text = "\u{9b}x\u{7f}\u{e0041}\u{2028}é\"\\\u{0}";
        let line = json(&serde_json::json!({ "a": text }));
        assert!(line.is_ascii() || !line.chars().any(text::is_hazardous), "{line:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap()["a"], text);
    }
}
