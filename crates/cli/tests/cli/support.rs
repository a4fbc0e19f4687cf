//! A stack to speak to: SQS and DynamoDB of `crates/local`, and a few answers of Lambda, STS and others written out.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_http_client::Builder;
use nightshift_aws::ledger::table;
use nightshift_local::aws::{Item, LocalAws, item_to_json};
use serde_json::{Value, json};

pub const REGION: &str = "eu-central-1";
pub const LEDGER: &str = "nightshift-ledger";
pub const ACCOUNT: &str = "000000000000";
pub const CALLER: &str = "arn:aws:sts::000000000000:assumed-role/operator/ann";

/// How the command ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// In place of a function's answer: AWS fails.
pub const UNANSWERED: &str = "unanswered";

/// In place of a function's answer: AWS does not let it do what it was asked.
pub const DENIED: &str = "denied";

impl Ran {
    pub fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:#?}");
        self
    }
}

/// The command without a stack, without credentials, and with nothing of this machine's environment.
pub fn bare(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift"));
    command
        .args(args)
        .env_clear()
        .envs([
            ("PATH", "/usr/bin:/bin"),
            ("HOME", "/nonexistent"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("TZ", "UTC"),
        ])
        .stdin(Stdio::null());
    command
}

pub fn run(command: &mut Command) -> Ran {
    tokio::task::block_in_place(|| Ran::of(command.output().unwrap()))
}

/// Runs with this on standard input.
pub fn run_with(command: &mut Command, input: &[u8]) -> Ran {
    tokio::task::block_in_place(|| {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let feed = std::thread::spawn(move || {
            // A command that fails early does not read to the end.
            let _ = stdin.write_all(&input);
        });
        let output = child.wait_with_output().unwrap();
        feed.join().unwrap();
        Ran::of(output)
    })
}

/// A stack with the default prefix.
pub struct Stand {
    pub aws: LocalAws,
    rest: Rest,
}

impl Stand {
    pub async fn start() -> Self {
        let aws = LocalAws::start(REGION).await.unwrap();
        let sdk = sdk(aws.endpoint_url());
        table::create(&aws_sdk_dynamodb::Client::new(&sdk), LEDGER).await.unwrap();
        let sqs = aws_sdk_sqs::Client::new(&sdk);
        for queue in ["nightshift-jobs", "nightshift-dead-letters", "nightshift-crashed"] {
            sqs.create_queue().queue_name(queue).send().await.unwrap();
        }
        let rest = Rest::start(environment(&aws), aws.endpoint_url());
        Self { aws, rest }
    }

    /// The command against this stack, by somebody who may do everything.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = bare(args);
        command.envs([
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_REGION", REGION),
            ("AWS_ENDPOINT_URL", &self.rest.url),
        ]);
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        run(&mut self.command(args))
    }

    /// From now on this action fails with this code.
    pub fn refuse(&self, action: &str, code: &str) {
        self.rest.state.lock().unwrap().refused.insert(action.to_owned(), code.to_owned());
    }

    /// From now on this action is answered again.
    pub fn allow(&self, action: &str) {
        self.rest.state.lock().unwrap().refused.remove(action);
    }

    /// From now on this action is not answered; without one, what waits for its answer gets it.
    pub fn hang(&self, action: Option<&str>) {
        self.rest.state.lock().unwrap().hung = action.map(str::to_owned);
    }

    /// What this action is asked next is done, and nobody hears the answer.
    pub fn lose(&self, action: &str) {
        self.rest.state.lock().unwrap().lost = Some(action.to_owned());
    }

    /// From now on this action is answered so; a list is answered by its members in turn, the last one again and again.
    pub fn say(&self, action: &str, answer: Value) {
        self.rest.state.lock().unwrap().said.insert(action.to_owned(), answer);
    }

    /// The date of all answers from now on, as HTTP has it.
    pub fn date(&self, date: &str) {
        self.rest.state.lock().unwrap().date = Some(date.to_owned());
    }

    /// What was asked of AWS and of the model, in order, with its body.
    pub fn asked(&self) -> Vec<(String, Value)> {
        self.rest.state.lock().unwrap().asked.clone()
    }

    /// Where the others are, and the model.
    pub fn rest_url(&self) -> &str {
        &self.rest.url
    }

    /// What functions answer next, in this order; without an answer there is no such function.
    pub fn answer(&self, answers: impl IntoIterator<Item = Value>) {
        self.rest.state.lock().unwrap().answers = answers.into_iter().collect();
    }

    /// Sets a variable of the worker.
    pub fn set(&self, name: &str, value: &str) {
        self.rest.state.lock().unwrap().environment[name] = Value::from(value);
    }

    /// Whether the event source mapping is on.
    pub fn is_on(&self) -> bool {
        self.rest.state.lock().unwrap().enabled
    }

    /// For clients of a test's own.
    pub fn sdk(&self) -> SdkConfig {
        sdk(self.aws.endpoint_url())
    }

    /// Takes all messages out of a queue.
    pub async fn empty(&self, queue: &str) {
        let sqs = aws_sdk_sqs::Client::new(&self.sdk());
        let url = self.aws.queue_url(queue);
        loop {
            let got = sqs.receive_message().queue_url(&url).max_number_of_messages(10).send().await.unwrap();
            for message in got.messages() {
                let handle = message.receipt_handle().unwrap();
                sqs.delete_message().queue_url(&url).receipt_handle(handle).send().await.unwrap();
            }
            if got.messages().is_empty() {
                break;
            }
        }
    }

    /// The items of the ledger whose key begins with this.
    pub fn items(&self, prefix: &str) -> Vec<Value> {
        let items = self.aws.items(LEDGER);
        let items = items.iter().map(plain);
        items.filter(|item| item["id"].as_str().unwrap().starts_with(prefix)).collect()
    }
}

