//! The planned dashboard: what it names, and how it looks over what drills published.

use std::collections::BTreeSet;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use nightshift_alarms::data::{Data, MetricKey, Statistic};
use nightshift_alarms::math::{Expr, Range, Series};
use nightshift_alarms::readings::Reading;
use serde_json::Value;

/// One graph of it.
pub struct Graph {
    title: String,
    /// Column and row, width and height, in the dashboard's units: 24 columns.
    place: [u64; 4],
    period_min: i64,
    stacked: bool,
    /// The most that the left and the right axis show, where that is set.
    most: [Option<f64>; 2],
    horizontal: Vec<(String, f64)>,
    lines: Vec<Line>,
}

struct Line {
    of: Of,
    id: String,
    label: String,
    colour: Option<String>,
    visible: bool,
    right: bool,
}

enum Of {
    Metric(MetricKey, Statistic),
    Math(Expr),
}

fn widgets(plan: &str) -> Result<Vec<Value>, String> {
    let plan: Value = serde_json::from_str(plan).map_err(|error| error.to_string())?;
    let resources = plan["planned_values"]["root_module"]["resources"].as_array().ok_or("no resources")?;
    let dashboard = resources.iter().find(|resource| resource["type"] == "aws_cloudwatch_dashboard");
    let body = dashboard.and_then(|dashboard| dashboard["values"]["dashboard_body"].as_str());
    let body: Value = serde_json::from_str(body.ok_or("its dashboard is not known before it is applied")?)
        .map_err(|error| error.to_string())?;
    Ok(body["widgets"].as_array().ok_or("no widgets")?.clone())
}

/// What each widget shows, a line for each of its alarms and metrics, to be compared with what somebody has looked at: that a
/// line is drawn from the metric that its label means, no rule says.
///
/// # Errors
/// What is not understood about it.
pub fn contents(plan: &str) -> Result<String, String> {
    let mut shown = String::new();
    for widget in widgets(plan)? {
        let properties = &widget["properties"];
        let title = properties["title"].as_str().unwrap_or("text");
        shown.push_str(&format!("{title} (stat {}):\n", properties["stat"]));
        for alarm in properties["alarms"].as_array().into_iter().flatten() {
            let name = alarm.as_str().and_then(|arn| arn.rsplit(':').next()).unwrap_or_default();
            shown.push_str(&format!("  {name}\n"));
        }
        for metric in properties["metrics"].as_array().into_iter().flatten() {
            shown.push_str(&format!("  {metric}\n"));
        }
    }
    Ok(shown)
}

/// The graphs of the dashboard that this plan makes.
///
/// # Errors
/// What is not understood about it.
pub fn of_plan(json: &str) -> Result<Vec<Graph>, String> {
    let widgets = widgets(json)?;
    widgets.iter().filter(|widget| widget["type"] == "metric").map(graph).collect()
}

fn graph(widget: &Value) -> Result<Graph, String> {
    let properties = &widget["properties"];
    let title = properties["title"].as_str().unwrap_or_default().to_owned();
    let stat = properties["stat"].as_str().unwrap_or("Average");
    let lines = properties["metrics"].as_array().ok_or(format!("{title} has no metrics"))?;
    let horizontal = properties["annotations"]["horizontal"].as_array().into_iter().flatten();
    Ok(Graph {
        place: ["x", "y", "width", "height"].map(|name| widget[name].as_u64().unwrap_or_default()),
        period_min: properties["period"].as_i64().unwrap_or(300) / 60,
        stacked: properties["stacked"] == true,
        most: ["left", "right"].map(|side| properties["yAxis"][side]["max"].as_f64()),
        horizontal: horizontal
            .filter_map(|one| Some((one["label"].as_str()?.to_owned(), one["value"].as_f64()?)))
            .collect(),
        lines: lines
            .iter()
            .map(|one| line(one, stat).ok_or(format!("{title}: {one}")))
            .collect::<Result<_, _>>()?,
        title,
    })
}

/// `[namespace, name, dimension, value, …, options]`, or `[{expression, …}]`.
fn line(metric: &Value, stat: &str) -> Option<Line> {
    let parts = metric.as_array()?;
    let options = parts.last().filter(|last| last.is_object()).cloned().unwrap_or_default();
    let words: Vec<&str> = parts.iter().filter_map(Value::as_str).collect();
    let text = |name: &str| options[name].as_str().map(str::to_owned);
    let (of, name) = match words.as_slice() {
        [] => (Of::Math(Expr::parse(options["expression"].as_str()?).ok()?), "expression"),
        [namespace, name, dimensions @ ..] => {
            let dimensions: Vec<(&str, &str)> =
                dimensions.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
            let stat = Statistic::of_name(options["stat"].as_str().unwrap_or(stat))?;
            (Of::Metric(MetricKey::new(namespace, name, &dimensions), stat), *name)
        }
        [_] => return None,
    };
    Some(Line {
        of,
        id: text("id").unwrap_or_default(),
        label: text("label").unwrap_or(name.to_owned()),
        colour: text("color"),
        visible: options["visible"] != false,
        right: options["yAxis"] == "right",
    })
}

