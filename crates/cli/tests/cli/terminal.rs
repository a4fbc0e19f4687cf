//! What a person sees on a terminal, of a given width.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::support::bare;

/// What the command writes to a terminal of this width, and its exit code.
fn on_a_terminal(columns: u16, args: &[&str], env: &[(&str, &str)]) -> (String, i32) {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let inside: OwnedFd = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap().into();
    tcsetwinsize(&inside, Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let other = || Stdio::from(inside.try_clone().unwrap());
    let mut command = bare(args);
    command.env("TERM", "xterm-256color").envs(env.iter().copied());
    let mut child = command.stdin(other()).stdout(other()).stderr(other()).spawn().unwrap();
    drop((command, inside));
    let mut shown = Vec::new();
    // A terminal whose last writer is gone ends with EIO instead of an end of file.
    let _ = File::from(terminal).read_to_end(&mut shown);
    (String::from_utf8(shown).unwrap(), child.wait().unwrap().code().unwrap())
}

#[test]
fn a_table_fits_into_a_terminal_of_sixty_columns() {
    let (shown, code) = on_a_terminal(60, &["task", "list"], &[("NO_COLOR", "1")]);
    assert_eq!(code, 0);
    assert!(!shown.contains('\u{1b}'), "NO_COLOR is kept: {shown:?}");
    assert!(
        shown.contains("categorize_ticket") && shown.lines().all(|line| line.chars().count() <= 60),
        "{shown}"
    );
}

#[test]
fn colour_is_for_terminals_alone() {
    let (shown, _) = on_a_terminal(100, &["task", "list"], &[]);
    assert!(shown.contains("\u{1b}[1m"), "{shown:?}");
    let (shown, _) = on_a_terminal(100, &["task", "list"], &[("TERM", "dumb")]);
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
}
