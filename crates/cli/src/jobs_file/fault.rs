//! Why a line, or the rest of a file, cannot be read.

use std::io;

use super::csv_records::Fault;
use crate::error::Failure;

/// Longer lines are not jobs: SQS takes no message over 1 MiB (Amazon SQS message quotas).
pub const LINE_BYTES_MAX: u64 = 1_048_576;

/// The file ends here for us.
pub fn unreadable(number: u64, error: &io::Error) -> Failure {
    Failure::failed(format!("The file cannot be read on at line {number}: {error}."))
}

/// Of a file that is read as JSONL, by what stands between the cells of its first line.
pub fn like_csv(delimiter: char, is_utf8: bool) -> Failure {
    let save = if is_utf8 { "" } else { "save it as UTF-8, and " };
    let option = match delimiter {
        ';' => " --delimiter ';',",
        '\t' => " --delimiter $'\\t',",
        _ => "",
    };
    Failure::usage(format!(
        "The first line is no JSON and reads like the header of CSV: where it is one, {save}give --csv,{option} and --task with the task of its inputs; where not, mend it."
    ))
}

/// Of a line.
pub fn too_long() -> String {
    format!(
        "The line has more than {LINE_BYTES_MAX} bytes, and SQS takes no longer message: send less text, or a reference to it."
    )
}

/// Of a line.
pub fn not_utf8() -> String {
    "The line is not UTF-8: save the file as UTF-8.".to_owned()
}

/// Of a record of CSV.
pub fn of_csv(fault: Fault) -> String {
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
