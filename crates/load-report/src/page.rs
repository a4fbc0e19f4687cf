//! The page.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use nightshift_core::load_test::{
    Alarms, Ended, First, Holds, How, Limited, Percentiles, Point, grouped, grouped_to,
};

use crate::Report;

/// Width and height of a chart, in its own units; it is scaled to the page.
const CHART: (f64, f64) = (720.0, 190.0);
/// Room for the axes: left, right, above, below.
const ROOM: (f64, f64, f64, f64) = (64.0, 12.0, 12.0, 26.0);

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--line:#d0d7de;--page:#fff;--card:#f6f8fa;--yes:#1a7f37;--no:#c62828;--a:#0969da;--b:#b35900;--c:#7a3fb8}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9da7b3;--line:#3d444d;--page:#0d1117;--card:#161b22;--yes:#3fb950;--no:#ff7b72;--a:#58a6ff;--b:#e3933d;--c:#bc8cff}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:60rem;padding:1rem;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;margin:.5rem 0}h2{font-size:1.1rem;margin:2rem 0 .5rem}h3{font-size:1rem;margin:1.25rem 0 .25rem}
.verdict{border:1px solid var(--line);border-left:.5rem solid var(--tone);border-radius:.4rem;background:var(--card);padding:.75rem 1rem}
.verdict strong{color:var(--tone);font-size:1.6rem}
.is-yes{--tone:var(--yes)}.is-no{--tone:var(--no)}.is-unknown{--tone:var(--soft)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.5rem;padding:0;margin:1rem 0;list-style:none}
.tiles li{border:1px solid var(--line);border-radius:.4rem;padding:.5rem .75rem}
.tiles b{display:block;font-size:1.25rem}.tiles span,figcaption,.soft{color:var(--soft);font-size:.9rem}
.wide{overflow-x:auto}.wide:focus-visible,summary:focus-visible,a:focus-visible{outline:3px solid var(--a);outline-offset:2px}
table{border-collapse:collapse;width:100%}th,td{border-bottom:1px solid var(--line);padding:.35rem .6rem .35rem 0;text-align:left;vertical-align:top}
td{overflow-wrap:anywhere}td.number,th.number{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
.wide td:last-child:not(.number){min-width:8rem}.line{white-space:nowrap}
td.holds{color:var(--tone);font-weight:600;white-space:nowrap}
figure{margin:1rem 0}svg{width:100%;height:auto;display:block}
svg text{fill:var(--soft);font:11px system-ui,sans-serif}svg .grid{stroke:var(--line)}
svg polyline{fill:none;stroke-width:2}.a{stroke:var(--a)}.b{stroke:var(--b);stroke-dasharray:6 3}.c{stroke:var(--c);stroke-dasharray:2 3}
.key{display:inline-block;width:2rem;border-top:3px solid;vertical-align:middle;margin:0 .4rem 0 1rem}
.key.a{border-color:var(--a)}.key.b{border-color:var(--b);border-top-style:dashed}.key.c{border-color:var(--c);border-top-style:dotted}
@media (max-width:34rem){svg text{font-size:20px}svg polyline{stroke-width:3}}
@media print{body{max-width:none;font-size:11pt;padding:0}figure,.verdict,tr{break-inside:avoid}details:not([open])::details-content{content-visibility:visible;display:block}}
";

/// One line of a chart: its class, its name, its value at a point.
type Line<'a> = (&'static str, &'a str, fn(&Point) -> f64);

/// Whether a chart shows a point: in a column in which nothing was due, there is no latency.
type Shown = fn(&Point) -> bool;

pub(crate) fn of(report: &Report) -> String {
    let (word, tone) = if report.verdict.passed { ("Yes", "is-yes") } else { ("No", "is-no") };
    let title = format!("Load test of {}: {}", report.tested.stack, word.to_lowercase());
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    h1 { "Load test of " (report.tested.stack) }
                    (verdict(report, word, tone))
                    (tiles(report))
                    (findings(report))
                    (charts(report))
                    (latencies(report))
                    (outcomes(report))
                    (headroom(report))
                    (tested(report))
                }
            }
        }
    };
    page.into_string()
}

