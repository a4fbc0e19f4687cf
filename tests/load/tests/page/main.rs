//! The page of a load test in a browser: it asks nobody for anything, its charts are drawn, and it is read without a mouse.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)] // a test

mod browser;

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use browser::Browser;
use nightshift_core::limits::Limits;
use nightshift_core::load_test::{Plan, Thresholds};
use nightshift_load::{Load, test};
use serde_json::Value;

/// All pages together take twenty seconds where nothing else runs.
const BROWSER_MAX: Duration = Duration::from_secs(300);

/// Names what somebody who cannot see it is told.
const NAME: &str = "const name = e => e.getAttribute('aria-label') || e.textContent.trim().slice(0, 40);";

/// Where the focus is, and how it shows.
const FOCUS: &str = "
    const e = document.activeElement;
    if (!e || e === document.body || e.dataset.reached) return null;
    e.dataset.reached = 'yes';
    const style = getComputedStyle(e);
    return {name: name(e), opens: e.matches('summary'), seen: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2};
";

/// What scrolls, opens or leads somewhere, and no Tab came to.
const UNREACHED: &str = "
    const scrolls = e => ['auto', 'scroll'].includes(getComputedStyle(e).overflowX);
    const all = [...document.body.querySelectorAll('*')];
    return all.filter(e => (scrolls(e) || e.matches('summary, a, button, input')) && !e.dataset.reached).map(name);
";

/// The points of each line of each chart, and whether the chart is seen and says what it is.
const CHARTS: &str = "
    return [...document.querySelectorAll('svg')].map(chart => ({
        told: chart.getAttribute('role') === 'img' && !!chart.getAttribute('aria-label') && chart.clientHeight > 50,
        lines: [...chart.querySelectorAll('polyline')].map(line => line.points.length),
    }));
";

/// How many rows of figures of the charts can be read, each figure of which is there.
const ROWS: &str = "
    const rows = [...document.querySelectorAll('details tbody tr')];
    const read = row => row.offsetHeight > 0 && row.cells.length === 8 && [...row.cells].every(cell => cell.innerText.trim());
    return rows.filter(read).length;
";

/// What a mouse alone finds.
const TOOLTIPS: &str = "
    const texts = [...document.querySelectorAll('[title], svg title')].map(e => e.getAttribute('title') ?? e.textContent);
    const shown = document.body.innerText;
    return texts.filter(text => !shown.includes(text));
";

/// What is wrong with a page; nothing, if all is well.
fn faults(browser: &mut Browser, page: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.html");
    std::fs::write(&file, page).unwrap();
    let asked_for = browser.open(&file);
    let mut faults: Vec<_> = asked_for.iter().map(|url| format!("it asks for {url}")).collect();
    let mut look = |script: &str| browser.evaluate(&format!("(() => {{ {NAME} {script} }})()"));
    let charts = look(CHARTS);
    let lines: Vec<_> = list(&charts).iter().map(|chart| list(&chart["lines"]).len()).collect();
    let points = list(&charts).iter().flat_map(|chart| list(&chart["lines"])).filter_map(Value::as_u64);
    let (fewest, most) = (points.clone().min().unwrap_or_default(), points.max().unwrap_or_default());
    if lines != [3, 3, 1] || fewest < 2 || list(&charts).iter().any(|chart| chart["told"] != true) {
        faults.push(format!("its charts are not drawn: {charts}"));
    }
    faults.extend(walk(browser));
    let mut look = |script: &str| browser.evaluate(&format!("(() => {{ {NAME} {script} }})()"));
    faults.extend(list(&look(UNREACHED)).iter().map(|name| format!("Tab does not come to {name}")));
    let rows = look(ROWS).as_u64().unwrap();
    if rows < most {
        faults.push(format!("of {most} points of the charts, {rows} can be read"));
    }
    faults.extend(list(&look(TOOLTIPS)).iter().map(|text| format!("a mouse alone finds {text}")));
    faults
}

