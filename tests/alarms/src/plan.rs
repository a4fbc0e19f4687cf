//! The alarms of a plan (`terraform show -json`): what is planned is what is evaluated.

use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

use crate::composite::{Rule, RuleError};
use crate::data::{MetricKey, Minute, Statistic};
use crate::decide::Missing;
use crate::math::{Expr, MathError};

/// The alarms of one stack.
#[derive(Debug, Clone, Default)]
pub struct Alarms {
    /// Those over metrics.
    pub metric: Vec<MetricAlarm>,
    /// Those over other alarms.
    pub composite: Vec<CompositeAlarm>,
}

/// An alarm over one metric or one expression.
#[derive(Debug, Clone)]
pub struct MetricAlarm {
    /// As planned, with the stack's prefix.
    pub name: String,
    /// What it reads, by id; `""` where there is no expression.
    pub queries: Vec<Query>,
    /// What it computes of them.
    pub expression: Option<Expr>,
    /// The period of all its metrics, in minutes.
    pub period: Minute,
    /// `EvaluationPeriods`.
    pub n: u32,
    /// `DatapointsToAlarm`.
    pub m: u32,
    /// What is compared with.
    pub threshold: f64,
    /// How.
    pub comparison: Comparison,
    /// What missing data means.
    pub missing: Missing,
    /// Few samples of a percentile keep the state.
    pub ignores_low_samples: bool,
    /// It tells somebody.
    pub acts: bool,
}

/// A metric that an alarm reads.
#[derive(Debug, Clone)]
pub struct Query {
    /// Its id in the expression.
    pub id: String,
    /// Which one.
    pub metric: MetricKey,
    /// The statistic over a period.
    pub statistic: Statistic,
}

/// How a point is compared with the threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // They are what they are called.
pub enum Comparison {
    GreaterOrEqual,
    Greater,
    Less,
    LessOrEqual,
}

impl Comparison {
    /// Whether the value breaches.
    #[must_use]
    pub fn breaches(self, value: f64, threshold: f64) -> bool {
        match self {
            Self::GreaterOrEqual => value >= threshold,
            Self::Greater => value > threshold,
            Self::Less => value < threshold,
            Self::LessOrEqual => value <= threshold,
        }
    }
}

/// An alarm over the states of others.
#[derive(Debug, Clone)]
pub struct CompositeAlarm {
    /// As planned, with the stack's prefix.
    pub name: String,
    /// When it is raised.
    pub rule: Rule,
    /// It tells somebody.
    pub acts: bool,
}

/// What the evaluator cannot read.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Not what `terraform show -json` writes.
    #[error("the plan is not what `terraform show -json` writes: {0}")]
    Form(#[from] serde_json::Error),
    /// An alarm that the evaluator does not understand.
    #[error("alarm {alarm}: {why}")]
    Alarm {
        /// Its name.
        alarm: String,
        /// What is wrong with it.
        why: String,
    },
}

#[derive(Deserialize)]
struct Plan {
    planned_values: Planned,
}

#[derive(Deserialize)]
struct Planned {
    root_module: Module,
}

#[derive(Deserialize)]
struct Module {
    #[serde(default)]
    resources: Vec<Resource>,
    #[serde(default)]
    child_modules: Vec<Module>,
}

#[derive(Deserialize)]
struct Resource {
    #[serde(rename = "type")]
    kind: String,
    values: Value,
}

#[derive(Deserialize)]
struct MetricValues {
    alarm_name: String,
    comparison_operator: String,
    evaluation_periods: u32,
    datapoints_to_alarm: Option<u32>,
    threshold: Option<f64>,
    treat_missing_data: Option<String>,
    evaluate_low_sample_count_percentiles: Option<String>,
    alarm_actions: Option<Vec<Value>>,
    #[serde(flatten)]
    single: SingleMetric,
    #[serde(default)]
    metric_query: Vec<MetricQuery>,
    /// Forms that no alarm here has; one that had would be judged wrongly.
    threshold_metric_id: Option<String>,
    #[serde(default)]
    evaluation_criteria: Vec<Value>,
    evaluation_interval: Option<Value>,
}