/// An item without its types.
fn plain(item: &Item) -> Value {
    let typed = item_to_json(item);
    let plain = typed.as_object().unwrap().iter().map(|(name, value)| {
        let (_, value) = value.as_object().unwrap().iter().next().unwrap();
        (name.clone(), value.clone())
    });
    Value::Object(plain.collect())
}

fn sdk(endpoint_url: &str) -> SdkConfig {
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(REGION))
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
            "test", "test", None, None, "test",
        )))
        .endpoint_url(endpoint_url)
        .http_client(Builder::new().build_http())
        .build()
}

fn environment(aws: &LocalAws) -> Value {
    json!({
        "NIGHTSHIFT_STACK": "nightshift",
        "NIGHTSHIFT_JOBS_URL": aws.queue_url("nightshift-jobs"),
        "NIGHTSHIFT_DEAD_LETTERS_URL": aws.queue_url("nightshift-dead-letters"),
        "NIGHTSHIFT_LEDGER_TABLE": LEDGER,
        "NIGHTSHIFT_PROVIDER": "anthropic",
        "NIGHTSHIFT_MODEL": "claude-haiku-4-5",
        "NIGHTSHIFT_MODEL_KEY_SECRET": "nightshift-model-key",
        "NIGHTSHIFT_RETENTION_MS": "604800000",
    })
}

/// Lambda, STS and the others: what their API references show as answers, for the few operations that are asked. What is for
/// SQS and DynamoDB goes on to those of `crates/local`, unless a test says otherwise.
struct Rest {
    url: String,
    state: Arc<Mutex<State>>,
}

impl Drop for Rest {
    fn drop(&mut self) {
        // A test of many stands would run out of open files.
        if let Ok(mut state) = self.state.lock() {
            state.over = true;
        }
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
    }
}

struct State {
    environment: Value,
    enabled: bool,
    refused: BTreeMap<String, String>,
    said: BTreeMap<String, Value>,
    lost: Option<String>,
    hung: Option<String>,
    over: bool,
    date: Option<String>,
    /// What a function answers next.
    answers: VecDeque<Value>,
    asked: Vec<(String, Value)>,
}

