//! `pause` and `resume`.

use clap::Args;
use nightshift_core::control::{Cause, Control, Entry, Phase};
use nightshift_ports::ControlRecord;

use crate::Context;
use crate::confirm::{self, Consent};
use crate::control;
use crate::error::{self, Failure};
use crate::ledger;
use crate::mapping::{Mapping, Turned};
use crate::render::say;
use crate::stack::Stack;
use crate::{times, trace};

/// What a Ctrl-C leaves that nobody waits for.
const LEFT: &str = "`nightshift status` says whether it is paused, so run the same command again";

/// What a pause has done where its switch cannot be turned.
const PAUSED_BUT_ON: &str = "it is paused all the same, since workers hand back whatever they receive, and the sentinel \
                             turns the event source off within minutes where it may";
/// What a resume has done where its switch cannot be turned.
const RESUMED_BUT_OFF: &str = "the pause is lifted, but the event source may still be off, which the sentinel turns on \
                               within minutes where it may";

/// Stops the work: jobs wait in the queue, and nothing is paid for.
#[derive(Debug, Args)]
#[command(after_help = "\
What is under way finishes. No job is lost: the queue keeps them for as long as its retention says. Of the alarms, \
queue-paused alone is raised, once; oldest-job-too-old looks away until half an hour after `nightshift resume`.

Examples:
  nightshift pause --reason 'INC-42: wrong prompt is live'
  nightshift pause --reason 'maintenance' --yes")]
pub struct PauseArguments {
    #[command(flatten)]
    consent: Consent,
}

/// Lets the work go on, whoever or whatever paused it.
#[derive(Debug, Args)]
#[command(after_help = "\
Takes away every cause: an operator's pause, and what workers and the sentinel wrote because of the account, an outage, the \
spend cap, deaths or messages in flight. A cause that still stands is found and written again.

Examples:
  nightshift resume --reason 'INC-42 is mended'")]
pub struct ResumeArguments {
    #[command(flatten)]
    consent: Consent,
}

pub async fn pause(arguments: &PauseArguments, context: &Context) -> Result<(), Failure> {
    let Consent { yes, reason } = &arguments.consent;
    let stack = context.stack().await?;
    let ledger = ledger::of(&stack);
    let control = ledger.control_now().await.map_err(|e| error::of_port(&e))?;
    let waiting = format!("Jobs wait in the queue until `nightshift resume`, for at most {}.", kept(&stack));
    let standing = standing(&control).map_or_else(String::new, |pause| {
        format!(
            " Somebody has paused it already: {}. The reason is replaced, and that it began then stays.",
            pause.line()
        )
    });
    let question = format!("Pauses {}: workers take no more jobs. {waiting}{standing}", stack.named());
    confirm::ask(*yes, &question).await?;
    context.interrupt.handle(LEFT);
    let trace = trace::begin(&stack, "pause", reason).await?;
    let ended = async {
        let entry = Entry::paused(times::now_ms(), reason, &trace.caller.arn);
        let paused =
            ledger.change_control(&|control| Some(control.with(Cause::Operator, entry.clone()))).await;
        paused.map_err(|e| error::of_port(&e))?;
        turn(&stack, &ledger, false, PAUSED_BUT_ON).await?;
        Ok("paused".to_owned())
    }
    .await;
    trace.end(&ended).await;
    ended.map(|_| {
        say(&format!(
            "Paused {}. Workers stop within seconds; calls that are under way finish.",
            stack.named()
        ))
    })
}

pub async fn resume(arguments: &ResumeArguments, context: &Context) -> Result<(), Failure> {
    let Consent { yes, reason } = &arguments.consent;
    let stack = context.stack().await?;
    let mapping = Mapping::find(&stack).await?;
    let ledger = ledger::of(&stack);
    let control = ledger.control_now().await.map_err(|e| error::of_port(&e))?;
    let pauses = control::pauses(&control);
    if pauses.is_empty() && mapping.is_on() {
        say(&format!("Nothing to do: {} is not paused.", stack.named()));
        return Ok(());
    }
    let because = if pauses.is_empty() {
        " Its event source was switched off, and nobody wrote why.".to_owned()
    } else {
        let lines: Vec<String> = pauses.iter().map(control::Pause::line).collect();
        format!(" What holds it back now: {}.", lines.join("; "))
    };
    confirm::ask(*yes, &format!("Resumes {}: workers take jobs again.{because}", stack.named())).await?;
    context.interrupt.handle(LEFT);
    let trace = trace::begin(&stack, "resume", reason).await?;
    let ended = async {
        // The switch last: what is received before the record is clear would be handed back for minutes.
        let now_ms = times::now_ms();
        let resumed = ledger
            .change_control(&|stands| unseen(&control, stands).is_none().then(|| stands.resumed(now_ms)))
            .await
            .map_err(|e| error::of_port(&e))?;
        if let Some(pause) = unseen(&control, &resumed) {
            return Err(Failure::failed(format!(
                "Nothing was resumed, because it was paused in the meantime: {}. Run the same command again if that is to end, too.",
                pause.line()
            )));
        }
        turn(&stack, &ledger, true, RESUMED_BUT_OFF).await?;
        Ok("resumed".to_owned())
    }
    .await;
    trace.end(&ended).await;
    ended.map(|_| {
        say(&format!("Resumed {}. Lambda takes up to two minutes to fetch the first jobs.", stack.named()))
    })
}

