//! What a person sees on a terminal, of a given width.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::reviewing::REPORT;
use crate::support::{Stand, bare, write};

/// A terminal of this width, and what is inside of it.
fn terminal(columns: u16) -> (File, OwnedFd) {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let inside: OwnedFd = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap().into();
    tcsetwinsize(&inside, Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    (File::from(terminal), inside)
}

/// What a terminal shows until it shows this.
fn until(terminal: &mut File, wanted: &str) -> Vec<u8> {
    let (mut said, mut some) = (Vec::new(), [0; 1_024]);
    while !String::from_utf8_lossy(&said).contains(wanted) {
        let read = terminal.read(&mut some).unwrap();
        said.extend_from_slice(&some[..read]);
    }
    said
}

/// What the command writes to a terminal of this width, and its exit code; where it was sent elsewhere before, not that.
pub fn on_a_terminal(columns: u16, command: &mut Command) -> (String, i32) {
    let (mut terminal, inside) = terminal(columns);
    let mut child = command.stdout(inside).spawn().unwrap();
    // What the child was given stays open here for as long as it could be started once more.
    command.stdout(Stdio::null());
    let mut shown = Vec::new();
    // A terminal whose last writer is gone ends with EIO instead of an end of file.
    let _ = terminal.read_to_end(&mut shown);
    (String::from_utf8(shown).unwrap(), child.wait().unwrap().code().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_at_a_question_ends_it_and_the_terminal_shows_again_what_is_typed() {
    for (args, question) in [
        (&["pause", "--reason", "x"][..], "Go on? [y/N] "),
        (&["key", "set", "--reason", "x", "--yes"], "Model key (it is not shown): "),
    ] {
        let stand = Stand::start().await;
        let (mut terminal, inside) = terminal(80);
        let other = || Stdio::from(inside.try_clone().unwrap());
        let mut child = stand.command(args).stdin(other()).stdout(other()).stderr(other()).spawn().unwrap();
        let (said, code) = tokio::task::block_in_place(|| {
            let (mut said, mut some) = (until(&mut terminal, question), [0; 1_024]);
            let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
            kill_process(pid, Signal::INT).unwrap();
            let code = child.wait().unwrap().code();
            let read = terminal.read(&mut some).unwrap();
            said.extend_from_slice(&some[..read]);
            (String::from_utf8(said).unwrap(), code)
        });
        assert_eq!(code, Some(130), "{said}");
        assert!(tcgetattr(&inside).unwrap().local_modes.contains(LocalModes::ECHO), "{args:?}");
        assert!(stand.is_on() && stand.items("").is_empty(), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_in_an_editor_is_the_editor_s_and_at_the_question_after_it_nothing_was_changed() {
    let stand = Stand::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (begun, go_on) = (folder.path().join("begun"), folder.path().join("go-on"));
    let script = format!(
        "trap : INT; touch {begun}; until [ -e {go_on} ]; do sleep 0.02; done; rm {begun} {go_on}; printf '%s' '{REPORT}' > \"$1\"\n",
        begun = begun.display(),
        go_on = go_on.display()
    );
    let editor = format!("sh {}", write(folder.path(), "editor", &script));
    for (notes, is_meant) in [("stopped", false), ("edited", true)] {
        let key = stand.waits(notes).await;
        let (mut terminal, inside) = terminal(80);
        let other = || Stdio::from(inside.try_clone().unwrap());
        let mut command = stand.command(&["review", "edit", &key, "--reason", "x"]);
        // As on a terminal, all that it started hears Ctrl-C, too.
        command.process_group(0).env("EDITOR", &editor).stdin(other()).stdout(other()).stderr(other());
        let mut child = command.spawn().unwrap();
        drop(command);
        drop(inside);
        let (said, code) = tokio::task::block_in_place(|| {
            let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
            while !begun.exists() {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            for _ in 0..2 {
                kill_process_group(pid, Signal::INT).unwrap();
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            std::fs::write(&go_on, "").unwrap();
            let mut said = until(&mut terminal, "Go on? [y/N] ");
            if is_meant {
                terminal.write_all(b"y\n").unwrap();
            } else {
                kill_process_group(pid, Signal::INT).unwrap();
            }
            let _ = terminal.read_to_end(&mut said);
            (String::from_utf8(said).unwrap(), child.wait().unwrap().code())
        });
        assert_eq!(code, Some(if is_meant { 0 } else { 130 }), "{said}");
        assert_eq!(said.contains("Interrupted; nothing was changed."), !is_meant, "{said}");
        let (version, traces) = if is_meant { (4, 1) } else { (3, 0) };
        assert_eq!(
            (stand.stood(notes).await.version, stand.items("trace#").len()),
            (version, traces),
            "{said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_appended_to_a_file_while_somebody_reads_its_price_is_not_sent() {
    let stand = Stand::start().await;
    let folder = tempfile::tempdir().unwrap();
    let job = |n: u32| format!("{{\"task\":\"categorize_ticket\",\"input\":{{\"text\":\"Ticket {n}\"}}}}\n");
    for (name, args, before, after) in [
        ("jobs.jsonl", &["enqueue"][..], job(1) + &job(2), job(3)),
        // The last line is not at its end yet, and what is read of it is what was asked about.
        (
            "tickets.csv",
            &["enqueue", "--task", "categorize_ticket"],
            "text\nfour\nfive".to_owned(),
            " more\nsix\n".to_owned(),
        ),
    ] {
        let file = write(folder.path(), name, &before);
        let (mut terminal, inside) = terminal(80);
        let other = || Stdio::from(inside.try_clone().unwrap());
        let mut command = stand.command(args);
        let mut child = command.arg(&file).stdin(other()).stdout(other()).stderr(other()).spawn().unwrap();
        let code = tokio::task::block_in_place(|| {
            until(&mut terminal, "Go on? [y/N] ");
            File::options().append(true).open(&file).unwrap().write_all(after.as_bytes()).unwrap();
            terminal.write_all(b"y\n").unwrap();
            child.wait().unwrap().code()
        });
        assert_eq!(code, Some(0));
        let receipt = std::fs::read_to_string(format!("{file}.receipt")).unwrap();
        assert!(receipt.contains("\"lines\":2,") && receipt.matches("message_id").count() == 2, "{receipt}");
    }
    let bodies = stand.aws.messages("nightshift-jobs").into_iter().map(|message| message.body);
    let bodies = bodies.collect::<Vec<_>>().join(" ");
    assert!(bodies.contains("\"Ticket 2\"") && bodies.contains("\"five\""), "{bodies}");
    assert!(!bodies.contains("Ticket 3") && !bodies.contains("more") && !bodies.contains("six"), "{bodies}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_saved_while_somebody_reads_its_price_is_not_sent_and_begins_no_receipt() {
    let stand = Stand::start().await;
    let folder = tempfile::tempdir().unwrap();
    let job = |n: u32| format!("{{\"task\":\"categorize_ticket\",\"input\":{{\"text\":\"Ticket {n}\"}}}}\n");
    let file = write(folder.path(), "jobs.jsonl", &(job(1) + &job(2)));
    let (mut terminal, inside) = terminal(400);
    let other = || Stdio::from(inside.try_clone().unwrap());
    let mut command = stand.command(&["enqueue", &file]);
    let mut child = command.stdin(other()).stdout(other()).stderr(other()).spawn().unwrap();
    drop(command);
    drop(inside);
    let (said, code) = tokio::task::block_in_place(|| {
        let mut said = until(&mut terminal, "Go on? [y/N] ");
        std::fs::write(&file, job(3) + &job(1) + &job(2)).unwrap();
        terminal.write_all(b"y\n").unwrap();
        let _ = terminal.read_to_end(&mut said);
        (String::from_utf8(said).unwrap(), child.wait().unwrap().code())
    });
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("nothing was sent, so run the same command again"), "{said}");
    assert!(stand.aws.messages("nightshift-jobs").is_empty());
    stand.run(&["enqueue", &file, "--yes"]).ok();
    assert_eq!(stand.aws.messages("nightshift-jobs").len(), 3);
}

#[test]
fn a_table_fits_into_a_terminal_of_sixty_columns_and_one_that_knows_of_none_has_eighty() {
    for (columns, fits) in [(60, 60), (0, 80)] {
        let (shown, code) = on_a_terminal(columns, bare(&["task", "list"]).env("NO_COLOR", "1"));
        assert_eq!(code, 0);
        assert!(!shown.contains('\u{1b}'), "NO_COLOR is kept: {shown:?}");
        assert!(
            shown.contains("categorize_ticket") && shown.lines().all(|line| line.chars().count() <= fits),
            "{columns}: {shown}"
        );
        let (help, _) = on_a_terminal(columns, &mut bare(&["--help"]));
        assert!(help.lines().count() < 100 && help.contains("dead-letters"), "{columns}: {help}");
    }
}

#[test]
fn colour_is_for_terminals_alone() {
    let (shown, _) = on_a_terminal(100, &mut bare(&["task", "list"]));
    assert!(shown.contains("\u{1b}[1m"), "{shown:?}");
    let (shown, _) = on_a_terminal(100, bare(&["task", "list"]).env("TERM", "dumb"));
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
}
