use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use fs_err::os::unix::fs::OpenOptionsExt;
use zeroize::Zeroizing;

use super::check::{Host, check, check_access};
use super::report::{Mistake, Report};
use super::terms::Terms;
use super::types::Config;

/// More than any configuration or policy has.
const LIMIT: u64 = 1 << 20;

/// Reads and checks a configuration file. All mistakes come back at once; exit with 78.
pub fn load(path: &Path) -> Result<Config, Report> {
    let report = |text: &str, mistakes| Report::new(path, text, mistakes);
    let unread = |what, hint: &str| report("", vec![Mistake::nowhere(what, hint)]);
    let text =
        plain(path).map_err(|what| unread(what, "name the file with --config; it must be root's alone to write"))?;
    let listed = |path| listed(path).map_err(|what| unread(what, "stockade must see whose uids are taken"));
    let (passwd, subuid, subgid) = (listed("/etc/passwd")?, listed("/etc/subuid")?, listed("/etc/subgid")?);
    let host = Host { passwd: &passwd, subuid: &subuid, subgid: &subgid, read: &plain, secret: &secret };
    check(&text, &host).map_err(|mistakes| report(&text, mistakes))
}

/// Reads what `access` must know of a configuration file: only `[aws]`, `[kube]`, `[rbac]` and `[users] groups` are
/// checked, for the machine may have none of a bastion's accounts and keys.
pub fn load_access(path: &Path) -> Result<Terms, Report> {
    let report = |text: &str, mistakes| Report::new(path, text, mistakes);
    let text = plain(path).map_err(|what| {
        report("", vec![Mistake::nowhere(what, "name the file with --config; it must be root's alone to write")])
    })?;
    let host = Host { passwd: "", subuid: "", subgid: "", read: &plain, secret: &secret };
    check_access(&text, &host).map_err(|mistakes| report(&text, mistakes))
}

/// An account file of the host; a host without one has no accounts in it.
fn listed(path: &str) -> Result<String, String> {
    match fs_err::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error.to_string()),
    }
}

/// A plain file that only its owner can change: whoever writes the configuration is root in all but name.
fn plain(path: &Path) -> Result<String, String> {
    text(path, open(path, 0o022)?)
}

fn secret(path: &Path) -> Result<Zeroizing<String>, String> {
    text(path, open_secret(path)?).map(Zeroizing::new)
}

/// A plain file that nobody but its owner can read.
pub fn open_secret(path: &Path) -> Result<fs_err::File, String> {
    open(path, 0o077)
}

/// Opens a plain file of root's or ours whose mode has none of the `closed` bits.
fn open(path: &Path, closed: u32) -> Result<fs_err::File, String> {
    let shown = path.display();
    // O_NONBLOCK: the open of a FIFO would wait for its writer.
    let mut options = fs_err::OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK);
    let file = options.open(path).map_err(|error| error.to_string())?;
    let about = file.metadata().map_err(|error| error.to_string())?;
    if !about.is_file() {
        return Err(format!("'{shown}' is not a plain file"));
    }
    if about.mode() & closed != 0 {
        let how = if about.mode() & closed & 0o022 != 0 { "written" } else { "read" };
        return Err(format!("'{shown}' can be {how} by others (mode {:04o})", about.mode() & 0o7777));
    }
    if about.uid() != 0 && about.uid() != rustix::process::geteuid().as_raw() {
        return Err(format!("'{shown}' belongs to user {}, who can change it", about.uid()));
    }
    Ok(file)
}

fn text(path: &Path, file: fs_err::File) -> Result<String, String> {
    let shown = path.display();
    let mut text = String::new();
    match file.take(LIMIT + 1).read_to_string(&mut text) {
        Err(error) => Err(error.to_string()),
        Ok(read) if read as u64 > LIMIT => Err(format!("'{shown}' is larger than 1 MiB")),
        Ok(_) => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_that_others_can_write_or_that_is_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stockade.toml");
        let said = |path: &Path| load(path).unwrap_err().mistakes()[0].what.clone();
        assert!(said(&path).contains("No such file"), "{}", said(&path));
        fs_err::write(&path, "").unwrap();
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o664)).unwrap();
        assert!(said(&path).ends_with("can be written by others (mode 0664)"), "{}", said(&path));
        assert!(said(folder.path()).contains("is not a plain file"));
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(1), None).unwrap();
            fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
            assert!(said(&path).ends_with("belongs to user 1, who can change it"), "{}", said(&path));
            std::os::unix::fs::chown(&path, Some(0), None).unwrap();
        }
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        fs_err::write(&path, b"\xff").unwrap();
        assert!(said(&path).contains("UTF-8"), "{}", said(&path));
    }
}
