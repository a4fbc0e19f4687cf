use super::*;
use crate::control::Entry;

const NOW_MS: u64 = 100 * 24 * 60 * MINUTE_MS;
const LEASE_MS: u64 = 310_000;

fn dead(ended_ms: Vec<u64>) -> DeadClaims {
    DeadClaims { ended_ms, lease_ms_max: LEASE_MS }
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
fn a_claim_counts_that_began_since_and_died_of_late() {
    let since_ms = NOW_MS - 15 * MINUTE_MS;
    let began_then = since_ms + LEASE_MS;
    let claims = dead(vec![began_then, began_then + 1, NOW_MS]);
    assert_eq!(claims.that_count(since_ms, NOW_MS).ended_ms, [began_then + 1, NOW_MS]);
    let claims = dead(vec![NOW_MS - FRESH_MS - 1, NOW_MS - FRESH_MS]);
    assert_eq!(claims.that_count(0, NOW_MS).ended_ms, [NOW_MS - FRESH_MS]);
    assert_eq!(claims.seen_after_ms(), LEASE_MS + 2 * MINUTE_MS);
}

#[test]
fn a_version_is_watched_for_as_long_as_every_run_could_look_at_it() {
    let standing = Watch { function_version: 7, since_ms: 5, seen_at_ms: NOW_MS - MINUTE_MS };
    for (label, standing, since_ms) in [
        ("nobody has looked yet", None, NOW_MS),
        ("a minute ago", Some(standing), 5),
        ("late", Some(Watch { seen_at_ms: NOW_MS - GAP_MS, ..standing }), 5),
        ("a run that could not look", Some(Watch { seen_at_ms: NOW_MS - GAP_MS - 1, ..standing }), NOW_MS),
        ("another version", Some(Watch { function_version: 6, ..standing }), NOW_MS),
        ("by a clock that is ahead", Some(Watch { seen_at_ms: NOW_MS + GAP_MS + 1, ..standing }), NOW_MS),
        ("nonsense", Some(Watch { since_ms: NOW_MS, ..standing }), NOW_MS),
    ] {
        let watch = Watch::after(standing, 7, NOW_MS);
        assert_eq!(watch, Watch { function_version: 7, since_ms, seen_at_ms: NOW_MS }, "{label}");
        assert_eq!(Watch::from_json(&watch.to_json()), Some(watch));
    }
    assert_eq!(Watch::from_json("[]"), None);
}

#[test]
fn claims_count_since_all_that_they_say_nothing_of() {
    let deaths =
        |phase| Control::default().with(Cause::Deaths, Entry::paused(1, "r", "w").in_phase(phase, 20));
    let opened = Control::paused_by_operator(1, "r", "w").resumed(30);
    for (control, watched_since_ms, answered_at_ms, expected) in [
        (Control::default(), 10, None, 10),
        (Control::default(), 10, Some(11), 11),
        (Control::default(), 10, Some(9), 10),
        (opened, 10, None, 30),
        (deaths(Phase::Paused), 10, None, 10),
        (deaths(Phase::Reopening { width: 1 }), 10, None, 20),
        (deaths(Phase::Open), 10, None, 20),
        (deaths(Phase::Open), 21, None, 21),
    ] {
        let since_ms = control.claims_count_since_ms(watched_since_ms, answered_at_ms);
        assert_eq!(since_ms, expected, "{control:?}");
    }
}
