//! CSV, a record at a time, each with the line on which it begins.
//!
//! Cells are told apart as the `csv` crate does it (RFC 4180, and any of the three line ends). That crate cannot be asked
//! for the rest: it closes a quote that is still open at the end of the file without a word, counts line feeds alone,
//! and holds a record whatever its length.
//!
//! **Invariant:** of a record, and of a header, no more is held than the most bytes that one may have.

use std::io::{self, BufRead, BufReader, Read};

use csv::{ByteRecord, StringRecord};

/// What some programs write at the beginning of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Records on their way in.
pub struct Records<R> {
    read: BufReader<R>,
    bytes_max: u64,
    delimiter: u8,
    /// Where the next byte stands, from 1.
    line: u64,
    /// Whether a line feed would be the second half of a line end.
    after_return: bool,
}

/// The line on which a record begins, from 1, and its cells, or why they cannot be had.
pub type Record = (u64, Result<StringRecord, Fault>);

/// Why a record cannot be read. Those after it can, but for those that an open quote took in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It has more bytes than it may have.
    TooLong,
    /// It is in another encoding.
    NotUtf8,
    /// The file ends in a cell whose quote opens in this line.
    NeverClosed {
        /// From 1.
        opened: u64,
    },
    /// The quote of a cell closes in a later line, and the cell goes on: most likely it closes where another one opens.
    ClosedInside {
        /// The line of the first, from 1.
        opened: u64,
        /// The line of the second.
        closed: u64,
    },
}

impl<R: Read> Records<R> {
    /// The records of what is read, whose cells `delimiter` parts; those of more than `bytes_max` bytes, without their line
    /// end, are too long.
    pub fn new(read: R, bytes_max: u64, delimiter: u8) -> Self {
        let read = BufReader::with_capacity(64 * 1_024, read);
        Self { read, bytes_max, delimiter, line: 1, after_return: false }
    }

    /// The line that is read next, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The next record; `None` at the end. Blank lines are none, but counted.
    ///
    /// # Errors
    /// When the file itself cannot be read on.
    pub fn next(&mut self) -> io::Result<Option<Record>> {
        let mut record = Partial::new(self.bytes_max, self.delimiter);
        loop {
            let bytes = match self.read.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            if bytes.is_empty() {
                return Ok(record.ended_with_the_file());
            }
            let mut used = 0;
            let mut is_whole = false;
            for byte in bytes {
                used += 1;
                let line = self.line;
                self.line += u64::from(*byte == b'\r' || (*byte == b'\n' && !self.after_return));
                self.after_return = *byte == b'\r';
                is_whole = record.take(*byte, line);
                if is_whole {
                    break;
                }
            }
            self.read.consume(used);
            if is_whole {
                return Ok(record.ended());
            }
        }
    }
}

/// Where in a record the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    CellStart,
    /// In a cell, where a quote is a character like others.
    Bare,
    Quoted,
    /// After a quote in a quoted cell: it is doubled, or closes.
    AfterQuote,
}

/// A record that is being read.
#[derive(Debug)]
struct Partial {
    /// The line of its first byte.
    begins: Option<u64>,
    at: At,
    /// The line in which the last quote opened.
    opened: u64,
    bytes: u64,
    bytes_max: u64,
    delimiter: u8,
    cell: Vec<u8>,
    cells: ByteRecord,
    fault: Option<Fault>,
}

impl Partial {
    fn new(bytes_max: u64, delimiter: u8) -> Self {
        Self {
            begins: None,
            at: At::CellStart,
            opened: 0,
            bytes: 0,
            bytes_max,
            delimiter,
            cell: Vec::new(),
            cells: ByteRecord::new(),
            fault: None,
        }
    }

    /// Takes a byte that stands in this line; whether the record ends with it.
    fn take(&mut self, byte: u8, line: u64) -> bool {
        if matches!(byte, b'\r' | b'\n') && self.at != At::Quoted {
            return self.begins.is_some();
        }
        self.begins.get_or_insert(line);
        self.bytes += 1;
        match (self.at, byte) {
            (At::CellStart, b'"') => {
                self.at = At::Quoted;
                self.opened = line;
            }
            (At::Quoted, b'"') => self.at = At::AfterQuote,
            (At::AfterQuote, b'"') => {
                self.at = At::Quoted;
                self.hold(byte);
            }
            (At::Quoted, _) => self.hold(byte),
            (_, byte) if byte == self.delimiter => {
                self.at = At::CellStart;
                self.end_cell();
            }
            (at, _) => {
                if at == At::AfterQuote && self.opened < line {
                    let fault = Fault::ClosedInside { opened: self.opened, closed: line };
                    self.fault.get_or_insert(fault);
                }
                self.at = At::Bare;
                self.hold(byte);
                if line == 1 && self.cells.is_empty() && self.cell == BYTE_ORDER_MARK {
                    *self = Self::new(self.bytes_max, self.delimiter);
                }
            }
        }
        false
    }

    fn is_too_long(&self) -> bool {
        self.bytes > self.bytes_max
    }

    fn hold(&mut self, byte: u8) {
        if !self.is_too_long() {
            self.cell.push(byte);
        }
    }

    fn end_cell(&mut self) {
        if !self.is_too_long() {
            self.cells.push_field(&self.cell);
        }
        self.cell.clear();
    }

