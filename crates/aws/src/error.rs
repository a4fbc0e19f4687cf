//! From the SDK's errors to the five kinds that the worker tells apart.

use std::error::Error;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use nightshift_core::text::cut;
use nightshift_ports::{PortError, PortErrorKind, chain};

/// Longest message of an error, in characters: services quote what they refuse, and a log line has no use for it.
const MESSAGE_CHARS_MAX: usize = 300;

/// What one failed operation is to the worker.
pub(crate) fn port_error<E>(
    service: &'static str,
    operation: &'static str,
    error: &SdkError<E, HttpResponse>,
) -> PortError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let (kind, message) = match error {
        SdkError::ServiceError(context) => {
            let status = context.raw().status().as_u16();
            let code = context.err().code().unwrap_or("unknown error");
            let said = context.err().message().unwrap_or("no message");
            (service_kind(code, status), format!("{code} (HTTP {status}): {said}"))
        }
        SdkError::ConstructionFailure(_) => (PortErrorKind::Misconfigured, chain(error)),
        // No credentials, or none that can be read: the request never left.
        SdkError::DispatchFailure(failure) if failure.is_other() && failure.as_other().is_none() => {
            (PortErrorKind::Misconfigured, chain(error))
        }
        _ => (PortErrorKind::Unavailable, chain(error)),
    };
    PortError { service, operation, kind, message: cut(&message, MESSAGE_CHARS_MAX) }
}

/// What a service's own error means, by its code, and by its status where the code says nothing to us.
/// Source: "Common Error Types" of each service's API reference.
pub(crate) fn service_kind(code: &str, status: u16) -> PortErrorKind {
    match code {
        "ThrottlingException"
        | "ThrottledException"
        | "Throttling"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "TooManyRequestsException"
        | "ProvisionedThroughputExceededException"
        | "RequestLimitExceeded"
        | "LimitExceededException"
        | "TransactionInProgressException"
        | "TransactionConflictException"
        | "PriorRequestNotComplete"
        | "KmsThrottled"
        | "OverLimit" => PortErrorKind::Throttled,
        "InternalServerError"
        | "InternalServiceError"
        | "InternalFailure"
        | "ServiceUnavailable"
        | "RequestTimeout"
        | "RequestTimeoutException"
        | "RequestExpired" => PortErrorKind::Unavailable,
        "ResourceNotFoundException"
        | "ParameterNotFound"
        | "QueueDoesNotExist"
        | "AWS.SimpleQueueService.NonExistentQueue"
        | "InvalidAddress"
        | "InvalidSecurity"
        | "AccessDenied"
        | "AccessDeniedException"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "NotAuthorized"
        | "OptInRequired"
        | "UnknownOperationException"
        | "DecryptionFailure"
        | "InvalidKeyId"
        | "KmsAccessDenied"
        | "KmsDisabled"
        | "KmsInvalidKeyUsage"
        | "KmsInvalidState"
        | "KmsNotFound"
        | "KmsOptInRequired" => PortErrorKind::Misconfigured,
        "ReceiptHandleIsInvalid" | "MessageNotInflight" => PortErrorKind::Refused,
        _ => match status {
            429 => PortErrorKind::Throttled,
            401 | 403 | 404 => PortErrorKind::Misconfigured,
            400..=499 => PortErrorKind::Refused,
            _ => PortErrorKind::Unavailable,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use PortErrorKind::{Misconfigured, Refused, Throttled, Unavailable};

    #[test]
    fn the_code_decides_and_then_the_status() {
        for (code, status, kind) in [
            ("ProvisionedThroughputExceededException", 400, Throttled),
            ("RequestThrottled", 403, Throttled),
            ("unknown error", 429, Throttled),
            ("InternalServerError", 500, Unavailable),
            ("unknown error", 503, Unavailable),
            ("PriorRequestNotComplete", 400, Throttled),
            ("RequestTimeoutException", 400, Unavailable),
            ("ResourceNotFoundException", 400, Misconfigured),
            ("AWS.SimpleQueueService.NonExistentQueue", 400, Misconfigured),
            ("QueueDoesNotExist", 400, Misconfigured),
            ("AccessDeniedException", 400, Misconfigured),
            ("ExpiredTokenException", 400, Misconfigured),
            ("SomethingNew", 403, Misconfigured),
            ("ValidationException", 400, Refused),
            ("ReceiptHandleIsInvalid", 404, Refused),
            ("InvalidMessageContents", 400, Refused),
            ("MessageNotInflight", 400, Refused),
        ] {
            assert_eq!(service_kind(code, status), kind, "{code} {status}");
        }
    }
}
