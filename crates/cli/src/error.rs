//! How a command ends when it does not end well: one sentence with what to do, and an exit code.

use std::error::Error;
use std::io;
use std::path::Path;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use nightshift_core::text::cut;
use nightshift_ports::{PortError, chain};

use crate::text;

/// The longest message of a service that is passed on, in characters.
const SERVICE_MESSAGE_CHARS_MAX: usize = 400;
/// Characters of a profile's name.
const PROFILE_CHARS_MAX: usize = 80;

/// Why a command ended as it did not mean to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    kind: Kind,
    sentence: String,
}

/// What scripts tell failures apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Failed,
    Usage,
    No,
    NotAllowed,
    NotFound,
    Interrupted,
    /// Whoever read our output has seen enough, which is no failure.
    ReaderGone,
}

impl Failure {
    /// It was tried and did not work.
    pub fn failed(sentence: impl Into<String>) -> Self {
        Self { kind: Kind::Failed, sentence: sentence.into() }
    }

    /// What was asked cannot be meant.
    pub fn usage(sentence: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, sentence: sentence.into() }
    }

    /// The question was answered, with no: incomplete, findings, below the threshold.
    pub fn no(sentence: impl Into<String>) -> Self {
        Self { kind: Kind::No, sentence: sentence.into() }
    }

    /// Credentials or permissions are missing.
    pub fn not_allowed(sentence: impl Into<String>) -> Self {
        Self { kind: Kind::NotAllowed, sentence: sentence.into() }
    }

    /// What was named does not exist.
    pub fn not_found(sentence: impl Into<String>) -> Self {
        Self { kind: Kind::NotFound, sentence: sentence.into() }
    }

    /// Ctrl-C; the sentence says what was done until then.
    pub fn interrupted(sentence: impl Into<String>) -> Self {
        Self { kind: Kind::Interrupted, sentence: sentence.into() }
    }

    /// A write to standard output failed.
    pub fn of_output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self { kind: Kind::ReaderGone, sentence: String::new() };
        }
        Self::of_file("standard output", "written", error)
    }

    /// A file could not be opened, read or written: `what` was to be done with it.
    pub fn of_path(path: &Path, what: &str, error: &io::Error) -> Self {
        Self::of_file(&text::shown(&path.display().to_string()), what, error)
    }

    fn of_file(name: &str, what: &str, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::not_found(format!("There is no {name}: check the path.")),
            io::ErrorKind::PermissionDenied => Self::failed(format!(
                "{name} may not be {what} by you: choose another file, or change its permissions."
            )),
            io::ErrorKind::AlreadyExists => Self::failed(format!(
                "{name} exists, and nothing is overwritten: choose another name, or remove it first."
            )),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::failed(format!(
                "The disk is full, so {name} is incomplete: free some space and run the command again."
            )),
            _ => Self::failed(format!("{name} cannot be {what}: {error}.")),
        }
    }

    /// The same, and another way.
    pub fn or(mut self, way: &str) -> Self {
        self.sentence = format!("{}, or {way}.", self.sentence.trim_end_matches('.'));
        self
    }

    /// The same, and what was done until then.
    pub fn after(mut self, done: &str) -> Self {
        self.sentence = format!("{}: {done}.", self.sentence.trim_end_matches('.'));
        self
    }

    /// What was to be done is done all the same, and only saying so failed: no advice to do it again.
    pub fn although(mut self, done: &str) -> Self {
        if let Some((what, _advice)) = self.sentence.split_once(": ") {
            self.sentence = format!("{what}: {done}.");
        }
        self
    }

    /// Whether what was named does not exist.
    pub fn is_not_found(&self) -> bool {
        self.kind == Kind::NotFound
    }

    /// Whether the same may work in a minute: not where something is missing, or was asked for wrongly.
    pub fn may_pass(&self) -> bool {
        self.kind == Kind::Failed
    }

    /// The exit code of the program.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::ReaderGone => 0,
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::No => 3,
            Kind::NotAllowed => 4,
            Kind::NotFound => 5,
            Kind::Interrupted => 130,
        }
    }

    /// What a person is told, in one sentence.
    pub fn sentence(&self) -> Option<&str> {
        (!self.sentence.is_empty()).then_some(&self.sentence)
    }
}

