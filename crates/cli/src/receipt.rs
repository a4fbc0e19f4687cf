//! The receipt of an `enqueue`: which line became which message. It makes the command resumable, and `reconcile` reads it.
//!
//! A file of JSON lines that only grows: a head, then for each batch what is about to be sent and, after it, what SQS
//! took. So after a kill it says of each line that it was sent, that it was not, or that it may have been.
//!
//! **Invariant:** no body stands in it, and nothing is sent whose line does not stand in it as about to be sent.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::files;
use crate::text;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The form of the file.
    pub receipt: u32,
    /// Where it was sent.
    pub queue_url: String,
    /// SHA-256 of the whole file that was sent.
    pub source_sha256: String,
    /// Lines of that file, without blank ones: each is sent or stands here as one that is not.
    pub lines: u64,
    /// When, in milliseconds since 1970.
    pub began_ms: u64,
    /// By which options its lines became jobs; an earlier release did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_as: Option<Vec<String>>,
}

/// What a job that is sent twice costs.
pub const SECOND_COPY: &str = "a second copy costs no call where its result stands, and is worked on again where its job has failed since, or the prompt, the schema or the model is another one";

/// The form that is written, and the only one that is read.
const FORM: u32 = 1;

/// One further line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Entry {
    /// These lines are about to be sent.
    Sending {
        /// Their numbers.
        sending: Vec<u64>,
    },
    /// SQS took this line.
    Sent {
        /// Its number.
        line: u64,
        /// The key of its record.
        key: String,
        /// SQS's id of the message.
        message_id: String,
        /// When, by this machine's clock, in milliseconds since 1970.
        sent_ms: u64,
    },
    /// This line is not sent, because a worker, or SQS, would refuse it. A later build may send it all the same.
    Bad {
        /// Its number.
        line: u64,
        /// In one word.
        not_sent: String,
    },
}

/// What an open receipt already says.
#[derive(Debug, Default)]
pub struct Before {
    sent: Bits,
    sending: Bits,
    bad: Bits,
}

impl Before {
    /// Whether SQS took this line.
    pub fn is_sent(&self, line: u64) -> bool {
        self.sent.has(line)
    }

    /// Whether it was about to be sent, and nobody wrote how that ended.
    pub fn may_be_sent(&self, line: u64) -> bool {
        self.sending.has(line) && !self.sent.has(line)
    }

    /// Whether it stands there as not sendable.
    pub fn is_bad(&self, line: u64) -> bool {
        self.bad.has(line)
    }

    /// Whether it says anything of any line.
    pub fn is_begun(&self) -> bool {
        [&self.sent, &self.sending, &self.bad].iter().any(|lines| lines.count() > 0)
    }

    /// How many lines SQS took.
    pub fn sent(&self) -> u64 {
        self.sent.count()
    }
}

/// A set of line numbers: a bit each, so that a million lines are 122 KiB.
#[derive(Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn add(&mut self, number: u64) {
        let (word, bit) = (usize::try_from(number / 64).unwrap_or(usize::MAX), number % 64);
        // What is no line of a file that fits onto a disk is no line.
        if word > LINES_MAX / 64 {
            return;
        }
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        if let Some(word) = self.0.get_mut(word) {
            *word |= 1 << bit;
        }
    }

    fn has(&self, number: u64) -> bool {
        let word = usize::try_from(number / 64).ok().and_then(|word| self.0.get(word));
        word.is_some_and(|word| word & (1 << (number % 64)) != 0)
    }

    /// How many of these numbers are not among those.
    fn count_without(&self, those: &Self) -> u64 {
        let those = those.0.iter().copied().chain(std::iter::repeat(0));
        self.0.iter().zip(those).map(|(word, those)| u64::from((word & !those).count_ones())).sum()
    }

    fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

/// The most lines of one file: 128 MiB of bits.
const LINES_MAX: usize = 1 << 30;

/// A receipt that is being written. While it is open nobody else can write to it.
#[derive(Debug)]
pub struct Receipt {
    path: PathBuf,
    file: File,
}