/// The metrics that it names and that were not emitted. Of those by reason or by cause, one of any reason or cause is enough:
/// that they are all there is held by their lists (`tests/repository`).
pub fn unseen<'a>(graphs: &'a [Graph], emitted: &BTreeSet<MetricKey>) -> impl Iterator<Item = &'a MetricKey> {
    let split = |key: &MetricKey| {
        let mut key = key.clone();
        for dimension in ["Reason", "Cause"] {
            key.dimensions.entry(dimension.to_owned()).and_modify(|value| *value = "any".to_owned());
        }
        key
    };
    let emitted: BTreeSet<MetricKey> = emitted.iter().map(split).collect();
    let named = graphs.iter().flat_map(|graph| &graph.lines).filter_map(|line| match &line.of {
        Of::Metric(key, _) => Some(key),
        Of::Math(_) => None,
    });
    named.filter(move |key| !emitted.contains(&split(key)))
}

const STYLE: &str = "
body{margin:1rem;font:14px/1.4 system-ui,sans-serif;color:#16191f;background:#fff}
h2{font-size:1.1rem;margin:1.5rem 0 .5rem}
.grid{display:grid;grid-template-columns:repeat(24,1fr);gap:.5rem}
.graph{border:1px solid #d5dbdb;border-radius:.3rem;padding:.5rem}
.graph b{display:block}.key{display:inline-block;margin-right:.75rem;font-size:12px}
.key i{display:inline-block;width:1rem;border-top:3px solid;margin-right:.3rem;vertical-align:middle}
svg{width:100%;height:auto;display:block}svg text{font:10px system-ui,sans-serif;fill:#545b64}
";
/// CloudWatch gives colours in an order of its own; these are as far apart.
const COLOURS: [&str; 8] =
    ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f"];
const SIZE: (f64, f64) = (480.0, 200.0);
const ROOM: (f64, f64, f64) = (40.0, 40.0, 18.0);

/// The dashboard over what each of some drills published, as one page.
#[must_use]
pub fn page(graphs: &[Graph], drills: &[(String, Data, u64)]) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head { meta charset="utf-8"; title { "The dashboard" } style { (PreEscaped(STYLE)) } }
            body { @for (fault, data, minutes) in drills {
                h2 { (fault) ", " (minutes) " minutes" }
                div.grid { @for graph in graphs { (shown(graph, data, *minutes as i64)) } }
            } }
        }
    };
    page.into_string()
}

/// The lines of a graph that are seen, a value for each of its periods.
fn series(graph: &Graph, data: &Data, starts: &[i64]) -> Vec<Series> {
    let metric = |line: &Line| match &line.of {
        Of::Metric(key, stat) => {
            let at = |from: &i64| data.statistic(key, *from, from + graph.period_min, *stat);
            Some(starts.iter().map(|from| at(from).map(|value| value.value)).collect::<Series>())
        }
        Of::Math(_) => None,
    };
    let by_id = |id: &str| graph.lines.iter().find(|line| line.id == id).and_then(metric);
    let reading = Reading::all(1)[0];
    let one = |line: &Line| match &line.of {
        Of::Math(expr) => expr.series(&Range { series: &by_id, starts, reading }).unwrap(),
        Of::Metric(..) => metric(line).unwrap_or_default(),
    };
    graph.lines.iter().filter(|line| line.visible).map(one).collect()
}