/// What a failed request to AWS means for who asked. `action` is what IAM calls it: `lambda:GetFunctionConfiguration`.
pub fn of_aws<E>(action: &str, error: &SdkError<E, HttpResponse>) -> Failure
where
    E: aws_sdk_sqs::error::ProvideErrorMetadata + Error + 'static,
{
    match error {
        SdkError::ServiceError(context) => of_code(
            action,
            context.err().code().unwrap_or("an error without a code"),
            context.err().message().unwrap_or_default(),
        ),
        SdkError::DispatchFailure(_) => {
            credentials_fault(error).unwrap_or_else(|| unreachable(action, error))
        }
        SdkError::TimeoutError(_) => Failure::failed(format!(
            "{action} was not answered in time: check the network and the region, and try again."
        )),
        other => Failure::failed(format!("{action} failed: {}.", text::shown(&chain(other)))),
    }
}

/// By the code of the service; the codes are those of "Common Error Types" in each service's API reference.
pub fn of_code(action: &str, code: &str, message: &str) -> Failure {
    let said = cut(&text::shown(message), SERVICE_MESSAGE_CHARS_MAX);
    let said = said.trim_end_matches('.');
    match code {
        "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" => Failure::not_allowed(
            "The AWS credentials have expired: sign in again (aws sso login, or whatever gave you them).",
        ),
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException" => Failure::not_allowed(format!(
            "AWS does not accept these credentials ({code}): check AWS_PROFILE and the AWS_ variables, and this machine's clock."
        )),
        "AccessDenied"
        | "AccessDeniedException"
        | "NotAuthorized"
        | "KmsAccessDenied"
        | "KMSAccessDeniedException"
        | "AuthorizationError" => Failure::not_allowed(format!(
            "These credentials may not {action}: ask for one of the stack's managed policies (AWS says: {said})."
        )),
        "OptInRequired" => Failure::not_allowed(format!(
            "The account may not use this region or service: enable it, or name another region (AWS says: {said})."
        )),
        "ThrottlingException" | "Throttling" | "TooManyRequestsException" | "RequestThrottled" => {
            Failure::failed(format!("AWS asks to slow down at {action}: try again in a minute."))
        }
        _ => Failure::failed(format!("{action} failed: {code}: {said}.")),
    }
}

/// What a port's failure means for who asked. Its message begins with the service's code, where the service spoke.
pub fn of_port(error: &PortError) -> Failure {
    let action = format!("{}:{}", error.service.to_lowercase().replace(' ', ""), error.operation);
    match error.message.split_once(" (HTTP ") {
        Some((code, said)) => {
            let said = said.split_once("): ").map_or(said, |(_, said)| said);
            of_code(&action, code, said)
        }
        None => {
            Failure::failed(format!("{action} failed: {}.", text::shown(error.message.trim_end_matches('.'))))
        }
    }
}

/// No credentials, or some that cannot be had: the request never left.
fn credentials_fault(failure: &dyn Error) -> Option<Failure> {
    let mut source = failure.source();
    while let Some(cause) = source {
        if let Some(fault) = cause.downcast_ref::<CredentialsError>() {
            return Some(of_credentials(fault));
        }
        source = cause.source();
    }
    None
}