/// Turns the switch, which may have been turned while somebody thought about the question. `but`: what is done although it
/// cannot be.
async fn turn(stack: &Stack, record: &dyn ControlRecord, on: bool, but: &str) -> Result<(), Failure> {
    let turned = async { Mapping::find(stack).await?.turn(on, record).await }.await;
    match turned.map_err(|failure| failure.after(but))? {
        Turned::AsAsked => Ok(()),
        Turned::Overtaken => Err(Failure::failed(
            "Somebody paused or resumed it in the meantime, and the event source is left to that: `nightshift status` says how it stands.",
        )),
    }
}

/// The operator's pause that stands.
fn standing(control: &Control) -> Option<control::Pause> {
    control::pauses(control).into_iter().find(|pause| pause.cause == Cause::Operator.as_str())
}

/// What holds work back and did not when somebody was asked.
fn unseen(asked: &Control, stands: &Control) -> Option<control::Pause> {
    let of = |entry: &Entry| (entry.since_ms, entry.reason.clone(), entry.who.clone());
    // A probe of what was seen is no pause of its own; a pause that replaced it is, whatever it says.
    let is_of = |entry: &Entry, seen: &Entry| {
        of(entry) == of(seen) && (entry.phase != Phase::Paused || entry.phase_since_ms == seen.phase_since_ms)
    };
    let is_seen = |cause, entry| asked.holding().any(|(of, seen)| of == cause && is_of(entry, seen));
    let known =
        stands.holding().filter(|(cause, entry)| !is_seen(*cause, entry)).map(|(cause, _)| cause.as_str());
    let foreign = stands.foreign.keys().filter(|word| !asked.foreign.contains_key(*word)).map(String::as_str);
    let unseen = known.chain(foreign).next()?;
    control::pauses(stands).into_iter().find(|pause| pause.cause == unseen)
}

fn kept(stack: &Stack) -> String {
    let retention = stack.environment.get("NIGHTSHIFT_RETENTION_MS").and_then(|ms| ms.parse().ok());
    retention.map_or_else(|| "the retention of the queue".to_owned(), times::length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resume_takes_away_what_was_shown_and_nothing_that_came_since() {
        let entry = |since_ms, reason| Entry::paused(since_ms, reason, "who");
        let outage = || Control::default().with(Cause::Outage, entry(1, "down"));
        for (stands, expected) in [
            (outage(), None),
            (Control::default(), None),
            // It was probed meanwhile.
            (Control::default().with(Cause::Outage, entry(1, "down").in_phase(Phase::Probing, 2)), None),
            (outage().with(Cause::Operator, entry(2, "INC-43")), Some("operator")),
            (outage().with(Cause::Deaths, entry(2, "claims die")), Some("deaths")),
            (outage().with(Cause::Outage, entry(9, "down again")), Some("outage")),
        ] {
            let found = unseen(&outage(), &stands).map(|pause| pause.cause);
            assert_eq!(found.as_deref(), expected, "{stands:?}");
        }
    }

    #[test]
    fn a_pause_of_somebody_else_or_of_later_is_another_one_though_it_gives_the_same_reason() {
        let paused =
            |by: &Control, now_ms, who| by.with(Cause::Operator, Entry::paused(now_ms, "maintenance", who));
        let asked = paused(&Control::default(), 1, "ann");
        for (stands, expected) in [
            (asked.clone(), None),
            (paused(&asked, 2, "bob"), Some("bob")),
            (paused(&asked, 2, "ann"), Some("ann")),
        ] {
            let found = unseen(&asked, &stands).map(|pause| pause.who);
            assert_eq!(found.as_deref(), expected, "{stands:?}");
        }
    }
}
