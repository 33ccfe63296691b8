//! The AWS of the demo: the identity that the machine has, or the emulator.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use fs_err as fs;

use super::USER;
use super::directory::Directory;
use super::step::{Steps, dies_with_us, end};
use crate::command::doctor;

const REGION: &str = "us-east-1";
/// Of every user in the emulator, as `tests/bed/seed.py` makes them.
const EMULATED_ROLE: &str = "arn:aws:iam::123456789012:role/bastion/{user}";
const EMULATED_KUBE_ROLE: &str = "arn:aws:iam::123456789012:role/stockade/kube/{user}-kube";
/// As `tests/bed/start` spreads the clusters.
pub(super) const CLUSTERS: [(&str, &str); 2] = [("hyades", REGION), ("pleiades", "eu-west-1")];
const START: Duration = Duration::from_secs(60);

/// Ends with this value.
#[derive(Debug)]
pub(super) struct Cloud {
    /// For people.
    pub name: String,
    pub region: String,
    pub role: String,
    /// Whom users are on clusters, where there are any.
    pub kube_role: Option<&'static str>,
    emulator: Option<Emulator>,
}

#[derive(Debug)]
struct Emulator {
    process: Child,
    environment: Vec<(String, String)>,
}

impl Cloud {
    /// The identity that was `found` there.
    pub(super) fn own(role: Option<String>, found: &str) -> anyhow::Result<Self> {
        let named = ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().find_map(|name| std::env::var(name).ok());
        let region = named.filter(|region| !region.is_empty()).unwrap_or_else(|| REGION.to_owned());
        let caller = doctor::caller(&region).map_err(|why| {
            anyhow::anyhow!(
                "there is an AWS identity ({found}), but it cannot be used: {why}; mend it, or give this command --emulator"
            )
        })?;
        let partition = caller.arn.split(':').nth(1).unwrap_or("aws");
        let role = role.unwrap_or_else(|| format!("arn:{partition}:iam::{}:role/bastion/{{user}}", caller.account));
        eprintln!(
            "This is a REAL AWS account, {}: the bastion is {} (by {found}), and the jail gets credentials of {}. \
             With --emulator no account is used.",
            caller.account,
            caller.arn,
            role.replace("{user}", USER)
        );
        Ok(Self {
            name: format!("your own account ({}), role {role}", caller.arn),
            region,
            role,
            kube_role: None,
            emulator: None,
        })
    }

    /// An AWS on this machine, filled with users and roles that exist nowhere else.
    pub(super) fn emulated(directory: &Directory, steps: &Steps<'_>, why: &str) -> anyhow::Result<Self> {
        let bed = directory.file("material").join("tests/bed");
        let python = steps.run("making the AWS emulator's Python (once)", &bed.join("venv"), &[])?;
        let out = directory.file("aws");
        let ready = out.join("ready");
        fs::create_dir_all(&out)?;
        match fs::remove_file(&ready) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
        let mut command = dies_with_us("KILL", &python);
        command
            .arg(bed.join("bed_aws.py"))
            .args([OsStr::new("--seed"), out.as_os_str(), OsStr::new("--ready-file"), ready.as_os_str()])
            .args([OsStr::new("--trail"), out.join("trail.jsonl").as_os_str(), OsStr::new("--end-with-stdin")])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(steps.log()?)
            .process_group(0);
        // It is filled by AWS's own client.
        hide_own(&mut command);
        let process = command.spawn().with_context(|| format!("cannot run {python}"))?;
        let mut emulator = Emulator { process, environment: Vec::new() };
        steps.until("starting the AWS emulator", &mut emulator.process, START, || ready.exists())?;
        emulator.environment = variables(&fs::read_to_string(out.join("bastion.env"))?)?;
        Ok(Self::with(emulator, format!("an emulator, {why}"), None))
    }

    /// The emulator, and two real clusters that let in whom it knows.
    pub(super) fn with_clusters(directory: &Directory, steps: &Steps<'_>) -> anyhow::Result<Self> {
        let bed = directory.file("material").join("tests/bed");
        steps.run("making the AWS emulator's Python (once)", &bed.join("venv"), &[])?;
        steps.run("building Kubernetes (once, up to 10 minutes)", &bed.join("build"), &[])?;
        let run = directory.file("clusters");
        // A demo that was killed left this; its processes went with it.
        match fs::remove_dir_all(&run) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
        let mut command = dies_with_us("KILL", bed.join("start"));
        command.arg("--end-with-stdin").arg(&run).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(steps.log()?);
        command.process_group(0);
        hide_own(&mut command);
        let process = command.spawn().context("cannot start the clusters")?;
        let mut emulator = Emulator { process, environment: Vec::new() };
        let ready = run.join("env");
        steps.until("starting two clusters", &mut emulator.process, START, || ready.exists())?;
        emulator.environment = variables(&fs::read_to_string(run.join("aws/bastion.env"))?)?;
        let [(hyades, _), (pleiades, _)] = CLUSTERS;
        let name = format!("an emulator, with the clusters {hyades} and {pleiades}");
        Ok(Self::with(emulator, name, Some(EMULATED_KUBE_ROLE)))
    }

    fn with(emulator: Emulator, name: String, kube_role: Option<&'static str>) -> Self {
        let (region, role) = (REGION.to_owned(), EMULATED_ROLE.to_owned());
        Self { name, region, role, kube_role, emulator: Some(emulator) }
    }

    /// The emulator knows the demo's users; of yours the demo takes only the role.
    pub(super) fn is_emulated(&self) -> bool {
        self.emulator.is_some()
    }

    /// What the bastion's process must have in its environment.
    pub(super) fn environment(&self, command: &mut Command) {
        let Some(emulator) = &self.emulator else { return };
        hide_own(command);
        command.envs(emulator.environment.iter().cloned());
    }
}

/// The machine's own settings, endpoints and programs are for another AWS, and may be none that work.
fn hide_own(command: &mut Command) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"AWS_")) {
        command.env_remove(name);
    }
    command.env("AWS_CONFIG_FILE", "/dev/null").env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
}

fn variables(text: &str) -> anyhow::Result<Vec<(String, String)>> {
    let line = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    let Some(all) = text.lines().map(line).collect() else { bail!("the emulator's environment is not one") };
    Ok(all)
}

impl Drop for Emulator {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}