/// Why there are no credentials, for who needs some.
pub fn of_credentials(fault: &CredentialsError) -> Failure {
    match fault {
        CredentialsError::CredentialsNotLoaded(_) => {
            let profile = std::env::var("AWS_PROFILE").ok().filter(|name| !name.is_empty());
            let of_whom = profile.map_or(": set AWS_PROFILE".to_owned(), |name| {
                let name = cut(&text::shown(&name), PROFILE_CHARS_MAX);
                format!(" under the profile {name:?}, which AWS_PROFILE names: mend its name (aws configure list-profiles)")
            });
            Failure::not_allowed(format!(
                "There are no AWS credentials{of_whom}, sign in (aws sso login), or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            ))
        }
        _ => Failure::not_allowed(format!(
            "The AWS credentials cannot be had: {}: sign in again, or choose another AWS_PROFILE.",
            cut(text::shown(&chain(fault)).trim_end_matches('.'), SERVICE_MESSAGE_CHARS_MAX)
        )),
    }
}

fn unreachable(action: &str, failure: &dyn Error) -> Failure {
    Failure::failed(format!(
        "AWS cannot be reached for {action}: check the network, the region, and AWS_ENDPOINT_URL where it is set ({}).",
        cut(&text::shown(&chain(failure)), SERVICE_MESSAGE_CHARS_MAX)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightshift_ports::PortErrorKind;

    #[test]
    fn what_a_service_refuses_has_an_exit_code_and_says_what_to_do() {
        for (code, exit_code, advice) in [
            ("ExpiredTokenException", 4, "sign in again"),
            ("ExpiredToken", 4, "sign in again"),
            ("UnrecognizedClientException", 4, "check AWS_PROFILE"),
            ("AccessDeniedException", 4, "ask for one of the stack's managed policies"),
            ("OptInRequired", 4, "enable it"),
            ("ThrottlingException", 1, "try again in a minute"),
            ("ValidationException", 1, "sqs:SendMessage failed: ValidationException: no such thing."),
        ] {
            let failure = of_code("sqs:SendMessage", code, "no such thing.");
            assert_eq!(failure.exit_code(), exit_code, "{code}");
            assert!(failure.sentence().unwrap().contains(advice), "{code}: {failure:?}");
        }
    }

    #[test]
    fn what_a_service_says_cannot_move_the_cursor() {
        let failure = of_code("a:B", "Odd", "x\u{1b}[2Jy\u{202e}z");
        assert_eq!(failure.sentence(), Some("a:B failed: Odd: x[2Jyz."));
    }

    #[test]
    fn a_ports_failure_has_the_exit_code_of_its_cause() {
        let failed = |message: &str| {
            of_port(&PortError {
                service: "DynamoDB",
                operation: "Query",
                kind: PortErrorKind::Misconfigured,
                message: message.to_owned(),
            })
        };
        let denied = failed("AccessDeniedException (HTTP 400): User x is not authorized.");
        assert_eq!(denied.exit_code(), 4);
        assert!(
            denied.sentence().is_some_and(|s| s.contains("may not dynamodb:Query") && s.contains("User x")),
            "{denied:?}"
        );
        assert_eq!(failed("ExpiredTokenException (HTTP 400): late").exit_code(), 4);
        assert_eq!(failed("dispatch failure: broken pipe").exit_code(), 1);
    }

    #[test]
    fn files_fail_in_words_that_help() {
        for (kind, exit_code, advice) in [
            (io::ErrorKind::NotFound, 5, "There is no jobs.jsonl: check the path."),
            (io::ErrorKind::PermissionDenied, 1, "may not be read by you"),
            (io::ErrorKind::AlreadyExists, 1, "nothing is overwritten"),
            (io::ErrorKind::StorageFull, 1, "The disk is full"),
        ] {
            let failure = Failure::of_path(Path::new("jobs.jsonl"), "read", &io::Error::from(kind));
            assert_eq!(failure.exit_code(), exit_code, "{kind:?}");
            assert!(failure.sentence().unwrap().contains(advice), "{failure:?}");
        }
        let gone = Failure::of_output(&io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((gone.exit_code(), gone.sentence()), (0, None));
    }
}
