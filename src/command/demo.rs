//! `stockade demo`: a bastion on this machine for trying out, from nothing to a shell in a jail.
//!
//! What it makes lies in one directory, but for the caches of the image and of the emulator's Python. Everything it starts
//! ends with it: the bastion by the signal that a parent's death sends, the emulator by the end of its standard input, the
//! set-up by its own PID namespace.

mod bastion;
mod client;
mod cloud;
mod directory;
mod identity;
mod interrupt;
mod material;
mod needs;
mod step;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use self::cloud::Cloud;
use self::directory::Directory;
use self::interrupt::{Interrupt, Interrupted};
use self::step::Steps;
use crate::loader;
use crate::session::exit::INTERRUPTED;

/// The demo's user.
const USER: &str = "alice";

/// Try stockade on this machine: builds an image, makes keys and a configuration, starts everything, logs in, and takes
/// all of it down again.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where keys, configuration, homes and recordings lie [default: stockade-demo in $XDG_STATE_HOME or ~/.local/state];
    /// the built image and the emulator's Python lie in stockade in $XDG_CACHE_HOME or ~/.cache
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Where the bastion listens
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:2222")]
    listen: SocketAddr,
    /// With an AWS identity of your own: the role of each user [default: role/bastion/{user} in its account]
    #[arg(long, value_name = "ARN")]
    role: Option<String>,
    /// Use the AWS emulator, whatever AWS identity this machine has
    #[arg(long, conflicts_with = "role")]
    emulator: bool,
    /// Start two Kubernetes clusters on this machine, hyades and pleiades, which know the emulator's users
    #[arg(long, conflicts_with = "role")]
    cluster: bool,
    /// Install Debian packages that are missing
    #[arg(long)]
    install: bool,
    /// Run this over ssh instead of a shell and exit with its status: one word is a command line for the shell in the
    /// jail, several are a program and its arguments
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match demonstrate(&args) {
        Err(error) if error.is::<Interrupted>() => Ok(ExitCode::from(INTERRUPTED)),
        done => done,
    }
}

fn demonstrate(args: &Args) -> anyhow::Result<ExitCode> {
    let place = directory::place(args.directory.as_deref())?;
    let identity =
        if args.emulator || args.cluster { Err("as --emulator asks for".to_owned()) } else { identity::find() };
    let wanted = needs::Wanted { emulator: identity.is_err(), clusters: args.cluster };
    needs::meet(&place, wanted, args.install)?;

    let interrupt = Interrupt::watch()?;
    let directory = Directory::take(&place)?;
    let steps = Steps::new(&interrupt, directory.file("setup.log"), &loader::instance(&place));
    directory.wait_for_the_last(&interrupt)?;
    bastion::port_is_free(args.listen)?;
    let own = match &identity {
        Ok(found) => Some(Cloud::own(args.role.clone(), found)?),
        Err(_) => None,
    };
    material::write(&directory.file("material"))?;

    directory.image(&steps)?;
    directory.keys(args.listen)?;
    let cloud = match own {
        Some(own) => own,
        None if args.cluster => Cloud::with_clusters(&directory, &steps)?,
        None => Cloud::emulated(&directory, &steps, &identity.err().unwrap_or_default())?,
    };
    directory.configuration(args.listen, &cloud)?;
    let bastion = bastion::start(&directory, &cloud, args.listen, &steps)?;
    if args.command.is_empty() {
        banner(&directory, &cloud, args.listen);
    }
    let status = client::run(&directory, args.listen, &args.command, &interrupt);
    drop(bastion);
    drop(cloud);
    Ok(ExitCode::from(status?))
}

fn banner(directory: &Directory, cloud: &Cloud, listen: SocketAddr) {
    let path = |name| directory.file(name).display().to_string();
    eprintln!("stockade listens on {listen}; you are {USER}, in a jail of your own. AWS: {}.", cloud.name);
    eprintln!("Keys, configuration and recordings lie in {}. From another terminal:", directory.path().display());
    eprintln!(
        "  ssh -F none -i {} -o UserKnownHostsFile={} -p {} {USER}@{}",
        path(directory::USER_KEY),
        path(directory::KNOWN_HOSTS),
        listen.port(),
        listen.ip()
    );
    let program = std::env::current_exe().unwrap_or_else(|_| "stockade".into());
    eprintln!("  {} session list --directory {}", program.display(), path(directory::RECORDINGS));
    eprintln!("  tail -f {}", path(directory::AUDIT));
    eprintln!("Log out to end all of it.\n");
}
