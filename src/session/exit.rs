//! Every exit status that stockade gives of itself. What a program in a jail ends with is the program's.
//!
//! `docs/codes.md` says what to do about each, and a test holds it to this table.

/// A status, and who gives it.
#[derive(Clone, Copy, Debug)]
pub struct Exit {
    pub status: u8,
    /// The verb; `ssh`: the client of a bastion, which exits with what the bastion says.
    pub of: &'static str,
    /// The doc comment, a line each.
    pub meaning: &'static [&'static str],
}

/// Defines the constants and, from the same lines, their table.
macro_rules! exits {
    ($( $(#[doc = $doc:literal])+ $name:ident: $of:literal = $status:literal, )+) => {
        $( $(#[doc = $doc])+ pub const $name: u8 = $status; )+

        /// Every one there is, beside 0: done, and nothing is wrong.
        pub const EXITS: &[Exit] = &[$( Exit { status: $status, of: $of, meaning: &[$($doc),+] } ),+];
    };
}

exits! {
    /// It failed, or found something wrong; what it was is on standard error, or marked in what was printed.
    FAILED: "every verb" = 1,
    /// The command line is not understood.
    MISUNDERSTOOD: "every verb" = 2,
    /// The user may not log in, or may not use the cluster.
    DENIED: "stockade check --who" = 1,
    /// AWS decides, and was not asked: a key or a group in IAM, a cluster of EKS.
    AWS_DECIDES: "stockade check --who" = 3,
    /// Something would be changed.
    CHANGES: "stockade access plan" = 2,
    /// What there is differs from what was signed.
    DIFFERENCES: "stockade access report --against" = 2,
    /// This is not the inside of a jail, and nothing was tried.
    NOT_A_JAIL: "stockade probe" = 2,
    /// The configuration has mistakes, or cannot be served on this host.
    MISTAKES: "every verb" = 78,
    /// The shell that the configuration names cannot be executed in the jail's image.
    NOT_EXECUTED: "ssh" = 126,
    /// Ctrl-C ended it.
    INTERRUPTED: "stockade demo" = 130,
    /// The SSH command begins with `stockade` and is no verb.
    MISUSED: "ssh" = 64,
    /// The verb was understood, and what it asks for is not there for this user.
    NOT_THERE: "ssh" = 69,
    /// There is no session: the sentence before it says why.
    UNAVAILABLE: "ssh" = 253,
    /// The session cannot be recorded, so it does not begin, or has ended.
    UNRECORDED: "ssh" = 254,
    /// The connection or the login failed (ssh says this of itself, too), or the bastion was late.
    LOST: "ssh" = 255,
}

/// Below what shells and `sysexits.h` use, above what errors end with: the first status by which a process of the bastion
/// accuses another, whose number is added. Only the jailer sees these.
pub const ACCUSES: u8 = 40;