    fn ended(mut self) -> Option<Record> {
        let begins = self.begins?;
        self.end_cell();
        let cells = if let Some(fault) = self.fault {
            Err(fault)
        } else if self.is_too_long() {
            Err(Fault::TooLong)
        } else {
            StringRecord::from_byte_record(self.cells).map_err(|_| Fault::NotUtf8)
        };
        Some((begins, cells))
    }

    fn ended_with_the_file(mut self) -> Option<Record> {
        if self.at == At::Quoted {
            self.fault = Some(Fault::NeverClosed { opened: self.opened });
        }
        self.ended()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8], bytes_max: u64) -> Vec<Record> {
        let mut records = Records::new(text, bytes_max, b',');
        std::iter::from_fn(|| records.next().unwrap()).collect()
    }

    /// Every text of so many characters that matter.
    fn texts(characters: u32) -> impl Iterator<Item = String> {
        const MATTER: [char; 5] = ['a', ',', '"', '\n', '\r'];
        (0..MATTER.len().pow(characters)).map(move |text| {
            (0..characters).map(|at| MATTER[text / MATTER.len().pow(at) % MATTER.len()]).collect()
        })
    }

    #[test]
    fn cells_are_told_apart_as_the_csv_crate_does_it() {
        for text in (0..=6).flat_map(texts) {
            let theirs: Vec<_> = csv::ReaderBuilder::new()
                .flexible(true)
                .has_headers(false)
                .from_reader(text.as_bytes())
                .into_records()
                .map(Result::unwrap)
                .collect();
            let ours = all(text.as_bytes(), 100);
            assert_eq!(ours.len(), theirs.len(), "{text:?}");
            for ((line, ours), theirs) in ours.into_iter().zip(theirs) {
                match ours {
                    Ok(ours) => assert_eq!(ours, theirs, "{text:?}"),
                    Err(Fault::NeverClosed { opened }) => assert!(opened >= line, "{text:?}"),
                    Err(Fault::ClosedInside { opened, closed }) => {
                        assert!(opened >= line && closed > opened, "{text:?}");
                    }
                    Err(fault) => panic!("{text:?}: {fault:?}"),
                }
            }
        }
    }

    #[test]
    fn no_two_records_have_one_number() {
        for text in (0..=6).flat_map(texts) {
            let lines: Vec<_> = all(text.as_bytes(), 100).into_iter().map(|(line, _)| line).collect();
            assert!(lines.is_sorted_by(|one, next| one < next), "{text:?}: {lines:?}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_cell_however_it_arrives() {
        struct ByteByByte<'a>(&'a [u8]);
        impl Read for ByteByByte<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0.read(&mut buffer[..1])
            }
        }
        let text = "\u{feff}\"a\",b\n\u{feff}c,\"d\"\n";
        for mut records in [
            Records::new(Box::new(text.as_bytes()) as Box<dyn Read>, 100, b','),
            Records::new(Box::new(ByteByByte(text.as_bytes())), 100, b','),
        ] {
            assert_eq!(records.next().unwrap(), Some((1, Ok(StringRecord::from(vec!["a", "b"])))));
            assert_eq!(records.next().unwrap(), Some((2, Ok(StringRecord::from(vec!["\u{feff}c", "d"])))));
            assert_eq!(records.next().unwrap(), None);
        }
    }

    #[test]
    fn the_longest_record_is_read_and_one_byte_more_is_too_long() {
        let cells = |cells: &[&str]| Ok(StringRecord::from(cells.to_vec()));
        assert_eq!(
            all(b"ab,\"c\"\r\nab,\"cd\"\r\n\xff\r\n1,2,3,4,5\nab,cdef", 6),
            [
                (1, cells(&["ab", "c"])),
                (2, Err(Fault::TooLong)),
                (3, Err(Fault::NotUtf8)),
                (4, Err(Fault::TooLong)),
                (5, Err(Fault::TooLong)),
            ]
        );
    }

    /// Counts what is asked of a text without an end, whose quote is never closed.
    struct Endless {
        given: u64,
        until: u64,
    }

    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let left = usize::try_from(self.until - self.given).unwrap();
            let some = left.min(buffer.len());
            buffer[..some].fill(b'x');
            if self.given == 0 {
                buffer[0] = b'"';
            }
            self.given += some as u64;
            Ok(some)
        }
    }

    #[test]
    fn what_is_held_does_not_grow_with_what_is_read() {
        const MOST: u64 = 4_096;
        let mut endless = Endless { given: 0, until: 8 << 20 };
        let mut record = Partial::new(MOST, b',');
        let mut bytes = BufReader::new(&mut endless).bytes().map(Result::unwrap);
        let mut held = 0;
        assert!(!bytes.any(|byte| {
            let ends = record.take(byte, 1);
            held = held.max(record.cell.capacity() + record.cells.as_slice().len());
            ends
        }));
        assert!(held as u64 <= 2 * MOST, "{held} bytes");
        // As many cells, and none of them has an end that counts.
        let mut record = Partial::new(MOST, b',');
        for byte in b"x,".iter().cycle().take(1 << 20) {
            record.take(*byte, 1);
        }
        assert!(record.cells.len() as u64 <= MOST && record.cells.as_slice().len() as u64 <= MOST);

        let mut endless = Endless { given: 0, until: 8 << 20 };
        let mut records = Records::new(&mut endless, MOST, b',');
        assert_eq!(records.next().unwrap(), Some((1, Err(Fault::NeverClosed { opened: 1 }))));
        assert_eq!(records.next().unwrap(), None);
        assert_eq!(endless.given, 8 << 20, "the quote might have been closed at the very end");
    }
}
