//! What expressions say, and what of them is refused.

use super::super::value::{item_from_json, item_to_json};
use super::*;
use serde_json::{Value as Json, json};

fn placeholders() -> Placeholders {
    let names = [("#state", "state"), ("#name", "a.b")];
    let values = json!({
        ":open": {"S": "open"}, ":one": {"N": "1"}, ":five": {"N": "5"}, ":nine": {"N": "9"},
        ":pre": {"S": "op"}, ":set": {"SS": ["x"]}, ":list": {"L": [{"N": "7"}]}, ":string": {"S": "S"},
    });
    Placeholders::new(
        names.iter().map(|(key, name)| ((*key).to_owned(), (*name).to_owned())).collect(),
        item_from_json(&values).unwrap(),
    )
}

fn item() -> Item {
    item_from_json(&json!({
        "id": {"S": "1"}, "state": {"S": "open"}, "n": {"N": "5"}, "tags": {"SS": ["x", "y"]},
        "steps": {"L": [{"S": "first"}, {"S": "second"}]}, "deep": {"M": {"inside": {"N": "2"}}}, "a.b": {"BOOL": true},
    }))
    .unwrap()
}

#[test]
fn conditions_hold_as_documented() {
    for (condition, expected) in [
        ("#state = :open", true),
        ("#state <> :open", false),
        ("absent = :open", false),
        ("absent <> :open", true),
        ("absent < :one", false),
        ("#state < :one", false),
        ("n >= :five AND n <= :five", true),
        ("n BETWEEN :one AND :nine", true),
        ("n IN (:one, :nine)", false),
        ("NOT n IN (:one, :nine)", true),
        ("attribute_not_exists(id) OR n = :five", true),
        ("attribute_not_exists(id) OR n = :one AND n = :five", false),
        ("(attribute_exists(id) OR n = :one) AND n = :one", false),
        ("attribute_exists(deep.inside) and attribute_not_exists(deep.outside)", true),
        ("attribute_type(#state, :string)", true),
        ("begins_with(#state, :pre)", true),
        ("contains(tags, :open)", false),
        ("contains(#state, :pre)", true),
        ("size(steps) > :one", true),
        ("steps[1] = steps[1]", true),
        ("attribute_exists(#name)", true),
        ("attribute_exists(a.b)", false),
    ] {
        let placeholders = placeholders();
        let parsed =
            Condition::parse(condition, &placeholders).unwrap_or_else(|error| panic!("{condition}: {error}"));
        assert_eq!(parsed.holds(&item()), expected, "{condition}");
    }
}

#[test]
fn updates_change_what_they_say_from_the_values_before() {
    for (update, path, expected) in [
        ("SET n = n + :one", "n", json!({"N": "6"})),
        ("SET n = :nine - n", "n", json!({"N": "4"})),
        ("SET n = if_not_exists(absent, :one) + :one", "n", json!({"N": "2"})),
        ("SET n = if_not_exists(n, :one)", "n", json!({"N": "5"})),
        ("set fresh = n, n = :one", "fresh", json!({"N": "5"})),
        ("ADD n :nine", "n", json!({"N": "14"})),
        ("ADD fresh :nine", "fresh", json!({"N": "9"})),
        ("DELETE tags :set", "tags", json!({"SS": ["y"]})),
        ("ADD fresh :set", "fresh", json!({"SS": ["x"]})),
        (
            "SET steps = list_append(steps, :list)",
            "steps",
            json!({"L": [{"S": "first"}, {"S": "second"}, {"N": "7"}]}),
        ),
        ("SET steps[0] = :one REMOVE n", "steps", json!({"L": [{"N": "1"}, {"S": "second"}]})),
        ("REMOVE steps[0]", "steps", json!({"L": [{"S": "second"}]})),
        ("SET deep.outside = :one", "deep", json!({"M": {"inside": {"N": "2"}, "outside": {"N": "1"}}})),
        ("REMOVE #state", "state", Json::Null),
    ] {
        let placeholders = placeholders();
        let parsed = Update::parse(update, &placeholders).unwrap_or_else(|error| panic!("{update}: {error}"));
        let after = item_to_json(&parsed.apply(&item()).unwrap());
        assert_eq!(after.get(path).cloned().unwrap_or_default(), expected, "{update}");
    }
}

#[test]
fn what_dynamodb_refuses_is_refused() {
    for condition in [
        "state = :open",
        "n = :absent",
        "#absent = :one",
        "n =",
        "n = :one AND",
        "(n = :one",
        "n : :one",
        "",
        "n",
        "attribute_type(n, n)",
        "begins_with(n)",
    ] {
        assert!(Condition::parse(condition, &placeholders()).is_err(), "{condition}");
    }
    for update in [
        "SET n = :one SET steps = :list",
        "SET n = :one, n = :nine",
        "SET deep = :one, deep.inside = :one",
        "ADD n :open",
        "DELETE tags :one",
        "SET n = size(steps)",
        "n = :one",
        "SET status = :one",
        "REMOVE",
        "SET n = n + n + n",
    ] {
        assert!(Update::parse(update, &placeholders()).is_err(), "{update}");
    }
    for update in ["SET n = absent", "SET n = n + #state", "SET absent.x = :one", "ADD #state :one"] {
        let placeholders = placeholders();
        let parsed = Update::parse(update, &placeholders).unwrap();
        assert!(parsed.apply(&item()).is_err(), "{update}");
    }
    let nested = format!("{}n = :one{}", "(".repeat(1000), ")".repeat(1000));
    assert!(Condition::parse(&nested, &placeholders()).is_err());
}

#[test]
fn placeholders_that_nothing_uses_are_refused() {
    let values = item_from_json(&json!({":one": {"N": "1"}, ":two": {"N": "2"}})).unwrap();
    let placeholders = Placeholders::new(BTreeMap::new(), values);
    Condition::parse("n = :one", &placeholders).unwrap();
    assert!(placeholders.check_all_used().unwrap_err().contains(":two"));
    Condition::parse("n = :two", &placeholders).unwrap();
    placeholders.check_all_used().unwrap();
}

#[test]
fn a_projection_keeps_the_paths_and_their_containers() {
    let placeholders = placeholders();
    let projection = Projection::parse("id, deep.inside, steps[1], absent", &placeholders).unwrap();
    assert_eq!(
        item_to_json(&projection.apply(&item())),
        json!({"id": {"S": "1"}, "deep": {"M": {"inside": {"N": "2"}}}, "steps": {"L": [{"S": "second"}]}})
    );
}
