use super::*;
use crate::control::{Entry, Stored};

const NOW_MS: u64 = 100 * 24 * 60 * MINUTE_MS;
const LEASE_MS: u64 = 310_000;

fn dead(ended_ms: Vec<u64>) -> DeadClaims {
    DeadClaims { ended_ms, since_ms: 0, lease_ms_max: LEASE_MS, are_all: true }
}

#[test]
fn many_claims_of_several_invocations_are_a_deploy_that_kills() {
    for (claims, invocations, expected) in [
        (10, 3, true),
        (9, 9, false),
        // One batch, or two, at the end of a night.
        (20, 2, false),
        (0, 1, false),
    ] {
        let ended_ms = (0..claims).map(|n| NOW_MS + n % invocations).collect();
        assert_eq!(dead(ended_ms).are_many(), expected, "{claims} of {invocations}");
    }
}

#[test]
fn a_claim_counts_that_began_since_however_long_ago_it_died() {
    let since_ms = NOW_MS - 10 * 60 * MINUTE_MS;
    let began_then = since_ms + LEASE_MS;
    let counted = dead(vec![began_then, began_then + 1, NOW_MS]).that_began_after(since_ms);
    assert_eq!((counted.ended_ms, counted.since_ms), (vec![began_then + 1, NOW_MS], since_ms));
}

#[test]
fn none_has_died_of_late_where_one_would_be_seen() {
    let none = |since_ago_ms: u64| DeadClaims { since_ms: NOW_MS - since_ago_ms, ..dead(Vec::new()) };
    let one = |ended_ago_ms: u64| dead(vec![NOW_MS - ended_ago_ms]);
    for (label, claims, expected) in [
        // A lease, the index's lag, and a run.
        ("none could be seen yet", none(429_999), false),
        ("none", none(430_000), true),
        ("not all were read", DeadClaims { are_all: false, ..none(430_000) }, false),
        ("one", one(1_200_000), false),
        // Its message may have gone to `crashed`.
        ("one of long ago", one(1_200_001), true),
    ] {
        assert_eq!(claims.none_of_late(NOW_MS), expected, "{label}");
    }
}

#[test]
fn a_version_is_watched_for_as_long_as_runs_could_look_at_it() {
    let standing =
        Watch { function_version: 7, since_ms: 5, seen_at_ms: NOW_MS - MINUTE_MS, lease_ms_max: LEASE_MS };
    let ago = |ms| Some(Watch { seen_at_ms: NOW_MS - ms, ..standing });
    for (label, standing, since_ms) in [
        ("nobody has looked yet", None, NOW_MS),
        ("a minute ago", Some(standing), 5),
        ("late, or one run was missed", ago(150_000), 5),
        ("runs that could not look", ago(150_001), NOW_MS),
        ("another version", Some(Watch { function_version: 6, ..standing }), NOW_MS),
        ("by a clock that is ahead", Some(Watch { seen_at_ms: NOW_MS + 150_001, ..standing }), NOW_MS),
        // The claims of before look younger by as much as leases are shorter now.
        (
            "another version with a shorter timeout",
            Some(Watch { function_version: 6, lease_ms_max: LEASE_MS + 600_000, ..standing }),
            NOW_MS + 600_000,
        ),
        (
            "which is known a minute later",
            Some(Watch { lease_ms_max: LEASE_MS + 600_000, ..standing }),
            NOW_MS + 600_000,
        ),
        (
            "and another one soon after",
            Some(Watch { function_version: 6, since_ms: NOW_MS + 500_000, ..standing }),
            NOW_MS + 500_000,
        ),
        (
            "by nonsense",
            Some(Watch { function_version: 6, since_ms: u64::MAX, ..standing }),
            NOW_MS + 960_000,
        ),
        ("with a longer one", Some(Watch { function_version: 6, lease_ms_max: 1, ..standing }), NOW_MS),
    ] {
        let watch = Watch::after(standing, 7, LEASE_MS, NOW_MS);
        let expected = Watch { function_version: 7, since_ms, seen_at_ms: NOW_MS, lease_ms_max: LEASE_MS };
        assert_eq!(watch, expected, "{label}");
        assert_eq!(Watch::from_json(&watch.to_json()), Some(watch));
    }
    assert_eq!(Watch::from_json("[]"), None);
    assert!(standing.is_kept(NOW_MS + 240_000) && !standing.is_kept(NOW_MS + 240_001));
}

#[test]
fn claims_count_since_all_that_they_say_nothing_of() {
    let deaths =
        |phase| Control::default().with(Cause::Deaths, Entry::paused(1, "r", "w").in_phase(phase, 20));
    let opened = Control::paused_by_operator(1, "r", "w").resumed(30);
    let lifted = Stored { paused_reason: None, ..Control::paused_by_operator(1, "r", "w").stored() };
    for (control, since_ms, answered_at_ms, expected) in [
        (Control::default(), 10, None, 10),
        (Control::default(), 10, Some(11), 11),
        (Control::default(), 10, Some(9), 10),
        (opened, 10, None, 30),
        (deaths(Phase::Paused), 10, None, 10),
        (deaths(Phase::Reopening { width: 1 }), 10, None, 20),
        (deaths(Phase::Open), 10, None, 20),
        (deaths(Phase::Open), 21, None, 21),
        // Just now, by somebody who did not say when.
        (Control::read(lifted), 10, None, NOW_MS),
    ] {
        let watch = Watch { function_version: 7, since_ms, seen_at_ms: NOW_MS, lease_ms_max: LEASE_MS };
        assert_eq!(control.claims_count_since_ms(&watch, answered_at_ms), expected, "{control:?}");
    }
}
