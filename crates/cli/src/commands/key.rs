//! `key set`: the model key, from standard input or a prompt into where the worker reads it; `key check`: whether the
//! provider accepts it.

use std::io::{self, IsTerminal, Read, Write};

use clap::{Args, Subcommand};
use nightshift_aws::secrets::key_in;
use nightshift_core::cost::usd;
use nightshift_core::model::{FailureClass, ModelRequest, Turn};
use nightshift_core::spend::CallPrice;
use nightshift_core::task::Tasks as _;
use nightshift_shell::model::connect;
use nightshift_shell::settings::{KeySettings, StackSettings};
use rustix::termios::{self, LocalModes, OptionalActions, Termios};
use secrecy::{ExposeSecret, SecretString};

use crate::Context;
use crate::caller;
use crate::confirm::{self, Consent};
use crate::error::{self, Failure};
use crate::render::say;
use crate::stack::{Stack, stored_key};
use crate::trace;

/// Longer is no key: the longest known ones have a few hundred characters, and a JSON with one fits too.
const KEY_BYTES_MAX: u64 = 4_096;
/// A person waits for this call.
const CALL_TIMEOUT_MS: u64 = 60_000;

/// The key that opens the model's provider.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Writes a new key to where the worker reads it.
    #[command(after_help = "\
The key comes from standard input, or is asked for on the terminal without being shown; never as an argument, which \
others on the machine could read and the shell's history would keep. Workers take it up within 15 minutes, or as soon as \
the provider refuses the one that they hold; revoke the old key after that.

Examples:
  nightshift key set --reason 'rotation of November'
  pass show anthropic | nightshift key set --reason 'rotation of November' --yes")]
    Set(SetArguments),
    /// Asks the provider whether it accepts the key: one smallest call, as the worker would make it.
    #[command(after_help = "\
It reads the key, which the policy of operators does not allow by itself; the key is sent to the provider and shown \
nowhere. The exit code is 3 where the provider refuses.

Examples:
  nightshift key check
  nightshift key check --yes")]
    Check(CheckArguments),
}

/// Why, and whether to ask.
#[derive(Debug, Args)]
pub struct SetArguments {
    #[command(flatten)]
    consent: Consent,
}

/// Whether to ask.
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// Do not ask; without a terminal no call is made unless this is given.
    #[arg(long)]
    yes: bool,
}

pub async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Set(arguments) => set(&arguments, context).await,
        Command::Check(arguments) => check(&arguments, context).await,
    }
}

async fn set(arguments: &SetArguments, context: &Context) -> Result<(), Failure> {
    let Consent { yes, reason } = &arguments.consent;
    let stack = context.stack().await?;
    let worker = stack.worker()?;
    let place = match worker.model.provider.key() {
        Some(place @ (KeySettings::Secret(_) | KeySettings::Parameter(_))) => place,
        _ => {
            return Err(Failure::failed(
                "The worker of this stack is told of no secret and no parameter, so there is nowhere to write a key: set model.key_parameter, or a provider that needs a key.",
            ));
        }
    };
    let caller = caller::of(&stack).await?;
    let name = match place {
        KeySettings::Secret(name) => format!("secret {name}"),
        KeySettings::Parameter(name) => format!("parameter {name}"),
        KeySettings::Given(_) => String::new(),
    };
    confirm::ask(
        *yes,
        &format!(
            "Writes a new model key for {} into the {name} of account {} at {}.",
            stack.named(),
            caller.account,
            stack.endpoint()
        ),
    )
    .await?;
    let key = read().await?;
    context.interrupt.handle("the key may be the new one or the old one, so run the same command again");
    let trace = trace::begin(&stack, "key set", reason).await?;
    let ended = write(&stack, place, &key).await;
    trace.end(&ended).await;
    let version = ended?;
    say(&format!(
        "The {name} has a new key (version {version}). Workers take it up within 15 minutes; revoke the old one after that."
    ));
    Ok(())
}

async fn write(stack: &Stack, place: &KeySettings, key: &SecretString) -> Result<String, Failure> {
    match place {
        KeySettings::Secret(id) => {
            let client = aws_sdk_secretsmanager::Client::new(&stack.sdk);
            let written =
                client.put_secret_value().secret_id(id).secret_string(key.expose_secret()).send().await;
            let written = written.map_err(|e| error::of_aws("secretsmanager:PutSecretValue", &e))?;
            Ok(written.version_id.unwrap_or_default())
        }
        KeySettings::Parameter(name) => {
            let client = aws_sdk_ssm::Client::new(&stack.sdk);
            let written = client
                .put_parameter()
                .name(name)
                .r#type(aws_sdk_ssm::types::ParameterType::SecureString)
                .overwrite(true)
                .value(key.expose_secret())
                .send()
                .await;
            Ok(written.map_err(|e| error::of_aws("ssm:PutParameter", &e))?.version.to_string())
        }
        KeySettings::Given(_) => {
            Err(Failure::failed("The key stands in the worker's environment: set it there."))
        }
    }
}