fn verdict(report: &Report, word: &str, tone: &str) -> Markup {
    let plan = &report.plan;
    html! {
        section class={"verdict " (tone)} aria-label="Verdict" {
            strong { (word) }
            p {
                "Does it stand " (grouped(plan.per_hour())) " jobs an hour, "
                (plan.factor) " times the expected " (grouped(plan.expected_per_hour)) ", for " (plan.minutes) " minutes?"
            }
            @if !report.verdict.passed {
                ul { @for reason in report.verdict.reasons() { li { b { (reason.what) } ": " (reason.words) } } }
            }
            @let headroom = &report.verdict.headroom;
            @if let Some(gave) = headroom.steps.first().and_then(|tested| tested.gave.as_ref()) {
                p { (gave.at_once()) }
            } @else if let Some(First { how, limit }) = &headroom.first {
                @let (begins, day) = match (how, limit.limited) {
                    (How::Tested, _) => ("It failed at ", ""),
                    (How::Computed, Limited::SpendCap) => ("By computation it fails at about ", " around the clock"),
                    (How::Computed, _) => ("By computation it fails at about ", ""),
                };
                p { (begins) b { (grouped(limit.per_hour)) } " jobs an hour" (day) "; the first limit is " (limit.limited.as_str()) "." }
            }
        }
    }
}

fn tiles(report: &Report) -> Markup {
    let measured = &report.measured;
    let throttled = report.observed.throttled.map_or_else(|| "unknown".to_owned(), grouped);
    let handed_back = report.observed.handed_back.map_or_else(|| "unknown".to_owned(), grouped);
    let drain =
        measured.drain_s.map_or_else(|| "not all ended".to_owned(), |s| format!("{} s", grouped_to(s, 1)));
    let tiles = [
        (
            "jobs taken of jobs due",
            format!("{} of {}", grouped(measured.accepted), grouped(measured.offered)),
        ),
        ("ended with a result", format!("{:.2} %", measured.success_percent)),
        ("latency, median", time(&measured.latency, measured.latency.p50_ms)),
        ("latency, 99 %", time(&measured.latency, measured.latency.p99_ms)),
        ("most waiting at once", grouped(measured.backlog_max)),
        ("drained after the last send", drain),
        ("calls refused for limits", throttled),
        ("deliveries handed back", handed_back),
        ("cost of the calls", dollars(measured.cost.usd)),
    ];
    html! { ul.tiles { @for (what, value) in &tiles { li { b { (value) } span { (what) } } } } }
}

fn findings(report: &Report) -> Markup {
    html! {
        h2 #findings { "What was asked" }
        div.wide tabindex="0" role="region" aria-labelledby="findings" {
            table {
                thead { tr { th scope="col" { "What" } th scope="col" { "Holds" } th scope="col" { "Why" } } }
                tbody {
                    @for finding in &report.verdict.findings {
                        @let (word, tone) = match finding.holds {
                            Holds::Yes => ("yes", "is-yes"),
                            Holds::No => ("no", "is-no"),
                            Holds::Unknown => ("unknown", "is-unknown"),
                        };
                        tr { th scope="row" { (finding.what) } td class={"holds " (tone)} { (word) } td { (finding.words) } }
                    }
                }
            }
        }
    }
}

fn charts(report: &Report) -> Markup {
    let course = &report.measured.course;
    html! {
        h2 { "Course" }
        (chart("Jobs a second: due, taken by SQS, ended", course, |_| true, &[
            ("a", "due", |point| point.offered),
            ("b", "taken", |point| point.accepted),
            ("c", "ended", |point| point.settled),
        ]))
        (chart("Latency in seconds, by when a job was due", course, |point| point.latency.count > 0, &[
            ("a", "median", |point| point.latency.p50_ms as f64 / 1_000.0),
            ("b", "95 %", |point| point.latency.p95_ms as f64 / 1_000.0),
            ("c", "99 %", |point| point.latency.p99_ms as f64 / 1_000.0),
        ]))
        (chart("Backlog: jobs taken and not ended", course, |_| true, &[("a", "jobs", |point| point.backlog as f64)]))
        details {
            summary { "The numbers of these charts" }
            div.wide tabindex="0" role="region" aria-label="The numbers of the charts" {
                table {
                    thead { tr {
                        @for name in ["At", "Due a second", "Taken", "Ended", "Backlog", "Median", "95 %", "99 %"] { th.number scope="col" { (name) } }
                    } }
                    tbody { @for point in course { tr {
                        td.number { (clock(point.at_s)) }
                        @for rate in [point.offered, point.accepted, point.settled] { td.number { (grouped_to(rate, 2)) } }
                        td.number { (grouped(point.backlog)) }
                        @for ms in [point.latency.p50_ms, point.latency.p95_ms, point.latency.p99_ms] { td.number { (time(&point.latency, ms)) } }
                    } } }
                }
            }
        }
    }
}

