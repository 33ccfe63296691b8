//! `@stockade`: what the `stockade` command in the jail asks.

use hyper::StatusCode;
use serde::Serialize;

use super::answer::{Answer, Ask, Kind, Reply, reason};
use super::document;
use super::jail::{Jail, Pushed, Standing};
use crate::session::kubeconfig;

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

#[derive(Serialize)]
struct Clusters<'a> {
    clusters: Vec<Cluster<'a>>,
    /// Why EKS does not know the user at the moment.
    problem: Option<String>,
}

#[derive(Serialize)]
struct Cluster<'a> {
    name: &'a str,
}

pub fn answer(ask: &Ask<'_>, jail: &Jail, pushed: &Pushed, now: i64) -> Answer {
    let refuse = |status, message| Answer::Reply(Reply::refuse(Kind::Control, status, reason(status), message));
    let answer = match ask.uri.path() {
        "/whoami" => {
            let heard = !matches!(pushed.standing(now, 1), Standing::Unheard);
            once(heard, Reply::json(StatusCode::OK, whoami(jail, pushed, now)))
        }
        "/clusters" => once(pushed.kube.pass.is_some(), Reply::json(StatusCode::OK, clusters(pushed))),
        "/kubeconfig" => once(pushed.kube.pass.is_some(), Reply::text(kubeconfig::of_jail(names(pushed)))),
        "/token" => {
            let sentence = "a token is for a laptop: run `ssh BASTION stockade token CLUSTER` there; in this jail the \
                            kube door needs none";
            return refuse(StatusCode::FORBIDDEN, sentence);
        }
        _ => return refuse(StatusCode::NOT_FOUND, "only /whoami, /clusters, /kubeconfig and /token are here"),
    };
    if ask.reads() { answer } else { refuse(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD") }
}

/// What the warden has not said yet is worth a moment.
fn once(heard: bool, reply: Reply) -> Answer {
    if heard { Answer::Reply(reply) } else { Answer::NotYet(reply) }
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

fn names(pushed: &Pushed) -> &[String] {
    pushed.kube.pass.as_deref().map_or(&[], |pass| &pass.clusters)
}

fn clusters(pushed: &Pushed) -> String {
    let problem = pushed.kube.refusal.as_deref().map(|refusal| format!("{}: {}", refusal.code, refusal.message));
    document::json(&Clusters { clusters: names(pushed).iter().map(|name| Cluster { name }).collect(), problem })
}