impl Receipt {
    /// What a receipt says of this file, where there is one yet; nothing is written.
    ///
    /// # Errors
    /// When it is the receipt of something else.
    pub fn peek(path: &Path, head: &Head) -> Result<Before, Failure> {
        match OpenOptions::new().read(true).custom_flags(no_link()).open(path) {
            Ok(file) => {
                Ok(read_before(path, &file, head)?.map_or_else(Before::default, |(before, _)| before))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Before::default()),
            Err(error) => Err(Failure::of_path(path, "opened", &error)),
        }
    }

    /// Opens the receipt of this file, or begins it.
    ///
    /// # Errors
    /// When it is the receipt of something else, or somebody else is writing to it.
    pub fn open(path: &Path, head: &Head) -> Result<(Self, Before), Failure> {
        let opened = open_private(path).map_err(|error| Failure::of_path(path, "opened", &error))?;
        Self::begin(path, opened, head)
    }

    /// Whoever created it may not be the first who locks it, so what stands in it is read in any case.
    fn begin(path: &Path, file: File, head: &Head) -> Result<(Self, Before), Failure> {
        let mut receipt = Self { path: path.to_owned(), file };
        receipt.lock()?;
        let Some((before, torn)) = read_before(path, &receipt.file, head)? else {
            // It is new, or what was cut off in its head says nothing: nothing was sent yet.
            receipt.file.set_len(0).map_err(|error| receipt.failed(&error))?;
            receipt.write_line(head)?;
            return Ok((receipt, Before::default()));
        };
        if torn {
            // What a kill cut off becomes a line of its own, which nobody can read and nobody needs.
            receipt.file.write_all(b"\n").map_err(|error| receipt.failed(&error))?;
        }
        Ok((receipt, before))
    }

    fn lock(&self) -> Result<(), Failure> {
        match self.file.try_lock() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => Err(Failure::failed(format!(
                "Another nightshift is writing to {}: wait for it, or stop it.",
                self.path.display()
            ))),
            Err(TryLockError::Error(error)) => Err(Failure::of_path(&self.path, "locked", &error)),
        }
    }

    /// Writes entries, all of them in one write.
    pub fn write(&mut self, entries: &[Entry]) -> Result<(), Failure> {
        self.note(entries).1
    }

    /// Writes entries; returns beside a failure how many of them stand in it all the same.
    pub fn note(&mut self, entries: &[Entry]) -> (usize, Result<(), Failure>) {
        let mut text = Vec::new();
        for entry in entries {
            // Plain structs always serialise, and memory takes every write.
            let _ = serde_json::to_writer(&mut text, entry);
            text.push(b'\n');
        }
        let began = self.length();
        match self.file.write_all(&text) {
            Ok(()) => (entries.len(), Ok(())),
            Err(error) => (self.cut_to_whole_lines(began, &text), Err(self.failed(&error))),
        }
    }

    fn length(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    /// After a write that ended in the middle: how many of its lines stand. The one that was cut off is taken away, since what
    /// is written next would become a part of it.
    fn cut_to_whole_lines(&self, began: u64, text: &[u8]) -> usize {
        let written = usize::try_from(self.length().saturating_sub(began)).unwrap_or_default();
        let written = text.get(..written).unwrap_or(text);
        let whole = written.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        // Where that fails too, it stays a line that nobody can read.
        let _ = self.file.set_len(began + whole as u64);
        written.iter().filter(|byte| **byte == b'\n').count()
    }

    fn write_line(&mut self, head: &Head) -> Result<(), Failure> {
        let line = serde_json::to_string(head).unwrap_or_default() + "\n";
        self.file.write_all(line.as_bytes()).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &io::Error) -> Failure {
        Failure::of_path(&self.path, "written", error)
    }
}

/// For appending, and created where it is missing; only its owner may read it then.
fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o600).custom_flags(no_link()).open(path)
}

fn no_link() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()
}

