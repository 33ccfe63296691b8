use super::Role;
use crate::session::exit::ACCUSES;

/// A peer that nobody here can have dismissed broke the protocol. Whoever heard it ends, and its exit status is the only
/// word of it to the jailer: see `table`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {role} broke the protocol: {what}")]
pub struct Accusation {
    pub role: Role,
    pub what: &'static str,
}

impl Accusation {
    /// The exit status that says it.
    pub fn status(&self) -> u8 {
        ACCUSES + self.role as u8
    }

    /// Whom the wait status of a role accuses: one that it hears, or nobody.
    pub fn read(by: Role, status: i32) -> Option<Role> {
        let exited = status & 0x7f == 0;
        let code = (status >> 8) & 0xff;
        Role::ALL
            .into_iter()
            .filter(|role| exited && code == i32::from(ACCUSES + *role as u8))
            .find(|role| Role::LINKS.contains(&(by, *role)) || Role::LINKS.contains(&(*role, by)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_accuses_whom_it_hears() {
        let accuses = |by: Role, role: Role| {
            let status = i32::from(Accusation { role, what: "x" }.status()) << 8;
            Accusation::read(by, status) == Some(role)
        };
        for by in Role::ALL {
            for role in Role::ALL {
                let linked = Role::LINKS.contains(&(by, role)) || Role::LINKS.contains(&(role, by));
                assert_eq!(accuses(by, role), linked, "{by} {role}");
            }
        }
    }

    #[test]
    fn other_ends_accuse_nobody() {
        // Success, failure, a panic, kill -9, a core dump.
        for status in [0, 1 << 8, 101 << 8, 9, 0x80 | 6, i32::from(ACCUSES) | 9] {
            assert_eq!(Accusation::read(Role::Gate, status), None, "{status:#x}");
        }
    }
}