impl Rest {
    fn start(environment: Value, aws: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State {
            environment,
            enabled: true,
            refused: BTreeMap::new(),
            said: BTreeMap::new(),
            lost: None,
            hung: None,
            over: false,
            date: None,
            answers: VecDeque::new(),
            asked: Vec::new(),
        }));
        let served = Arc::clone(&state);
        let aws = aws.trim_start_matches("http://").to_owned();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if served.lock().unwrap().over {
                    break;
                }
                let (state, aws) = (Arc::clone(&served), aws.clone());
                std::thread::spawn(move || serve(stream, &state, &aws));
            }
        });
        Self { url, state }
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>, aws: &str) -> Option<()> {
    let mut read = BufReader::new(stream);
    let mut line = String::new();
    read.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut head, mut headers) = (line.clone(), BTreeMap::new());
    loop {
        let mut header = String::new();
        read.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim().split_once(": ") else { break };
        if !["connection", "content-length"].contains(&name.to_lowercase().as_str()) {
            head.push_str(&header);
        }
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    read.read_exact(&mut body).ok()?;
    let target = headers.get("x-amz-target").map(String::as_str).unwrap_or_default();
    let text = String::from_utf8_lossy(&body);
    let action = action(&method, path.split('?').next().unwrap(), target, &text);
    let region = headers.get("authorization").and_then(|signed| signed.split('/').nth(2));
    let mut locked = state.lock().unwrap();
    locked.asked.push((action.clone(), serde_json::from_str(&text).unwrap_or(Value::Null)));
    let mut stream = read.into_inner();
    while locked.hung.as_ref() == Some(&action) {
        drop(locked);
        stream.set_read_timeout(Some(Duration::from_millis(5))).ok()?;
        // Whoever asks gave up, or sent more: neither waits.
        if stream.read(&mut [0]).is_ok() {
            return None;
        }
        locked = state.lock().unwrap();
    }
    let is_told = locked.refused.contains_key(&action) || locked.said.contains_key(&action);
    if (action.starts_with("AmazonSQS") || action.starts_with("DynamoDB")) && !is_told {
        let is_lost = locked.lost.take_if(|lost| *lost == action).is_some();
        drop(locked);
        let mut onward = TcpStream::connect(aws).ok()?;
        if action == "AmazonSQS:ReceiveMessage" {
            // Nobody sends meanwhile, so that there is nothing to wait for.
            let mut asked: Value = serde_json::from_slice(&body).unwrap();
            asked["WaitTimeSeconds"] = Value::from(0);
            body = asked.to_string().into_bytes();
        }
        write!(onward, "{head}connection: close\r\ncontent-length: {}\r\n\r\n", body.len()).ok()?;
        onward.write_all(&body).ok()?;
        if is_lost {
            std::io::copy(&mut onward, &mut std::io::sink()).ok()?;
        } else {
            std::io::copy(&mut onward, &mut stream).ok()?;
        }
        return None;
    }
    let (status, kind, answer) = answer(&action, &path, region.unwrap_or_default(), &mut locked);
    drop(locked);
    let date = state.lock().unwrap().date.clone();
    let mut date = date.map(|date| format!("date: {date}\r\n")).unwrap_or_default();
    if answer["errorType"].is_string() {
        // As Lambda marks the answer of a function that failed.
        date.push_str("x-amz-function-error: Unhandled\r\n");
    }
    let code = if status == 200 {
        String::new()
    } else {
        format!("x-amzn-errortype: {}\r\n", answer["__type"].as_str().unwrap_or("Odd"))
    };
    let answer = match &answer {
        // An empty map, which is what CloudWatch says in its own protocol (RFC 8949, 3.1).
        Value::Null => b"\xa0".to_vec(),
        Value::String(text) => text.clone().into_bytes(),
        answer if kind.ends_with("cbor") => cbor(answer),
        answer => answer.to_string().into_bytes(),
    };
    write!(
        stream,
        "HTTP/1.1 {status} x\r\ncontent-type: {kind}\r\nsmithy-protocol: rpc-v2-cbor\r\n{code}{date}content-length: {}\r\nconnection: close\r\n\r\n",
        answer.len()
    )
    .ok()?;
    stream.write_all(&answer).ok()
}

