//! 169.254.170.2 (ECS), 169.254.170.23 and fd00:ec2::23 (EKS pod identity): one document behind the jail's token.

use hyper::StatusCode;
use hyper::header::AUTHORIZATION;
use serde::Serialize;

use super::answer::{Answer, Ask, Kind, Reply, reason};
use super::document;
use super::jail::{Jail, Pushed, Standing};

/// The SDKs' names for an error's fields at these addresses.
#[derive(Serialize)]
struct Problem<'a> {
    code: &'a str,
    message: &'a str,
}

pub fn problem(code: &str, message: &str) -> String {
    document::json(&Problem { code, message })
}

pub fn answer(ask: &Ask<'_>, jail: &Jail, pushed: &Pushed, now: i64) -> Answer {
    let refuse = |status, message| Answer::Reply(Reply::refuse(Kind::Container, status, reason(status), message));
    if ask.uri.path() != "/v1/credentials" {
        return refuse(StatusCode::NOT_FOUND, "only /v1/credentials is here");
    }
    if !ask.reads() {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
    }
    match ask.single(AUTHORIZATION.as_str()) {
        Ok(Some(offered)) if jail.is_token(offered) => credentials(pushed, now),
        _ => refuse(
            StatusCode::UNAUTHORIZED,
            "the Authorization header must be the token in the file AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE names",
        ),
    }
}

/// SDKs show `code` and `message` here and try again after a 5xx.
fn credentials(pushed: &Pushed, now: i64) -> Answer {
    let unavailable = |message| Reply::json(StatusCode::SERVICE_UNAVAILABLE, problem("Unavailable", message));
    Answer::Reply(match pushed.standing(now, 1) {
        Standing::Good(grant) => Reply::json(StatusCode::OK, document::container_credentials(grant)),
        Standing::NoIdentity(refusal) => Reply::json(StatusCode::NOT_FOUND, problem(&refusal.code, &refusal.message)),
        Standing::Refused(refusal) => {
            let status = if refusal.transient { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::FORBIDDEN };
            Reply::json(status, problem(&refusal.code, &refusal.message))
        }
        Standing::Lapsed => unavailable("no fresh credentials from AWS STS, ask again"),
        Standing::Unheard => return Answer::NotYet(unavailable("the credentials are not there yet, ask again")),
    })
}
