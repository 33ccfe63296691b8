//! What a session may reach outside, as the porter and the programs in the jail are told it.

use super::sessions::Session;
use crate::config::Egress;
use crate::policy::egress::granted;
use crate::privsep::message::WardenToPorter;
use crate::session::SessionId;

const PROXY: &str = "http://127.0.0.1:3128";
/// For what is no https; with the h the name is left to the door, for a jail resolves none.
const SOCKS: &str = "socks5h://127.0.0.1:3128";
/// What is inside the jail; with and without brackets, for Go and Python differ.
const INSIDE: &str = "127.0.0.1,127.0.0.0/8,localhost,::1,[::1],169.254.169.254,169.254.170.2,169.254.170.23,\
                      fd00:ec2::254,[fd00:ec2::254],fd00:ec2::23,[fd00:ec2::23]";

/// Nothing is said of a user whose groups are not known: what was said before stands.
pub fn push(id: SessionId, session: &Session, egress: &Egress) -> Option<WardenToPorter> {
    let rules = granted(egress, session.groups.as_ref()?);
    Some(WardenToPorter::Egress { session: id, rules, limits: egress.limits })
}

/// So that clients find the door by themselves, and go to the others without it. Not `HTTP_PROXY`: that one would be asked
/// for whole requests in plain HTTP, which the door does not read. `ALL_PROXY` only where a rule waives TLS: all else
/// goes by the other, and programs of Python's httpx stop at it.
pub fn environment(session: &Session, egress: &Egress) -> Vec<(String, String)> {
    let Some(groups) = &session.groups else { return Vec::new() };
    let rules = granted(egress, groups);
    if rules.is_empty() {
        return Vec::new();
    }
    let mut variables = vec![("HTTPS_PROXY", PROXY), ("NO_PROXY", INSIDE)];
    if rules.iter().any(|rule| !rule.tls) {
        variables.push(("ALL_PROXY", SOCKS));
    }
    // Most programs look for one spelling, and not for the same.
    let both = |(name, value): (&str, &str)| {
        [(name.to_owned(), value.to_owned()), (name.to_ascii_lowercase(), value.to_owned())]
    };
    variables.into_iter().flat_map(both).collect()
}
