//! `@stockade`: what the `stockade` command in the jail asks.

use hyper::StatusCode;
use serde::Serialize;

use super::answer::{Answer, Ask, Kind, Reply, reason};
use super::document;
use super::jail::{Jail, Pushed, Standing};

#[derive(Serialize)]
struct Whoami<'a> {
    user: &'a str,
    session: String,
    role_arn: Option<&'a str>,
    account: Option<&'a str>,
    region: Option<&'a str>,
    credentials_expire: Option<String>,
    /// Why there are no credentials, or why the next ones do not come.
    problem: Option<String>,
}

pub fn answer(ask: &Ask<'_>, jail: &Jail, pushed: &Pushed, now: i64) -> Answer {
    let refuse = |status, message| Answer::Reply(Reply::refuse(Kind::Control, status, reason(status), message));
    if ask.uri.path() != "/whoami" {
        return refuse(StatusCode::NOT_FOUND, "only /whoami is here");
    }
    if !ask.reads() {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
    }
    let reply = Reply::json(StatusCode::OK, whoami(jail, pushed, now));
    match pushed.standing(now, 1) {
        Standing::Unheard => Answer::NotYet(reply),
        _ => Answer::Reply(reply),
    }
}

fn whoami(jail: &Jail, pushed: &Pushed, now: i64) -> String {
    let grant = pushed.grant.as_deref();
    let problem = match (&pushed.refusal, pushed.standing(now, 1)) {
        (Some(refusal), _) => Some(format!("{}: {}", refusal.code, refusal.message)),
        (None, Standing::Lapsed) => Some("the credentials ran out and no new ones came".to_owned()),
        (None, Standing::Unheard) => Some("the credentials are not there yet".to_owned()),
        _ => None,
    };
    document::json(&Whoami {
        user: jail.user.as_str(),
        session: jail.session.to_string(),
        role_arn: grant.map(|grant| grant.role_arn.as_str()),
        account: grant.map(|grant| grant.account.as_str()),
        region: grant.map(|grant| grant.region.as_str()).or(jail.settings.region.as_deref()),
        credentials_expire: grant.map(|grant| document::time(grant.credentials.expires)),
        problem,
    })
}