/// Goes through the page by Tab, and opens by Enter what opens.
fn walk(browser: &mut Browser) -> Vec<String> {
    let mut faults = Vec::new();
    loop {
        browser.press("Tab", 9, "");
        let at = browser.evaluate(&format!("(() => {{ {NAME} {FOCUS} }})()"));
        if at.is_null() {
            return faults;
        }
        if at["seen"] != true {
            faults.push(format!("the focus is not seen at {}", at["name"]));
        }
        if at["opens"] == true {
            browser.press("Enter", 13, "\r");
            if browser.evaluate("document.activeElement.parentElement.open") != true {
                faults.push(format!("Enter does not open {}", at["name"]));
            }
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn page() -> String {
    let plan = Plan { expected_per_hour: 3_600, factor: 2.0, minutes: 2.0, warm_up_s: 10 };
    let (limits, thresholds) = (Limits::default(), Thresholds::default());
    test(&Load { plan, limits, thresholds, requests_per_minute: 0, seed: 1 }).unwrap().page()
}

/// The browser; without one, a line says that nothing was looked at.
fn browser() -> Option<Browser> {
    let browser = Browser::start(BROWSER_MAX);
    if browser.is_none() {
        // Not `println`, which the test harness keeps to itself while a test passes.
        let why = "skipped: the page in a browser (there is no Chromium on this machine)";
        let _ = writeln!(std::io::stderr(), "{why}");
    }
    browser
}

#[test]
fn a_page_that_never_answers_ends_with_the_browser_and_what_it_said_last() {
    let Some(mut browser) = browser() else { return };
    browser.evaluate("console.log('the page is about to hang')");
    // However slow the machine is, nothing but the deadline ends what follows.
    browser.limit(Duration::from_secs(1));
    let asks = AssertUnwindSafe(|| browser.evaluate("(() => { while (true) {} })()"));
    let said = catch_unwind(asks).unwrap_err().downcast::<String>().unwrap();
    assert!(said.starts_with("the browser was ended after 1s; it last said: ["), "{said}");
    assert!(said.contains("the page is about to hang"), "{said}");
}

#[test]
fn the_page_asks_nobody_and_is_read_without_a_mouse_and_what_is_not_so_is_found() {
    let Some(mut browser) = browser() else { return };
    let page = page();
    assert_eq!(faults(&mut browser, &page), [""; 0]);
    let with = |what: &str| what.to_owned() + "</main>";
    for (part, instead, fault) in [
        (
            "</main>",
            with("<img src='https://cdn.invalid/logo.png' alt=''>"),
            "it asks for https://cdn.invalid/logo.png",
        ),
        (
            "</main>",
            with("<script>fetch('http://127.0.0.1:9/beat')</script>"),
            "it asks for http://127.0.0.1:9/beat",
        ),
        (
            "*{",
            "main{background:url(https://cdn.invalid/paper.png)}*{".to_owned(),
            "it asks for https://cdn.invalid/paper.png",
        ),
        ("<svg", "<i".to_owned(), "its charts are not drawn"),
        (" points=", " data-points=".to_owned(), "its charts are not drawn"),
        ("role=\"img\"", String::new(), "its charts are not drawn"),
        (
            "outline:3px solid",
            "outline:0 solid".to_owned(),
            "the focus is not seen at \"The numbers of these charts\"",
        ),
        ("tabindex=\"0\"", "tabindex=\"-1\"".to_owned(), "Tab does not come to \"The numbers of the charts"),
        (
            "<summary",
            "<summary tabindex=\"-1\"".to_owned(),
            "Tab does not come to \"The numbers of these charts",
        ),
        ("<summary", "<summary onclick=\"return false\"".to_owned(), "Enter does not open"),
        ("<details", "<details hidden".to_owned(), "points of the charts, 0 can be read"),
        ("<polyline", "<title>42 at 1:00</title><polyline".to_owned(), "a mouse alone finds \"42 at 1:00\""),
    ] {
        assert!(page.contains(part), "the page has no {part}");
        let found = faults(&mut browser, &page.replace(part, &instead));
        assert!(found.iter().any(|found| found.contains(fault)), "{fault}: {found:?}");
    }
}
