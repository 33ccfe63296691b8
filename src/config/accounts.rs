//! The host's account files, as text: `/etc/passwd`, `/etc/subuid`.

use std::ops::Range;

use super::types::Account;

/// uid and primary gid of an account.
pub(super) fn account(passwd: &str, name: &str) -> Option<Account> {
    accounts(passwd).find(|(found, _)| *found == name).map(|(_, account)| account)
}

/// Every well-formed line.
pub(super) fn accounts(passwd: &str) -> impl Iterator<Item = (&str, Account)> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some((name, Account { uid, gid }))
    })
}

/// The ranges of subuid(5), with their owners.
pub(super) fn ranges(subuid: &str) -> impl Iterator<Item = (&str, Range<u64>)> {
    subuid.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let owner = fields.next()?;
        let first: u64 = fields.next()?.trim().parse().ok()?;
        let count: u64 = fields.next()?.trim().parse().ok()?;
        (!owner.starts_with('#') && count > 0).then_some((owner, first..first.saturating_add(count)))
    })
}

pub(super) fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}