fn chart(title: &str, course: &[Point], shown: Shown, lines: &[Line<'_>]) -> Markup {
    let (width, height) = CHART;
    let (left, right, above, below) = ROOM;
    let top = nice(lines.iter().flat_map(|(_, _, value)| course.iter().map(value)).fold(0.0, f64::max));
    let last_s = course.last().map_or(1.0, |point| point.at_s.max(1.0));
    let x = |at_s: f64| left + at_s / last_s * (width - left - right);
    let y = |value: f64| height - below - value / top * (height - above - below);
    let points = |value: &fn(&Point) -> f64| {
        let points = course
            .iter()
            .filter(|point| shown(point))
            .map(|point| format!("{:.1},{:.1}", x(point.at_s), y(value(point))));
        points.collect::<Vec<_>>().join(" ")
    };
    let most = |value: &fn(&Point) -> f64| course.iter().map(value).fold(0.0, f64::max);
    let said: Vec<_> = lines
        .iter()
        .map(|(_, name, value)| format!("{name} at most {}", grouped_to(most(value), 2)))
        .collect();
    html! {
        figure {
            figcaption {
                b { (title) }
                @if lines.len() > 1 { @for (class, name, _) in lines { span.line { span class={"key " (class)} {} (name) } " " } }
            }
            svg viewBox={"0 0 " (width) " " (height)} role="img" aria-label={(title) ". " (said.join(", ")) "."} {
                @for share in [0.0, 0.5, 1.0] {
                    @let value = top * share;
                    line.grid x1=(left) x2=(width - right) y1=(y(value)) y2=(y(value)) {}
                    text x=(left - 6.0) y=(y(value) + 4.0) text-anchor="end" { (label(value)) }
                }
                @for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
                    @let anchor = if share == 0.0 { "start" } else if share == 1.0 { "end" } else { "middle" };
                    text x=(x(last_s * share)) y=(height - 8.0) text-anchor=(anchor) { (clock(last_s * share)) }
                }
                @for (class, _, value) in lines { polyline class=(class) points=(points(value)) {} }
            }
        }
    }
}

fn latencies(report: &Report) -> Markup {
    let measured = &report.measured;
    let rows = [
        ("from due to ended", &measured.latency),
        ("from due to taken by SQS", &measured.send_delay),
        ("worked on, from the last claim", &measured.work),
    ];
    html! {
        h2 #latencies { "Times" }
        div.wide tabindex="0" role="region" aria-labelledby="latencies" {
            table {
                thead { tr {
                    th scope="col" { "Time" }
                    @for name in ["Jobs", "Median", "90 %", "95 %", "99 %", "Longest"] { th.number scope="col" { (name) } }
                } }
                tbody { @for (name, times) in rows { tr {
                    th scope="row" { (name) }
                    td.number { (grouped(times.count)) }
                    @for ms in [times.p50_ms, times.p90_ms, times.p95_ms, times.p99_ms, times.max_ms] { td.number { (time(times, ms)) } }
                } } }
            }
        }
        p.soft { "Without the warm-up. Ends are by the workers' clocks, all else by AWS's. What had not ended counts with its age." }
    }
}

fn outcomes(report: &Report) -> Markup {
    let outcomes = &report.measured.outcomes;
    let letters =
        outcomes.dead_letters.iter().map(|(reason, count)| (format!("dead letter: {reason}"), *count));
    let rows: Vec<_> =
        [("result".to_owned(), outcomes.results), ("result to be reviewed".to_owned(), outcomes.reviews)]
            .into_iter()
            .chain(letters)
            .chain([("still waiting".to_owned(), outcomes.waiting), ("missing".to_owned(), outcomes.missing)])
            .collect();
    let alarms = match &report.observed.alarms {
        Alarms::NotSimulated => "Alarms are not simulated.".to_owned(),
        Alarms::Unread => "Alarms could not be read.".to_owned(),
        Alarms::Raised(raised) if raised.is_empty() => "No alarm was raised.".to_owned(),
        Alarms::Raised(raised) => format!("Alarms that were raised: {}.", raised.join(", ")),
    };
    html! {
        h2 { "What became of the jobs" }
        table {
            thead { tr { th scope="col" { "Outcome" } th.number scope="col" { "Jobs" } } }
            tbody { @for (what, jobs) in &rows { tr { th scope="row" { (what) } td.number { (grouped(*jobs)) } } } }
        }
        p { (alarms) }
    }
}