fn shown(graph: &Graph, data: &Data, minutes: i64) -> Markup {
    let starts: Vec<i64> = (0..minutes).step_by(graph.period_min.max(1) as usize).collect();
    let mut all = series(graph, data, &starts);
    if graph.stacked {
        for nth in 1..all.len() {
            let below = all[nth - 1].clone();
            let on_top = |(point, below): (&mut Option<f64>, Option<f64>)| {
                *point = Some(point.unwrap_or(0.0) + below.unwrap_or(0.0));
            };
            all[nth].iter_mut().zip(below).for_each(on_top);
        }
    }
    let lines: Vec<(usize, &Line)> = graph.lines.iter().filter(|line| line.visible).enumerate().collect();
    let top = |right: bool| {
        let of_side = lines.iter().filter(|(_, line)| line.right == right);
        let values = of_side.flat_map(|(nth, _)| all[*nth].iter().flatten().copied());
        let annotated = graph.horizontal.iter().map(|(_, value)| *value).filter(|_| !right);
        let most = values.chain(annotated).fold(0.0, f64::max);
        graph.most[usize::from(right)].unwrap_or(if most > 0.0 { most * 1.05 } else { 1.0 })
    };
    let tops = [top(false), top(true)];
    let (width, height) = SIZE;
    let (left, right, below) = ROOM;
    let x = |at: usize| left + at as f64 / (starts.len().max(2) - 1) as f64 * (width - left - right);
    let y = |value: f64, top: f64| (height - below) * (1.0 - (value / top).min(1.0)) + 4.0;
    let colour = |nth: usize, line: &Line| {
        line.colour.clone().unwrap_or_else(|| COLOURS[nth % COLOURS.len()].to_owned())
    };
    let has_right = lines.iter().any(|(_, line)| line.right);
    let [column, row, wide, high] = graph.place;
    html! {
        div.graph style={"grid-column:" (column + 1) "/span " (wide) ";grid-row:" (row + 1) "/span " (high)} {
            b { (graph.title) }
            svg viewBox={"0 0 " (width) " " (height + 6.0)} {
                @for share in [0.0, 0.5, 1.0] {
                    line x1=(left) x2=(width - right) y1=(y(share, 1.0)) y2=(y(share, 1.0)) stroke="#eaeded" {}
                    text x=(left - 4.0) y=(y(share, 1.0) + 4.0) text-anchor="end" { (number(tops[0] * share)) }
                    @if has_right { text x=(width - right + 4.0) y=(y(share, 1.0) + 4.0) { (number(tops[1] * share)) } }
                }
                @for (label, value) in &graph.horizontal {
                    line x1=(left) x2=(width - right) y1=(y(*value, tops[0])) y2=(y(*value, tops[0])) stroke="#d13212" stroke-dasharray="4 3" {}
                    text x=(width - right) y=(y(*value, tops[0]) - 3.0) text-anchor="end" { (label) }
                }
                @if graph.stacked {
                    // The highest first: each of the others covers what is not its own.
                    @for (nth, line) in lines.iter().rev() {
                        @let edge = all[*nth].iter().enumerate();
                        @let edge = edge.map(|(at, point)| format!("{:.1},{:.1} ", x(at), y(point.unwrap_or(0.0), tops[0])));
                        @let (first, last) = (x(0), x(starts.len().saturating_sub(1)));
                        polygon fill=(colour(*nth, line)) points={ (edge.collect::<String>()) (last) "," (y(0.0, 1.0)) " " (first) "," (y(0.0, 1.0)) } {}
                    }
                }
                @for (nth, line) in lines.iter().filter(|_| !graph.stacked) {
                    @for (at, point) in all[*nth].iter().enumerate() {
                        @if let (Some(a), Some(b)) = (point, all[*nth].get(at + 1).copied().flatten()) {
                            line x1=(x(at)) x2=(x(at + 1)) y1=(y(*a, tops[usize::from(line.right)])) y2=(y(b, tops[usize::from(line.right)])) stroke=(colour(*nth, line)) stroke-width="1.5" {}
                        }
                    }
                }
            }
            @for (nth, line) in &lines { span.key { i style={"border-color:" (colour(*nth, line))} {} (line.label) } }
        }
    }
}

fn number(value: f64) -> String {
    match value {
        value if value >= 10_000.0 => format!("{:.0}k", value / 1_000.0),
        value if value >= 10.0 || value == 0.0 => format!("{value:.0}"),
        value => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_no_drill_emitted_is_named_and_one_reason_stands_for_all() {
        let body = json!({"widgets": [{"type": "alarm"}, {"type": "metric", "properties": {"title": "T", "stat": "Sum", "metrics": [
            ["Nightshift", "DeadLetters", "Stack", "s", "Reason", "poison", {"label": "poison"}],
            ["Nightshift", "JobsSucceeded", "Stack", "s", {"id": "good"}],
            ["Nightshift", "JobsForgotten", "Stack", "s", {}],
            ["Nightshift", "ModelLatency", "Stack", "other", {"stat": "p95"}],
            [{"expression": "100 * FILL(good, 0)"}],
        ]}}]});
        let resource =
            json!({"type": "aws_cloudwatch_dashboard", "values": {"dashboard_body": body.to_string()}});
        let plan = json!({"planned_values": {"root_module": {"resources": [resource]}}});
        let graphs = of_plan(&plan.to_string()).unwrap();
        let key = |name, dimensions: &[(&str, &str)]| MetricKey::new("Nightshift", name, dimensions);
        let emitted = BTreeSet::from([
            key("DeadLetters", &[("Stack", "s"), ("Reason", "refused")]),
            key("JobsSucceeded", &[("Stack", "s")]),
            key("ModelLatency", &[("Stack", "s")]),
        ]);
        let unseen: Vec<_> = unseen(&graphs, &emitted).map(|key| key.name.as_str()).collect();
        assert_eq!(unseen, ["JobsForgotten", "ModelLatency"]);
        assert!(page(&graphs, &[("a fault".to_owned(), Data::default(), 60)]).contains("a fault"));
    }
}
