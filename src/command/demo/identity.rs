//! Whether this machine has an AWS identity, by what can be seen without asking a network.

use std::path::{Path, PathBuf};

/// Any of these is an identity.
const VARIABLES: [&str; 4] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
];
/// Any of these makes a profile one. A region alone does not, nor does single sign-on, which a bastion cannot use.
const SETTINGS: [&str; 4] = ["aws_access_key_id", "role_arn", "credential_process", "web_identity_token_file"];

/// What names an identity; or that nothing does, as a sentence goes on after "an emulator, ".
pub(super) fn find() -> Result<String, String> {
    let home = variable("HOME").map(PathBuf::from).unwrap_or_default();
    let file = |name, usual: &str| variable(name).map_or_else(|| home.join(".aws").join(usual), PathBuf::from);
    let files = [file("AWS_SHARED_CREDENTIALS_FILE", "credentials"), file("AWS_CONFIG_FILE", "config")];
    look(variable, &files, |path| std::fs::read_to_string(path).unwrap_or_default())
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn look(
    variable: impl Fn(&str) -> Option<String>,
    files: &[PathBuf; 2],
    read: impl Fn(&Path) -> String,
) -> Result<String, String> {
    if let Some(name) = VARIABLES.into_iter().find(|name| variable(name).is_some()) {
        return Ok(format!("{name} in the environment"));
    }
    let profile = variable("AWS_PROFILE").unwrap_or_else(|| "default".into());
    for file in files {
        if let Some(setting) = setting(&read(file), &profile) {
            return Ok(format!("{setting} of profile {profile:?} in {}", file.display()));
        }
    }
    let [credentials, config] = files.each_ref().map(|file| file.display());
    Err(format!(
        "for neither the environment nor profile {profile:?} in {credentials} and {config} has an identity that a bastion \
         can use; an instance's role was not looked for"
    ))
}

/// The setting that makes this profile of a shared file an identity.
fn setting(text: &str, profile: &str) -> Option<&'static str> {
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            let name = name.trim();
            inside = name.strip_prefix("profile ").map_or(name, str::trim) == profile;
        } else if let (true, Some((name, value))) = (inside, line.split_once('=')) {
            let found = SETTINGS.into_iter().find(|setting| name.trim().eq_ignore_ascii_case(setting));
            if found.is_some() && !value.trim().is_empty() {
                return found;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(variables: &[(&str, &str)], config: &str) -> Result<String, String> {
        let variable = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        let files = ["credentials", "config"].map(PathBuf::from);
        look(variable, &files, |path| if path == Path::new("config") { config.to_owned() } else { String::new() })
    }

    #[test]
    fn a_region_or_single_sign_on_is_no_identity() {
        for config in ["", "[default]\nregion = eu-central-1\n", "[default]\nsso_session = work\nsso_account_id = 1\n"]
        {
            let why = found(&[], config).unwrap_err();
            assert!(
                why.contains("credentials and config") && why.contains("instance's role was not looked for"),
                "{why}"
            );
        }
        // Nor is what another profile has.
        assert!(found(&[], "[profile other]\nrole_arn = arn\n[default]\n# aws_access_key_id = A\n").is_err());
        assert!(found(&[("AWS_PROFILE", "work")], "[default]\naws_access_key_id = A\n").is_err());
    }

    #[test]
    fn keys_roles_and_programs_are_one_and_it_is_said_where() {
        for name in SETTINGS {
            let said = found(&[], &format!("[other]\n[ default ]\nregion = x\n  {name} = something\n")).unwrap();
            assert_eq!(said, format!("{name} of profile \"default\" in config"));
        }
        let said = found(&[("AWS_PROFILE", "work")], "[profile work]\nrole_arn=arn:aws:iam::1:role/x\n").unwrap();
        assert!(said.contains("work"), "{said}");
        assert_eq!(found(&[("AWS_ACCESS_KEY_ID", "A")], "").unwrap(), "AWS_ACCESS_KEY_ID in the environment");
    }
}