fn headroom(report: &Report) -> Markup {
    let headroom = &report.verdict.headroom;
    html! {
        h2 #headroom { "Headroom" }
        p { (headroom.words()) }
        div.wide tabindex="0" role="region" aria-labelledby="headroom" {
            table {
                thead { tr {
                    @for name in ["Sent an hour", "Jobs", "95 % within", "Most waiting"] { th.number scope="col" { (name) } }
                    th scope="col" { "What gave" }
                } }
                tbody { @for step in &headroom.steps { tr {
                    th.number scope="row" { (grouped(step.per_hour)) }
                    td.number { (grouped(step.jobs)) }
                    td.number { (seconds(step.p95_ms)) }
                    td.number { (grouped(step.backlog_max)) }
                    td { @match &step.gave {
                        None if headroom.ended == Ended::NotCounted => "not known",
                        None => "nothing",
                        Some(gave) => { b { (gave.limited.as_str()) } ". " (gave.because) }
                    } }
                } } }
            }
        }
        h3 #computed { "Computed from what one job took" }
        div.wide tabindex="0" role="region" aria-labelledby="computed" {
            table {
                thead { tr { th scope="col" { "Limit" } th.number scope="col" { "Jobs an hour" } th scope="col" { "Because" } } }
                tbody { @for limit in &headroom.limits { tr {
                    th scope="row" { (limit.limited.as_str()) }
                    td.number { (grouped(limit.per_hour)) }
                    td { (limit.because) }
                } } }
            }
        }
    }
}

fn tested(report: &Report) -> Markup {
    let (tested, plan) = (&report.tested, &report.plan);
    let facts = [
        ("stack", format!("{} in {}", tested.stack, tested.region)),
        ("began", tested.began_at.clone()),
        ("warm-up", format!("{} s", grouped(plan.warm_up_s))),
        ("model", tested.model.clone()),
        ("worker version", tested.worker_version.clone()),
        ("command version", tested.command_version.to_owned()),
        ("test", tested.run.clone()),
    ];
    html! {
        h2 { "What was tested" }
        table { tbody {
            @for (name, value) in &facts { tr { th scope="row" { (name) } td { (value) } } }
            @for (name, value) in &tested.settings { tr { th scope="row" { (name) } td { (value) } } }
        } }
    }
}

/// Cents where it is dollars, and what a cent is made of below that.
fn dollars(usd: f64) -> String {
    let decimals = if usd >= 1.0 { 2 } else { 4 };
    format!("{} USD", grouped_to(usd, decimals))
}

/// A time of several jobs; of none there is none.
fn time(of: &Percentiles, ms: u64) -> String {
    if of.count == 0 { "–".to_owned() } else { seconds(ms) }
}

fn seconds(ms: u64) -> String {
    if ms < 1_000 { format!("{ms} ms") } else { format!("{} s", grouped_to(ms as f64 / 1_000.0, 1)) }
}

fn clock(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// The end of an axis: 1, 2 or 5 times a power of ten, and 1 where nothing is.
fn nice(most: f64) -> f64 {
    let most = if most > 0.0 { most } else { 1.0 };
    let power = 10_f64.powf(most.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * power).find(|end| *end >= most).unwrap_or(most)
}

/// At most five characters of what an axis ends at: there is no room for more on a phone.
fn label(value: f64) -> String {
    match value {
        value if value >= 1_000_000.0 => format!("{}M", value / 1_000_000.0),
        value if value >= 10_000.0 => format!("{}k", value / 1_000.0),
        value if value >= 10.0 => grouped(value),
        value => format!("{value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_of_an_axis_is_short() {
        for (value, expected) in [
            (0.0, "0"),
            (0.025, "0.025"),
            (2.5, "2.5"),
            (25.0, "25"),
            (5_000.0, "5,000"),
            (10_000.0, "10k"),
            (250_000.0, "250k"),
            (500_000.0, "500k"),
            (2_500_000.0, "2.5M"),
            (50_000_000.0, "50M"),
        ] {
            assert_eq!(label(value), expected);
        }
    }

    #[test]
    fn of_no_jobs_there_is_no_time() {
        for (count, ms, expected) in [(0, 0, "–"), (1, 0, "0 ms"), (1, 1_500, "1.5 s")] {
            assert_eq!(time(&Percentiles { count, ..Percentiles::default() }, ms), expected);
        }
    }
}
