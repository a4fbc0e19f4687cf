//! What a call costs, and how much a day may.

use nightshift_core::cost::Price;
use nightshift_models::price_of;
use nightshift_models::prices::micro_usd;

use super::Environment;
use super::model::ProviderName;

/// What a model costs where no list says so: the names of the settings, in dollars per million tokens read and written.
pub const PRICES: [&str; 2] = ["NIGHTSHIFT_MODEL_INPUT_USD_PER_MTOK", "NIGHTSHIFT_MODEL_OUTPUT_USD_PER_MTOK"];

/// Reads what the model costs: as it is set, or as its list says. Needs the names of provider and model, and no key.
pub fn price(environment: &mut Environment<'_>) -> Price {
    let given = PRICES.map(|name| environment.optional(name).map(|text| dollars(environment, name, &text)));
    match given {
        [Some(input), Some(output)] => return Price::flat(input, output),
        [None, None] => {}
        _ => {
            let [input, output] = PRICES;
            environment.fault(format!("Only one of {input} and {output} is set: a price has both."));
        }
    }
    let provider = ProviderName::read(environment);
    let model = environment.required("NIGHTSHIFT_MODEL", "set the model's id");
    // A name that is missing or that nobody knows is a fault by itself.
    let Some(provider) = provider.map(ProviderName::as_str).filter(|_| !model.is_empty()) else {
        return Price::flat(0, 0);
    };
    price_of(provider, &model).unwrap_or_else(|| {
        if given == [None, None] {
            let [input, output] = PRICES;
            environment.fault(format!(
                "The price of NIGHTSHIFT_MODEL {model:?} of {provider} is not known: set {input} and {output}, in dollars per million tokens."
            ));
        }
        Price::flat(0, 0)
    })
}

/// The most that a UTC day may cost, where it is set.
pub(super) fn cap_micro_usd(environment: &mut Environment<'_>) -> Option<u64> {
    const CAP: &str = "NIGHTSHIFT_SPEND_CAP_USD_PER_DAY";
    let text = environment.optional(CAP)?;
    Some(dollars(environment, CAP, &text))
}

fn dollars(environment: &mut Environment<'_>, name: &str, dollars: &str) -> u64 {
    micro_usd(dollars).unwrap_or_else(|| {
        environment.fault(format!("{name} is {dollars:?}: set an amount of dollars such as 0.25 or 15."));
        0
    })
}