#[derive(Deserialize)]
struct SingleMetric {
    namespace: Option<String>,
    metric_name: Option<String>,
    period: Option<i64>,
    statistic: Option<String>,
    extended_statistic: Option<String>,
    dimensions: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct MetricQuery {
    id: String,
    expression: Option<String>,
    return_data: Option<bool>,
    #[serde(default)]
    metric: Vec<QueriedMetric>,
}

#[derive(Deserialize)]
struct QueriedMetric {
    namespace: Option<String>,
    metric_name: String,
    period: i64,
    stat: String,
    dimensions: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct CompositeValues {
    alarm_name: String,
    alarm_rule: String,
    alarm_actions: Option<Vec<Value>>,
    #[serde(default)]
    actions_suppressor: Vec<Value>,
}

impl Alarms {
    /// Reads all alarms of a plan, of its child modules too.
    ///
    /// # Errors
    /// When the plan or one of its alarms is not understood.
    pub fn of_plan(json: &str) -> Result<Self, PlanError> {
        let plan: Plan = serde_json::from_str(json)?;
        let mut alarms = Self::default();
        alarms.read(plan.planned_values.root_module)?;
        alarms.check_names()?;
        Ok(alarms)
    }

    fn read(&mut self, module: Module) -> Result<(), PlanError> {
        for resource in module.resources {
            match resource.kind.as_str() {
                "aws_cloudwatch_metric_alarm" => {
                    self.metric.push(metric_alarm(serde_json::from_value(resource.values)?)?);
                }
                "aws_cloudwatch_composite_alarm" => {
                    self.composite.push(composite_alarm(serde_json::from_value(resource.values)?)?);
                }
                _ => {}
            }
        }
        module.child_modules.into_iter().try_for_each(|child| self.read(child))
    }