/// What stands in a receipt, and whether its last line is torn; `None` where its head is not whole.
fn read_before(path: &Path, file: &File, head: &Head) -> Result<Option<(Before, bool)>, Failure> {
    let mut before = Before::default();
    let Some(mut entries) = read_from(path, file)? else { return Ok(None) };
    if entries.head.source_sha256 != head.source_sha256 {
        return Err(Failure::usage(format!(
            "{} is the receipt of another file, or of this one before it was changed. Of this one, enqueue the lines that were mended or added as a file of their own; with another --receipt all of its lines are sent, and of one that was sent before {SECOND_COPY}.",
            path.display()
        )));
    }
    if entries.head.queue_url != head.queue_url {
        return Err(Failure::usage(format!(
            "{} is the receipt of what was sent to {}: name that stack, or another --receipt.",
            path.display(),
            entries.head.queue_url
        )));
    }
    if let (Some(theirs), Some(ours)) = (&entries.head.read_as, &head.read_as)
        && as_read(theirs) != as_read(ours)
    {
        let options = if theirs.is_empty() {
            "without options".to_owned()
        } else {
            format!("with {}", theirs.join(" "))
        };
        return Err(Failure::usage(format!(
            "{} is the receipt of this file read {}: give the same options, or name another --receipt to send other jobs.",
            path.display(),
            text::shown(&options)
        )));
    }
    while let Some(entry) = entries.next()? {
        match entry {
            Entry::Sending { sending } => sending.into_iter().for_each(|line| before.sending.add(line)),
            Entry::Sent { line, .. } => before.sent.add(line),
            Entry::Bad { line, .. } => before.bad.add(line),
        }
    }
    Ok(Some((before, entries.torn)))
}

/// The options of a reading, in an order of their own and without what holds by itself: a release of before wrote them as
/// they were given.
fn as_read(options: &[String]) -> Vec<(&str, Option<&str>)> {
    let mut options = options.iter().map(String::as_str);
    let mut read = Vec::new();
    while let Some(name) = options.next() {
        // It alone has no value.
        let value = if name == "--csv" { None } else { options.next() };
        if (name, value) != ("--delimiter", Some(",")) {
            read.push((name, value));
        }
    }
    read.sort_unstable();
    read
}

/// The head for what is sent now; its lines are counted, and how they are read is told, later.
pub fn head(queue_url: &str, source_sha256: String, began_ms: u64) -> Head {
    Head { receipt: FORM, queue_url: queue_url.to_owned(), source_sha256, lines: 0, began_ms, read_as: None }
}

/// The entries of a receipt, one after the other.
#[derive(Debug)]
pub struct Entries {
    /// The first line.
    pub head: Head,
    /// How many lines were about to be sent, and nobody wrote how that ended.
    pub perhaps: u64,
    path: PathBuf,
    lines: BufReader<File>,
    torn: bool,
    /// How many were read.
    number: u64,
    /// Of lines of which more than one entry tells, the number of the latest: 16 bytes for each such line.
    latest: BTreeMap<u64, u64>,
}

/// Opens a receipt for reading. Of a line that was left out and then sent, or left out twice, the latest entry alone is
/// read, so the file is read through once before.
pub fn read(path: &Path) -> Result<Entries, Failure> {
    let file = files::open(path)?;
    let mut entries = read_begun(path, &file)?;
    let (mut sending, mut told, mut latest) = (Bits::default(), Bits::default(), BTreeMap::new());
    while let Some(entry) = entries.next()? {
        match entry {
            Entry::Sending { sending: lines } => lines.into_iter().for_each(|line| sending.add(line)),
            Entry::Sent { line, .. } | Entry::Bad { line, .. } => {
                if told.has(line) {
                    latest.insert(line, entries.number);
                }
                told.add(line);
            }
        }
    }
    Ok(Entries { perhaps: sending.count_without(&told), latest, ..read_begun(path, &file)? })
}

