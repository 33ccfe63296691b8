//! The verbs that a user has: in a jail asked of the control door, as an SSH command answered by the warden. Their words
//! are split at spaces and nothing in them is a shell's.

use std::fmt::Write;

/// A verb with its words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    Whoami {
        json: bool,
    },
    Clusters {
        json: bool,
    },
    Token {
        cluster: String,
    },
    /// For a laptop, whose ssh knows this bastion by `destination`.
    Kubeconfig {
        destination: Option<String>,
    },
}

/// What is said of a command that is no verb, with the exit status of a wrong use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAVerb {
    #[error(
        "an SSH command that begins with `stockade` is no shell's: letters, digits and -_.@:/ only, split at spaces; {USAGE}"
    )]
    Letters,
    #[error("{USAGE}")]
    Unknown,
    #[error("`{0}` is a verb for the inside of a session: log in, then type it")]
    Inside(&'static str),
}

/// `EX_USAGE` of sysexits.h.
pub const MISUSED: u32 = super::exit::MISUSED as u32;

const USAGE: &str = "stockade whoami [--json] | clusters [--json] | token CLUSTER | kubeconfig [DESTINATION]";

/// Verbs of the command that only make sense in a jail.
const INSIDE: [&str; 1] = ["probe"];

impl Verb {
    /// The verb of an SSH command; `None` where it is not ours to answer.
    pub fn of(command: &str) -> Option<Result<Self, NotAVerb>> {
        let rest = command.trim_start_matches(' ').strip_prefix("stockade")?;
        // `stockade-x` and `stockade/x` are other programs, `stockade;x` is not.
        if rest.starts_with(|c: char| c.is_ascii_alphanumeric() || "-_./+".contains(c)) {
            return None;
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || " -_.@:/".contains(c);
        Some(if rest.chars().all(plain) { Self::from_words(rest) } else { Err(NotAVerb::Letters) })
    }

    fn from_words(text: &str) -> Result<Self, NotAVerb> {
        let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
        match words.as_slice() {
            ["whoami"] => Ok(Self::Whoami { json: false }),
            ["whoami", "--json"] => Ok(Self::Whoami { json: true }),
            ["clusters"] => Ok(Self::Clusters { json: false }),
            ["clusters", "--json"] => Ok(Self::Clusters { json: true }),
            ["token", cluster] if !cluster.starts_with('-') => Ok(Self::Token { cluster: (*cluster).to_owned() }),
            ["kubeconfig"] => Ok(Self::Kubeconfig { destination: None }),
            ["kubeconfig", name] if !name.starts_with('-') => {
                Ok(Self::Kubeconfig { destination: Some((*name).to_owned()) })
            }
            [verb, ..] => {
                Err(INSIDE.into_iter().find(|inside| inside == verb).map_or(NotAVerb::Unknown, NotAVerb::Inside))
            }
            [] => Err(NotAVerb::Unknown),
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Whoami { .. } => "whoami",
            Self::Clusters { .. } => "clusters",
            Self::Token { .. } => "token",
            Self::Kubeconfig { .. } => "kubeconfig",
        }
    }
}

/// A table of names and values; none of them may steer the terminal that shows it.
pub fn table<'a>(rows: impl IntoIterator<Item = (&'a str, Option<String>)>) -> String {
    let mut table = String::new();
    for (name, value) in rows {
        if let Some(value) = value {
            let plain: String = value.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
            let _ = writeln!(table, "{name:<18} {plain}");
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_are_verbs() {
        for (command, verb) in [
            ("stockade whoami", Verb::Whoami { json: false }),
            ("  stockade   whoami  --json ", Verb::Whoami { json: true }),
            ("stockade clusters", Verb::Clusters { json: false }),
            ("stockade clusters --json", Verb::Clusters { json: true }),
            ("stockade token hyades", Verb::Token { cluster: "hyades".into() }),
            ("stockade kubeconfig", Verb::Kubeconfig { destination: None }),
            ("stockade kubeconfig alice@b:22", Verb::Kubeconfig { destination: Some("alice@b:22".into()) }),
        ] {
            assert_eq!(Verb::of(command), Some(Ok(verb)), "{command}");
        }
    }

    #[test]
    fn what_is_no_verb_is_refused_and_other_programs_are_left_alone() {
        for (command, wrong) in [
            ("stockade", NotAVerb::Unknown),
            ("stockade ", NotAVerb::Unknown),
            ("stockade token", NotAVerb::Unknown),
            ("stockade token -x", NotAVerb::Unknown),
            ("stockade token a b", NotAVerb::Unknown),
            ("stockade kubeconfig --sync", NotAVerb::Unknown),
            ("stockade kubeconfig -oProxyCommand", NotAVerb::Unknown),
            ("stockade WHOAMI", NotAVerb::Unknown),
            ("stockade serve", NotAVerb::Unknown),
            ("stockade probe --json", NotAVerb::Inside("probe")),
            ("stockade; id", NotAVerb::Letters),
            ("stockade;id", NotAVerb::Letters),
            ("stockade $(id)", NotAVerb::Letters),
            ("stockade `id`", NotAVerb::Letters),
            ("stockade whoami\nid", NotAVerb::Letters),
            ("stockade\nid", NotAVerb::Letters),
            ("stockade whoami\t--json", NotAVerb::Letters),
            ("stockade 'whoami'", NotAVerb::Letters),
            ("stockade whoami|sh", NotAVerb::Letters),
            ("stockade whoami>x", NotAVerb::Letters),
            ("stockade\\ whoami", NotAVerb::Letters),
            ("stockade token h\u{e4}", NotAVerb::Letters),
            ("stockade\u{1b}[2J", NotAVerb::Letters),
        ] {
            assert_eq!(Verb::of(command), Some(Err(wrong)), "{command:?}");
        }
        for command in [
            "",
            "stockades",
            "stockade-x",
            "stockade/x",
            "stockade.sh",
            "echo stockade",
            "\tstockade x",
            "'stockade' x",
        ] {
            assert_eq!(Verb::of(command), None, "{command:?}");
        }
    }

    #[test]
    fn a_table_steers_no_terminal() {
        let rows = [("user", Some("a\u{1b}[2J\n".to_owned())), ("role", None)];
        assert_eq!(table(rows), "user               a?[2J?\n");
    }

    proptest! {
        #[test]
        fn a_word_that_passes_is_no_shells_and_no_option(text in "\\PC{0,40}") {
            match Verb::of(&format!("stockade token {text}")) {
                Some(Ok(Verb::Token { cluster })) => {
                    prop_assert!(cluster.chars().all(|c| c.is_ascii_alphanumeric() || "-_.@:/".contains(c)));
                    prop_assert!(!cluster.starts_with('-'));
                }
                Some(Err(_)) => {}
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