    /// A rule about an alarm that is not planned would never hold.
    fn check_names(&self) -> Result<(), PlanError> {
        let known = |name: &str| {
            self.metric.iter().any(|alarm| alarm.name == name)
                || self.composite.iter().any(|alarm| alarm.name == name)
        };
        for alarm in &self.composite {
            if let Some(unknown) = alarm.rule.names().into_iter().find(|name| !known(name)) {
                return Err(wrong(&alarm.name, format!("its rule names {unknown}, which is not planned")));
            }
        }
        Ok(())
    }
}

fn wrong(alarm: &str, why: impl Into<String>) -> PlanError {
    PlanError::Alarm { alarm: alarm.to_owned(), why: why.into() }
}

fn composite_alarm(values: CompositeValues) -> Result<CompositeAlarm, PlanError> {
    let name = values.alarm_name;
    if !values.actions_suppressor.is_empty() {
        return Err(wrong(&name, "it has a suppressor: let `watch` act by composite::Suppression first"));
    }
    let rule = Rule::parse(&values.alarm_rule).map_err(|error: RuleError| wrong(&name, error.to_string()))?;
    Ok(CompositeAlarm { rule, acts: acts(values.alarm_actions), name })
}

fn acts(actions: Option<Vec<Value>>) -> bool {
    actions.is_some_and(|actions| !actions.is_empty())
}

fn metric_alarm(values: MetricValues) -> Result<MetricAlarm, PlanError> {
    let name = values.alarm_name;
    if values.threshold_metric_id.is_some()
        || !values.evaluation_criteria.is_empty()
        || values.evaluation_interval.is_some()
    {
        return Err(wrong(&name, "anomaly bands, query alarms and other windows are not evaluated here"));
    }
    let threshold = values.threshold.ok_or_else(|| wrong(&name, "it has no threshold"))?;
    let comparison = match values.comparison_operator.as_str() {
        "GreaterThanOrEqualToThreshold" => Comparison::GreaterOrEqual,
        "GreaterThanThreshold" => Comparison::Greater,
        "LessThanThreshold" => Comparison::Less,
        "LessThanOrEqualToThreshold" => Comparison::LessOrEqual,
        other => return Err(wrong(&name, format!("the comparison {other} is unknown"))),
    };
    let missing = match values.treat_missing_data.as_deref() {
        None | Some("missing") => Missing::Missing,
        Some("ignore") => Missing::Ignore,
        Some("breaching") => Missing::Breaching,
        Some("notBreaching") => Missing::NotBreaching,
        Some(other) => return Err(wrong(&name, format!("missing data as {other} is unknown"))),
    };
    let (queries, expression, period_s) = if values.metric_query.is_empty() {
        single(&name, values.single)?
    } else {
        computed(&name, values.metric_query)?
    };
    if period_s < 60 || period_s % 60 != 0 {
        return Err(wrong(&name, format!("a period of {period_s} s is not in minutes")));
    }
    let n = values.evaluation_periods;
    let m = values.datapoints_to_alarm.unwrap_or(n);
    if m == 0 || m > n {
        return Err(wrong(&name, format!("{m} of {n} points")));
    }
    Ok(MetricAlarm {
        queries,
        expression,
        period: period_s / 60,
        n,
        m,
        threshold,
        comparison,
        missing,
        ignores_low_samples: values.evaluate_low_sample_count_percentiles.as_deref() == Some("ignore"),
        acts: acts(values.alarm_actions),
        name,
    })
}

type Read = (Vec<Query>, Option<Expr>, i64);

fn single(name: &str, single: SingleMetric) -> Result<Read, PlanError> {
    let metric_name = single.metric_name.ok_or_else(|| wrong(name, "it watches no metric"))?;
    let statistic = single
        .statistic
        .or(single.extended_statistic)
        .and_then(|statistic| Statistic::of_name(&statistic))
        .ok_or_else(|| wrong(name, "its statistic is unknown"))?;
    let metric = MetricKey {
        namespace: single.namespace.unwrap_or_default(),
        name: metric_name,
        dimensions: single.dimensions.unwrap_or_default(),
    };
    let period_s = single.period.ok_or_else(|| wrong(name, "it has no period"))?;
    Ok((vec![Query { id: String::new(), metric, statistic }], None, period_s))
}

fn computed(name: &str, all: Vec<MetricQuery>) -> Result<Read, PlanError> {
    let mut queries = Vec::new();
    let mut returned = Vec::new();
    let mut periods = Vec::new();
    for MetricQuery { id, expression, return_data, metric } in all {
        match (expression, metric.into_iter().next()) {
            (None, Some(metric)) => {
                let statistic = Statistic::of_name(&metric.stat)
                    .ok_or_else(|| wrong(name, format!("the statistic {} is unknown", metric.stat)))?;
                periods.push(metric.period);
                let metric = MetricKey {
                    namespace: metric.namespace.unwrap_or_default(),
                    name: metric.metric_name,
                    dimensions: metric.dimensions.unwrap_or_default(),
                };
                queries.push(Query { id, metric, statistic });
            }
            (Some(expression), None) if return_data == Some(true) => returned.push(expression),
            _ => return Err(wrong(name, format!("the query {id} is neither a metric nor what is watched"))),
        }
    }
    periods.dedup();
    let ([expression], [period_s]) = (returned.as_slice(), periods.as_slice()) else {
        return Err(wrong(name, "it must watch one expression over metrics of one period"));
    };
    let expression = Expr::parse(expression).map_err(|error: MathError| wrong(name, error.to_string()))?;
    if let Some(unknown) = expression.ids().into_iter().find(|id| queries.iter().all(|query| query.id != *id))
    {
        return Err(wrong(name, MathError::UnknownId(unknown.to_owned()).to_string()));
    }
    Ok((queries, Some(expression), *period_s))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(kind: &str, values: Value) -> Result<Alarms, PlanError> {
        let known = json!({"type": "aws_cloudwatch_metric_alarm", "values": sum_of_errors()});
        let resource = json!({"type": kind, "values": values});
        Alarms::of_plan(
            &json!({"planned_values": {"root_module": {"resources": [known, resource]}}}).to_string(),
        )
    }

    /// The fields that an alarm must have; the others are left to AWS.
    fn sum_of_errors() -> Value {
        json!({
            "alarm_name": "errors", "namespace": "N", "metric_name": "Errors", "statistic": "Sum", "period": 60,
            "comparison_operator": "GreaterThanThreshold", "threshold": 5.0, "evaluation_periods": 3,
        })
    }

    fn metric_alarm_with(field: &str, value: Value) -> MetricAlarm {
        let mut values = sum_of_errors();
        values[field] = value;
        read("aws_cloudwatch_metric_alarm", values).unwrap().metric.pop().unwrap()
    }

    #[test]
    fn missing_data_that_is_not_spoken_of_is_missing() {
        for (word, expected) in [
            (Value::Null, Missing::Missing),
            (json!("missing"), Missing::Missing),
            (json!("ignore"), Missing::Ignore),
            (json!("breaching"), Missing::Breaching),
            (json!("notBreaching"), Missing::NotBreaching),
        ] {
            assert_eq!(metric_alarm_with("treat_missing_data", word.clone()).missing, expected, "{word}");
        }
    }

    #[test]
    fn all_periods_must_breach_unless_the_alarm_says_how_many() {
        for (m, expected) in [(Value::Null, 3), (json!(2), 2)] {
            assert_eq!(metric_alarm_with("datapoints_to_alarm", m.clone()).m, expected, "{m} of 3");
        }
    }

    #[test]
    fn few_samples_are_evaluated_unless_the_alarm_ignores_them() {
        for (word, expected) in [(Value::Null, false), (json!("evaluate"), false), (json!("ignore"), true)] {
            let alarm = metric_alarm_with("evaluate_low_sample_count_percentiles", word.clone());
            assert_eq!(alarm.ignores_low_samples, expected, "{word}");
        }
    }

    #[test]
    fn the_threshold_itself_breaches_only_where_the_comparison_includes_it() {
        for (word, expected) in [
            ("GreaterThanThreshold", [false, false, true]),
            ("GreaterThanOrEqualToThreshold", [false, true, true]),
            ("LessThanThreshold", [true, false, false]),
            ("LessThanOrEqualToThreshold", [true, true, false]),
        ] {
            let alarm = metric_alarm_with("comparison_operator", json!(word));
            let found = [4.0, 5.0, 6.0].map(|value| alarm.comparison.breaches(value, alarm.threshold));
            assert_eq!(found, expected, "4, 5 and 6 against 5: {word}");
        }
    }

    #[test]
    fn the_metrics_of_an_expression_are_of_one_period() {
        let of_periods = |first: i64, second: i64| {
            let metric = |id: &str, period: i64| json!({"id": id, "metric": [{"metric_name": id, "period": period, "stat": "Sum"}]});
            let mut values = sum_of_errors();
            values["metric_query"] = json!([
                metric("a", first), metric("b", second), {"id": "c", "expression": "a + b", "return_data": true},
            ]);
            read("aws_cloudwatch_metric_alarm", values)
        };
        assert_eq!(of_periods(300, 300).unwrap().metric[1].period, 5);
        for (first, second) in [(60, 300), (300, 60)] {
            let refused = of_periods(first, second).unwrap_err().to_string();
            assert!(refused.contains("one period"), "{first} s and {second} s: {refused}");
        }
    }

    #[test]
    fn a_composite_without_a_suppressor_over_planned_alarms_is_read_and_no_other() {
        let composite = |rule: &str, suppressor: Value| {
            let values = json!({"alarm_name": "all", "alarm_rule": rule, "actions_suppressor": suppressor});
            read("aws_cloudwatch_composite_alarm", values)
        };
        assert_eq!(composite("ALARM(errors)", json!([])).unwrap().composite.len(), 1);
        let suppressor = json!([{"alarm": "errors", "wait_period": 60, "extension_period": 60}]);
        for (rule, suppressor, why) in [
            ("ALARM(errors)", suppressor, "it has a suppressor"),
            ("ALARM(errors) OR ALARM(error)", json!([]), "its rule names error, which is not planned"),
        ] {
            let refused = composite(rule, suppressor).expect_err(why).to_string();
            assert!(refused.contains(why), "{rule}: {refused}");
        }
    }
}
