//! What a session may reach outside, as the porter and the programs in the jail are told it.

use super::sessions::Session;
use crate::config::Egress;
use crate::policy::egress::{granted, is_for};
use crate::privsep::message::WardenToPorter;
use crate::session::SessionId;

const PROXY: &str = "http://127.0.0.1:3128";
/// What is inside the jail; with and without brackets, for Go and Python differ.
const INSIDE: &str = "127.0.0.1,localhost,::1,169.254.169.254,169.254.170.2,169.254.170.23,\
                      fd00:ec2::254,[fd00:ec2::254],fd00:ec2::23,[fd00:ec2::23]";

/// Nothing is said of a user whose groups are not known: what was said before stands.
pub fn push(id: SessionId, session: &Session, egress: &Egress) -> Option<WardenToPorter> {
    let rules = granted(egress, session.groups.as_ref()?);
    Some(WardenToPorter::Egress { session: id, rules, limits: egress.limits })
}

/// So that clients find the door by themselves. Not `HTTP_PROXY`: the door lets no plain HTTP through.
pub fn environment(session: &Session, egress: &Egress) -> Vec<(String, String)> {
    let Some(groups) = &session.groups else { return Vec::new() };
    if !egress.allow.iter().any(|allow| is_for(allow, groups)) {
        return Vec::new();
    }
    let both = [("HTTPS_PROXY", PROXY), ("https_proxy", PROXY), ("NO_PROXY", INSIDE), ("no_proxy", INSIDE)];
    both.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}
