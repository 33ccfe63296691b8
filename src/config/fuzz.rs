//! The law of `stockade.toml`.

use std::path::Path;

use super::{Config, Host, Mistake, Report, check};

const PASSWD: &str = "stockade-gate:x:991:991::/:/usr/sbin/nologin
stockade:x:992:992::/:/usr/sbin/nologin
stockade-door:x:993:993::/:/usr/sbin/nologin
stockade-keep:x:994:994::/:/usr/sbin/nologin
stockade-tally:x:995:995::/:/usr/sbin/nologin
";

/// Any text is a configuration that the roles read as it was meant, or mistakes that each stand where the file can be
/// mended.
pub fn configuration(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let read = |_: &Path| Ok("{\"Version\": \"2012-10-17\", \"Statement\": []}".to_owned());
    let secret = |_: &Path| Err("there is none here".to_owned());
    let host = Host { passwd: PASSWD, subuid: "alice:100000:65536\n", subgid: "", read: &read, secret: &secret };
    match check(&text, &host) {
        Ok(config) => travels(&config),
        Err(mistakes) => shown(&text, mistakes),
    }
}

fn travels(config: &Config) {
    let json = serde_json::to_string(config).unwrap_or_default();
    let arrived: Option<Config> = serde_json::from_str(&json).ok();
    assert_eq!(arrived.as_ref(), Some(config), "{json}");
    assert!(config.fixed_against(config).is_empty());
}

fn shown(text: &str, mistakes: Vec<Mistake>) {
    assert!(!mistakes.is_empty());
    for mistake in &mistakes {
        assert!(!mistake.what.is_empty() && !mistake.hint.is_empty(), "{mistake:?}");
        assert_ne!(mistake.what, "a setting was refused without a reason");
        if let Some(span) = &mistake.span {
            assert!(text.get(span.clone()).is_some(), "{mistake:?} is not of the file");
        }
    }
    let report = Report::new(Path::new("stockade.toml"), text, mistakes);
    let line = report.line();
    assert!(!line.contains(char::is_control), "{line:?}");
    let screen = report.to_string();
    let harmful = |c: char| c.is_control() && c != '\n';
    assert!(!screen.contains(harmful), "{screen:?}");
}