async fn check(arguments: &CheckArguments, context: &Context) -> Result<(), Failure> {
    let stack = context.stack().await?;
    match refusal(&stack, arguments.yes).await? {
        None => {
            say("The provider accepts the key.");
            Ok(())
        }
        Some(said) => Err(Failure::no(format!(
            "The provider refuses: {said}: write a good key with `nightshift key set`, or mend what it names."
        ))),
    }
}

/// What the provider says against one smallest call, after saying what that costs; `None`: it accepts key and model.
pub async fn refusal(stack: &Stack, yes: bool) -> Result<Option<String>, Failure> {
    let worker = stack.worker()?;
    let request = smallest_call()?;
    let price = CallPrice::new(worker.price, request.text_bytes(), request.output_tokens_max);
    confirm::ask(
        yes,
        &format!(
            "Makes one call of {} at {}, for at most {:.6} USD, with the key of {}.",
            worker.model.id,
            worker.model.base_url.as_deref().unwrap_or("its provider's own address"),
            usd(price.most_micro_usd()),
            stack.named()
        ),
    )
    .await?;
    if let Some(place) = worker.model.provider.key() {
        // Apart from the call, so that what is missing here is not taken for what the provider says.
        stored_key(&stack.sdk, place).await?;
    }
    let place = StackSettings { name: stack.prefix.clone(), region: stack.region.clone() };
    let (model, _) =
        connect(worker.model.clone(), &place, &stack.sdk, my_tasks::registry()).map_err(|error| {
            Failure::failed(format!("The model cannot be called with these settings: {error}."))
        })?;
    match model.call(&request).await {
        Ok(_) => Ok(None),
        Err(failure) if failure.class == FailureClass::Account => Ok(Some(failure.to_string())),
        Err(failure) => Err(Failure::failed(format!(
            "The provider did not say whether it accepts the key: {failure}: try again."
        ))),
    }
}

/// What the first task asks for its example, and the bytes of that: a call like any other, so that what a provider refuses of
/// ours is refused here too.
fn smallest_call() -> Result<ModelRequest, Failure> {
    let tasks = my_tasks::registry();
    let first = tasks.names().first().and_then(|name| Some((tasks.find(name)?, tasks.describe(name)?)));
    let (task, description) =
        first.ok_or_else(|| Failure::failed("This build knows no task to ask about."))?;
    let input = description.example_job.get("input").cloned().unwrap_or_default();
    let prompt = task.prompt(&input).map_err(|violations| {
        Failure::failed(format!(
            "The example of {} breaks its own rules: {}",
            task.name(),
            violations.0.join(" ")
        ))
    })?;
    Ok(ModelRequest {
        system: prompt.system,
        turns: vec![Turn::User(prompt.user)],
        schema_name: task.name().to_owned(),
        schema: std::sync::Arc::clone(task.schema()),
        output_tokens_max: task.output_tokens_max(),
        timeout_ms: CALL_TIMEOUT_MS,
    })
}

/// The key, which the worker would find usable.
async fn read() -> Result<SecretString, Failure> {
    let given = if io::stdin().is_terminal() {
        let _hidden = Hidden::begin().map_err(|_| unread())?;
        let mut err = io::stderr();
        let _ = write!(err, "Model key (it is not shown): ").and_then(|()| err.flush());
        confirm::line().await.ok_or_else(unread)?
    } else {
        let read = tokio::task::spawn_blocking(|| {
            let mut text = String::new();
            io::stdin().lock().take(KEY_BYTES_MAX + 1).read_to_string(&mut text).map(|_| text)
        });
        read.await.map_err(|_| unread())?.map_err(|_| unread())?
    };
    if given.len() as u64 > KEY_BYTES_MAX {
        return Err(Failure::usage(format!(
            "What was given has more than {KEY_BYTES_MAX} bytes, so it is no key: give the key alone."
        )));
    }
    let key = key_in(Some(&given)).map_err(|fault| Failure::usage(format!("What was given {fault}.")))?;
    if key.expose_secret().chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(Failure::usage(
            "What was given has blanks or line breaks within it, so it is no key: give the key alone.",
        ));
    }
    // As it was given: JSON with more members than the key stays what it is.
    Ok(SecretString::from(given.trim().to_owned()))
}

/// While it lives, the terminal shows nothing of what is typed; however it ends, a Ctrl-C included, it shows it again.
struct Hidden(Termios);

impl Hidden {
    fn begin() -> io::Result<Self> {
        let shown = termios::tcgetattr(io::stdin())?;
        let mut hidden = shown.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        termios::tcsetattr(io::stdin(), OptionalActions::Flush, &hidden)?;
        Ok(Self(shown))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
        // The line break that was typed is not shown either.
        say("");
    }
}

fn unread() -> Failure {
    Failure::failed("No key could be read, and nothing was changed.")
}