/// JSON as CBOR (RFC 8949): texts, small whole numbers, flags, arrays and maps.
fn cbor(value: &Value) -> Vec<u8> {
    let head = |major: u8, n: usize| {
        let mut head = vec![major << 5 | 26];
        head.extend(u32::try_from(n).unwrap().to_be_bytes());
        head
    };
    match value {
        Value::Null => vec![0xf6],
        Value::Bool(flag) => vec![0xf4 + u8::from(*flag)],
        // A double, which CloudWatch's values are.
        Value::Number(n) => [&[0xfb][..], &n.as_f64().unwrap().to_be_bytes()].concat(),
        Value::String(text) => [&head(3, text.len())[..], text.as_bytes()].concat(),
        Value::Array(all) => all.iter().fold(head(4, all.len()), |so_far, one| [so_far, cbor(one)].concat()),
        Value::Object(all) => all.iter().fold(head(5, all.len()), |so_far, (name, one)| {
            [so_far, cbor(&Value::from(name.as_str())), cbor(one)].concat()
        }),
    }
}

/// What is asked, as the service and its operation.
fn action(method: &str, path: &str, target: &str, body: &str) -> String {
    match (method, path) {
        ("GET", _) if path.ends_with("/configuration") => "lambda:GetFunctionConfiguration".to_owned(),
        ("GET", _) if path.starts_with("/2015-03-31/event-source-mappings") => {
            "lambda:ListEventSourceMappings".to_owned()
        }
        ("POST", _) if path.ends_with("/invocations") => "lambda:InvokeFunction".to_owned(),
        ("PUT", _) if path.starts_with("/2015-03-31/event-source-mappings") => {
            "lambda:UpdateEventSourceMapping".to_owned()
        }
        ("GET", _) if path.ends_with("/versions") => "lambda:ListVersionsByFunction".to_owned(),
        ("GET", _) if path.ends_with("/account-settings") => "lambda:GetAccountSettings".to_owned(),
        ("GET", _) if path.ends_with("/functions/nightshift-worker") => "lambda:GetFunction".to_owned(),
        ("POST", "/v1/messages" | "/v1/chat/completions") => "model:Call".to_owned(),
        _ if body.contains("Action=ListSubscriptionsByTopic") => "sns:ListSubscriptionsByTopic".to_owned(),
        _ if body.contains("Action=GetCallerIdentity") => "sts:GetCallerIdentity".to_owned(),
        _ if path.contains("/operation/") => format!("cloudwatch:{}", path.rsplit('/').next().unwrap()),
        _ => target.replace('.', ":"),
    }
}

