use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sts::config::http::HttpResponse;
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};

use crate::privsep::message::Refusal;

const THROTTLING: [&str; 14] = [
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
    "LimitExceededException",
    "PriorRequestNotComplete",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
    "TransactionInProgressException",
    "ProvisionedThroughputExceededException",
];
/// AWS's own trouble, whatever status it comes with.
const TROUBLE: [&str; 5] =
    ["InternalError", "InternalFailure", "RequestTimeout", "RequestTimeoutException", "ServiceUnavailable"];
/// The base identity's token is too old; the SDK's next renewal mends it.
const EXPIRED: [&str; 3] = ["ExpiredToken", "ExpiredTokenException", "RequestExpired"];
/// The base identity itself is not accepted.
const IDENTITY: [&str; 5] = [
    "IncompleteSignature",
    "InvalidClientTokenId",
    "MissingAuthenticationToken",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
];
/// What AWS says is shown to users and logged: enough for a sentence, not for a page.
const LONGEST: usize = 600;

/// What the porter says when the bastion has no AWS section at all: there is no default identity.
pub fn no_identity() -> Refusal {
    refusal("NoIdentity", "this bastion has no AWS identity to make credentials with", false)
}

/// The refusal in AWS's words, and whether asking again may help.
pub fn refusal_of<E: ProvideErrorMetadata + std::error::Error + 'static>(error: &SdkError<E, HttpResponse>) -> Refusal {
    if let Some(identity) = find::<CredentialsError>(error) {
        return without_identity(identity);
    }
    match error {
        SdkError::TimeoutError(_) => unavailable("AWS did not answer in time"),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => unavailable("AWS did not answer in time"),
        SdkError::DispatchFailure(_) => unavailable(&format!("AWS cannot be reached: {}", chain(error))),
        SdkError::ConstructionFailure(_) => refusal("ValidationError", &chain(error), false),
        SdkError::ResponseError(response) => not_understood(response.raw().status().as_u16()),
        SdkError::ServiceError(service) => {
            answered(service.err().code(), service.err().message(), service.raw().status().as_u16())
        }
        _ => unavailable(&chain(error)),
    }
}

fn answered(code: Option<&str>, message: Option<&str>, status: u16) -> Refusal {
    let message = message.unwrap_or("no reason given");
    match code {
        Some(code) if THROTTLING.contains(&code) => refusal("Throttling", message, true),
        _ if status == 429 => refusal("Throttling", message, true),
        Some(code) if TROUBLE.contains(&code) => unavailable(&format!("AWS has trouble ({code}): {message}")),
        Some("AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation") => {
            refusal("AccessDenied", message, false)
        }
        Some(code) if EXPIRED.contains(&code) => {
            refusal("ExpiredToken", &format!("stockade's own AWS credentials have expired: {message}"), true)
        }
        Some(code) if IDENTITY.contains(&code) => {
            refusal(code, &format!("AWS does not accept stockade's own credentials: {message}"), false)
        }
        // A 4xx is AWS's verdict on what was asked; anything else without a known code is not a verdict.
        Some(code) if (400..500).contains(&status) => refusal(code, message, false),
        _ => not_understood(status),
    }
}

fn not_understood(status: u16) -> Refusal {
    unavailable(&match status {
        300..400 => format!("AWS answered with a redirect ({status}), which is not followed"),
        _ => format!("AWS answered {status} with something that is not an answer"),
    })
}

fn without_identity(error: &CredentialsError) -> Refusal {
    let text = format!("stockade has no AWS identity now: {}", chain(error));
    refusal("NoIdentity", &text, !matches!(error, CredentialsError::InvalidConfiguration(_)))
}

fn unavailable(message: &str) -> Refusal {
    refusal("ServiceUnavailable", message, true)
}

pub(super) fn refusal(code: &str, message: &str, transient: bool) -> Refusal {
    let one_line = message.chars().map(|c| if c.is_control() { ' ' } else { c });
    Refusal { code: code.chars().take(64).collect(), message: one_line.take(LONGEST).collect(), transient }
}

/// An error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

fn find<'a, T: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throttling_is_told_as_throttling_and_never_as_unauthorized() {
        for (code, status) in [(Some("Throttling"), 400), (Some("SlowDown"), 503), (None, 429), (Some("Odd"), 429)] {
            let refusal = answered(code, None, status);
            assert_eq!((refusal.code.as_str(), refusal.transient), ("Throttling", true), "{code:?} {status}");
        }
    }

    #[test]
    fn what_aws_decided_is_final_and_what_it_could_not_decide_is_not() {
        let told = |code, status| {
            let refusal = answered(code, Some("because"), status);
            (refusal.code, refusal.transient)
        };
        assert_eq!(told(Some("AccessDenied"), 403), ("AccessDenied".into(), false));
        assert_eq!(told(Some("PackedPolicyTooLarge"), 400), ("PackedPolicyTooLarge".into(), false));
        assert_eq!(told(Some("InvalidClientTokenId"), 403), ("InvalidClientTokenId".into(), false));
        assert_eq!(told(Some("ExpiredToken"), 403), ("ExpiredToken".into(), true));
        assert_eq!(told(Some("InternalFailure"), 500), ("ServiceUnavailable".into(), true));
        for (code, status) in [(Some("Odd"), 500), (None, 503), (None, 307), (None, 200), (None, 404)] {
            assert_eq!(told(code, status), ("ServiceUnavailable".into(), true), "{code:?} {status}");
        }
    }

    #[test]
    fn a_message_is_one_line_of_bounded_length() {
        let refusal = refusal("X", &format!("a\r\nb{}", "c".repeat(5000)), false);
        assert!(refusal.message.starts_with("a  bc") && refusal.message.len() == LONGEST);
    }
}