fn read_begun(path: &Path, file: &File) -> Result<Entries, Failure> {
    read_from(path, file)?.ok_or_else(|| {
        Failure::no(format!(
            "{} was cut off in its first line, before anything was sent: run the same `nightshift enqueue` again.",
            path.display()
        ))
    })
}

/// The entries of a receipt; `None` where a kill or a full disk came before its head was whole, and so before anything
/// was sent.
fn read_from(path: &Path, file: &File) -> Result<Option<Entries>, Failure> {
    let failed = |error: io::Error| Failure::of_path(path, "read", &error);
    let mut file = file.try_clone().map_err(failed)?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    let mut lines = BufReader::new(file);
    let mut first = Vec::new();
    lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut first).map_err(failed)?;
    if is_cut_off(&first) {
        return Ok(None);
    }
    let head = serde_json::from_slice::<Head>(&first).ok().filter(|head| head.receipt == FORM);
    let head = head.ok_or_else(|| {
        Failure::usage(format!(
            "{} is no receipt of `nightshift enqueue`: name the file that it wrote.",
            path.display()
        ))
    })?;
    let path = path.to_owned();
    Ok(Some(Entries { head, perhaps: 0, path, lines, torn: false, number: 0, latest: BTreeMap::new() }))
}

/// Whether it is a head without its end, and not the file of somebody else.
fn is_cut_off(first: &[u8]) -> bool {
    let begins = format!("{{\"receipt\":{FORM},\"queue_url\":\"");
    let begins = begins.as_bytes();
    first.last() != Some(&b'\n') && (begins.starts_with(first) || first.starts_with(begins))
}

/// A line of a receipt: ten numbers, or a key and an id.
const LINE_BYTES_MAX: u64 = 64 * 1_024;

impl Entries {
    /// The next one. A line that a kill cut off is passed over.
    pub fn next(&mut self) -> Result<Option<Entry>, Failure> {
        loop {
            let mut line = Vec::new();
            let read = self.lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
            if read.map_err(|error| Failure::of_path(&self.path, "read", &error))? == 0 {
                return Ok(None);
            }
            self.torn = line.last() != Some(&b'\n');
            let Ok(entry) = serde_json::from_slice(&line) else { continue };
            self.number += 1;
            if self.is_latest(&entry) {
                return Ok(Some(entry));
            }
        }
    }

    fn is_latest(&self, entry: &Entry) -> bool {
        match entry {
            Entry::Sending { .. } => true,
            Entry::Sent { line, .. } | Entry::Bad { line, .. } => {
                self.latest.get(line).is_none_or(|latest| *latest == self.number)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(line: u64) -> Entry {
        Entry::Sent { line, key: "k".repeat(64), message_id: format!("m-{line}"), sent_ms: 5 }
    }

    #[test]
    fn a_receipt_says_what_was_sent_what_may_have_been_and_what_was_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jobs.receipt");
        let head = head("http://q", "abc".to_owned(), 1);
        let (mut receipt, before) = Receipt::open(&path, &head).unwrap();
        assert_eq!(before.sent(), 0);
        receipt
            .write(&[
                Entry::Sending { sending: vec![1, 2, 70] },
                sent(1),
                sent(70),
                Entry::Bad { line: 3, not_sent: "invalid_input".to_owned() },
            ])
            .unwrap();
        assert_eq!(Receipt::open(&path, &head).unwrap_err().exit_code(), 1, "one at a time");
        drop(receipt);
        // A kill in the middle of a line.
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"line\":2,\"key\":\"k").unwrap();
        for _ in 0..2 {
            let (mut receipt, before) = Receipt::open(&path, &head).unwrap();
            let of = |line| (before.is_sent(line), before.may_be_sent(line), before.is_bad(line));
            assert_eq!(
                [of(1), of(2), of(3), of(4)],
                [(true, false, false), (false, true, false), (false, false, true), (false, false, false)]
            );
            assert!(before.is_sent(70) && !before.is_sent(134));
            receipt.write(&[sent(4)]).unwrap();
            drop(receipt);
            let mut entries = read(&path).unwrap();
            assert_eq!(entries.head, head);
            let mut last = None;
            while let Some(entry) = entries.next().unwrap() {
                last = Some(entry);
            }
            assert_eq!(last, Some(sent(4)), "what follows a torn line is read");
            // Once more from the state before.
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, text.split("{\"line\":4").next().unwrap()).unwrap();
        }
    }

