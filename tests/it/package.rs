//! What is installed: man pages, completions, the Debian package. `tests/guest/list` installs it on a machine.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// As `cargo test --no-run` leaves it beside the program.
fn manual() -> TempDir {
    let program = Path::new(env!("CARGO_BIN_EXE_stockade")).with_file_name("examples").join("manual");
    assert!(program.exists(), "{} is not there: cargo test --no-run makes it", program.display());
    let directory = tempfile::tempdir().unwrap();
    good(Command::new(program).arg(directory.path()));
    directory
}

fn good(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

/// Every verb that `--help` shows, as `stockade-session-list`.
fn verbs(command: &clap::Command, name: &str) -> BTreeSet<String> {
    let own = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    let below = own.flat_map(|verb| verbs(verb, &format!("{name}-{}", verb.get_name())));
    below.chain([name.to_owned()]).collect()
}

#[test]
fn every_verb_has_a_man_page_without_a_warning() {
    let manual = manual();
    let pages: Vec<PathBuf> =
        fs::read_dir(manual.path().join("man")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let names: BTreeSet<String> =
        pages.iter().map(|page| page.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(names, verbs(&stockade::cli::command_line(), "stockade"));
    for page in &pages {
        let mut man = Command::new("man");
        let shown =
            good(man.args(["--warnings", "-E", "UTF-8", "-Tutf8", "--local-file"]).arg(page).env("MANWIDTH", "100"));
        assert_eq!(text(&shown.stderr), "", "{}", page.display());
        let source = fs::read_to_string(page).unwrap();
        for section in ["NAME", "SYNOPSIS", "\"EXIT STATUS\"", "\"SEE ALSO\""] {
            assert!(source.contains(&format!("\n.SH {section}\n")), "{}: no {section}", page.display());
        }
    }
}

#[test]
fn a_page_says_what_its_verb_ends_with() {
    let manual = manual();
    let page = fs::read_to_string(manual.path().join("man/stockade-check.1")).unwrap();
    assert!(page.contains(".TP\n3\nAWS decides"), "{page}");
    assert!(!page.contains("Something would be changed"), "that is `stockade access plan`");
    let plan = fs::read_to_string(manual.path().join("man/stockade-access-plan.1")).unwrap();
    assert!(plan.contains(".TP\n2\nSomething would be changed"), "{plan}");
}

/// TAB, as bash-completion's own functions ask for it.
#[test]
fn bash_completes_verbs_and_options() {
    let manual = manual();
    let file = manual.path().join("completions/stockade.bash");
    let complete = |line: &str| {
        let last = line.split(' ').next_back().unwrap();
        let script = format!(
            "source {}; COMP_WORDS=({line} ''); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _stockade stockade '' {last}; \
             echo \"${{COMPREPLY[@]}}\"",
            file.display()
        );
        text(&good(Command::new("bash").args(["-c", &script])).stdout)
    };
    let words = complete("stockade");
    for verb in ["doctor", "serve", "session", "access"] {
        assert!(words.split_whitespace().any(|word| word == verb), "{verb}: {words}");
    }
    assert!(complete("stockade session").contains("export"));
    for other in ["_stockade", "stockade.fish"] {
        let text = fs::read_to_string(manual.path().join("completions").join(other)).unwrap();
        assert!(text.contains("print-iam"), "{other}");
    }
}

fn package(manual: &TempDir, output: &Path) -> PathBuf {
    let built = good(
        Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/deb/build"))
            .args(["--binary", env!("CARGO_BIN_EXE_stockade"), "--compression", "none", "--manual"])
            .arg(manual.path())
            .arg("--output")
            .arg(output),
    );
    PathBuf::from(text(&built.stdout).trim())
}

#[test]
fn the_package_is_the_same_twice_and_holds_what_it_should() {
    let manual = manual();
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let [one, other] = [&first, &second].map(|place| package(&manual, place.path()));
    assert!(fs::read(&one).unwrap() == fs::read(&other).unwrap(), "two builds differ");

    let list = text(&good(Command::new("dpkg-deb").arg("--contents").arg(&one)).stdout);
    for line in list.lines() {
        assert!(line.contains(" root/root "), "{line}");
        let mode = &line[..10];
        assert!(!mode.contains(['s', 't']) && &mode[8..9] == "-", "nothing setuid, nothing that others write: {line}");
    }
    for path in [
        "/usr/bin/stockade",
        "/usr/lib/systemd/system/stockade.service",
        "/usr/lib/systemd/system/stockade-access.service",
        "/usr/lib/sysusers.d/stockade.conf",
        "/usr/lib/tmpfiles.d/stockade.conf",
        "/etc/stockade/stockade.toml",
        "/etc/logrotate.d/stockade",
        "/usr/share/man/man1/stockade-session-play.1.gz",
        "/usr/share/bash-completion/completions/stockade",
        "/usr/share/zsh/vendor-completions/_stockade",
        "/usr/share/fish/vendor_completions.d/stockade.fish",
        "/usr/share/doc/stockade/codes.md",
        "/usr/share/doc/stockade/copyright",
    ] {
        assert!(list.lines().any(|line| line.ends_with(&format!(" .{path}"))), "{path} is missing:\n{list}");
    }
    let said =
        text(&good(Command::new("dpkg-deb").args(["--field"]).arg(&one).args(["Version", "Architecture"])).stdout);
    assert_eq!(said, format!("Version: {}\nArchitecture: amd64\n", env!("CARGO_PKG_VERSION")));
}

/// An admin's file is asked about at an upgrade, never overwritten.
#[test]
fn what_is_in_etc_is_the_admins() {
    let (manual, place) = (manual(), tempfile::tempdir().unwrap());
    let package = package(&manual, place.path());
    let list = text(&good(Command::new("dpkg-deb").arg("--contents").arg(&package)).stdout);
    let files = list.lines().filter(|line| line.starts_with('-')).filter_map(|line| line.split(" .").nth(1));
    let etc: BTreeSet<&str> = files.filter(|path| path.starts_with("/etc/")).collect();
    let info = good(Command::new("dpkg-deb").arg("--info").arg(&package).arg("conffiles"));
    let said = text(&info.stdout);
    assert_eq!(etc, said.lines().collect());
}

/// The accounts of the package are those that the configuration knows by default.
#[test]
fn every_role_has_an_account() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let accounts = fs::read_to_string(root.join("packaging/systemd/sysusers.conf")).unwrap();
    let accounts: BTreeSet<&str> =
        accounts.lines().filter_map(|line| line.strip_prefix("u ")?.split(' ').next()).collect();
    let sample = fs::read_to_string(root.join("src/config/sample.toml")).unwrap();
    let (_, roles) = sample.split_once("[roles]").unwrap();
    let roles: BTreeSet<&str> =
        roles.lines().filter_map(|line| line.split('"').nth(1)).filter(|name| name.starts_with("stockade")).collect();
    assert_eq!(roles.len(), 6, "{roles:?}");
    assert!(roles.is_subset(&accounts), "{roles:?}, not {accounts:?}");
    assert!(accounts.contains("stockade-access"));
}