fn answer(action: &str, path: &str, region: &str, state: &mut State) -> (u16, &'static str, Value) {
    const JSON: &str = "application/json";
    const CBOR: &str = "application/cbor";
    if let Some(code) = state.refused.get(action) {
        if action == "model:Call" {
            return (
                401,
                JSON,
                json!({"type": "error", "error": {"type": code, "message": "invalid x-api-key"}}),
            );
        }
        let status = match code.as_str() {
            "ServiceUnavailable" => 503,
            code if code.starts_with("ResourceNotFound") => 404,
            _ => 403,
        };
        let message = format!("User: {CALLER} is not authorized to perform: {action}");
        if action.starts_with("sts:") || action.starts_with("sns:") {
            let error = format!("<Type>Sender</Type><Code>{code}</Code><Message>{message}</Message>");
            let error =
                format!("<ErrorResponse><Error>{error}</Error><RequestId>r</RequestId></ErrorResponse>");
            return (status, "text/xml", Value::from(error));
        }
        let kind = if action.starts_with("cloudwatch") { CBOR } else { JSON };
        return (status, kind, json!({"__type": code, "message": message, "Message": message}));
    }
    let said = state.said.get_mut(action).map(|said| match said {
        Value::Array(turns) if turns.len() > 1 => turns.remove(0),
        Value::Array(turns) => turns[0].clone(),
        said => said.clone(),
    });
    if let Some(said) = said {
        let kind = if action.starts_with("cloudwatch") { CBOR } else { JSON };
        return (200, if said.is_string() { "text/xml" } else { kind }, said);
    }
    let mapping = |state: &State| {
        json!({
            "UUID": "11111111-2222-3333-4444-555555555555",
            "EventSourceArn": format!("arn:aws:sqs:{REGION}:{ACCOUNT}:nightshift-jobs"),
            "FunctionArn": format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:nightshift-worker:live"),
            "State": if state.enabled { "Enabled" } else { "Disabled" },
        })
    };
    match action {
        "lambda:GetFunctionConfiguration" if path.contains("/nightshift-worker/") && region == REGION => (
            200,
            JSON,
            json!({
                "FunctionName": "nightshift-worker",
                "Version": "7",
                "Environment": {"Variables": state.environment},
            }),
        ),
        "lambda:GetFunctionConfiguration" => {
            (404, JSON, json!({"__type": "ResourceNotFoundException", "Message": "Function not found"}))
        }
        "lambda:InvokeFunction" => match state.answers.pop_front() {
            Some(answer) if answer == UNANSWERED => {
                (500, JSON, json!({"__type": "ServiceException", "Message": "An internal error occurred."}))
            }
            Some(answer) if answer == DENIED => (
                200,
                JSON,
                json!({
                    "errorType": nightshift_core::redrive::DENIED,
                    "errorMessage": "DynamoDB did not carry out GetItem: misconfigured: AccessDeniedException",
                }),
            ),
            Some(answer) => (200, JSON, answer),
            None => {
                (404, JSON, json!({"__type": "ResourceNotFoundException", "Message": "Function not found"}))
            }
        },
        "lambda:ListEventSourceMappings" => (200, JSON, json!({"EventSourceMappings": [mapping(state)]})),
        "lambda:UpdateEventSourceMapping" => {
            state.enabled = state.asked.last().unwrap().1["Enabled"].as_bool().unwrap();
            (200, JSON, mapping(state))
        }
        "sts:GetCallerIdentity" => (
            200,
            "text/xml",
            Value::from(format!(
                "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
                 <Arn>{CALLER}</Arn><UserId>AIDA:ann</UserId><Account>{ACCOUNT}</Account></GetCallerIdentityResult>\
                 <ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></GetCallerIdentityResponse>"
            )),
        ),
        "model:Call" if path.ends_with("/completions") => {
            let said = json!({"message": {"role": "assistant", "content": "{}"}, "finish_reason": "stop"});
            (200, JSON, json!({"choices": [said], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}))
        }
        "model:Call" => {
            let text = json!({"type": "text", "text": "{}"});
            let usage = json!({"input_tokens": 1, "output_tokens": 1});
            (
                200,
                JSON,
                json!({"type": "message", "role": "assistant", "content": [text], "stop_reason": "end_turn", "usage": usage}),
            )
        }
        "secretsmanager:GetSecretValue" => (200, JSON, json!({"SecretString": "sk-stored"})),
        "secretsmanager:PutSecretValue" => {
            (200, JSON, json!({"Name": "nightshift-model-key", "VersionId": "v2"}))
        }
        other => (501, JSON, json!({"__type": "NotStoodIn", "message": other})),
    }
}

/// A file in a folder of the test's own.
pub fn write(folder: &Path, name: &str, content: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}