    #[test]
    fn the_latest_entry_of_a_line_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jobs.receipt");
        let (mut receipt, _) = Receipt::open(&path, &head("http://q", "abc".to_owned(), 1)).unwrap();
        let bad = |line, why: &str| Entry::Bad { line, not_sent: why.to_owned() };
        let sending = Entry::Sending { sending: vec![1, 2, 3, 5] };
        let all =
            [bad(2, "old"), bad(3, "old"), sending.clone(), sent(1), bad(3, "new"), sent(2), bad(4, "x")];
        receipt.write(&all).unwrap();
        let mut entries = read(&path).unwrap();
        assert_eq!(entries.perhaps, 1, "of line 5 nothing was told");
        let told: Vec<_> = std::iter::from_fn(|| entries.next().unwrap()).collect();
        assert_eq!(told, [sending, sent(1), bad(3, "new"), sent(2), bad(4, "x")]);
    }

    #[test]
    fn a_receipt_whose_head_is_not_whole_counts_as_not_begun() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jobs.receipt");
        let head = head("http://q", "abc".to_owned(), 1);
        drop(Receipt::open(&path, &head).unwrap());
        let whole = std::fs::read_to_string(&path).unwrap();
        for kept in 0..whole.len() {
            std::fs::write(&path, &whole.as_bytes()[..kept]).unwrap();
            assert_eq!(Receipt::peek(&path, &head).unwrap().sent(), 0);
            assert_eq!(read(&path).unwrap_err().exit_code(), 3, "{kept}");
            let (mut receipt, before) = Receipt::open(&path, &head).unwrap();
            assert_eq!(before.sent(), 0);
            receipt.write(&[sent(1)]).unwrap();
            drop(receipt);
            assert!(std::fs::read_to_string(&path).unwrap().starts_with(&whole), "{kept}");
            assert!(Receipt::peek(&path, &head).unwrap().is_sent(1), "{kept}");
        }
        for other in ["x", "{\"receipt\":2", "{}", "\n", "{\"receipt\":1,\"queue_url\":\"\n"] {
            std::fs::write(&path, other).unwrap();
            assert_eq!(Receipt::open(&path, &head).unwrap_err().exit_code(), 2, "{other:?}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), other, "nothing is overwritten");
        }
    }

    #[test]
    fn who_created_a_receipt_and_locks_it_after_another_writes_over_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jobs.receipt");
        let head = head("http://q", "abc".to_owned(), 1);
        let created = open_private(&path).unwrap();
        let (mut other, _) = Receipt::open(&path, &head).unwrap();
        other.write(&[sent(1)]).unwrap();
        drop(other);
        let whole = std::fs::read_to_string(&path).unwrap();
        let (mut late, before) = Receipt::begin(&path, created, &head).unwrap();
        assert!(before.is_sent(1));
        late.write(&[sent(2)]).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().starts_with(&whole));
    }

    #[test]
    fn the_receipt_of_something_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jobs.receipt");
        let mine = head("http://q", "abc".to_owned(), 1);
        drop(Receipt::open(&path, &mine).unwrap());
        for other in [
            Head { source_sha256: "def".to_owned(), ..mine.clone() },
            Head { queue_url: "http://r".to_owned(), ..mine.clone() },
        ] {
            assert_eq!(Receipt::open(&path, &other).unwrap_err().exit_code(), 2);
        }
        std::fs::write(&path, "{\"task\":\"t\"}\n").unwrap();
        assert_eq!(Receipt::open(&path, &mine).unwrap_err().exit_code(), 2);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(Receipt::open(&link, &mine).is_err(), "no link is followed");
    }
}
