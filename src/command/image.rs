//! `stockade image`.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::config;
use crate::image::{Limits, Name, Record, Removed, Store, child};

/// See `stockade image --help`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration, whose `[state] directory` has the images
    #[arg(long, global = true, value_name = "FILE", default_value = super::CONFIGURATION)]
    config: PathBuf,
    /// Where the images are; no configuration is read then
    #[arg(long, global = true, value_name = "DIR")]
    directory: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Unpack an OCI image layout (a directory, or a tar as `docker save` writes it) for jails to stand on
    Import {
        /// The layout: a directory or a tar archive
        path: PathBuf,
        /// What the configuration calls it
        #[arg(long, default_value = "base")]
        name: Name,
        #[command(flatten)]
        limits: Most,
    },
    /// Show the images
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Remove a name, and its image with its last name; refused while jails stand on it
    Remove { name: Name },
    /// The unpacking process of an import: fills its working directory
    #[command(hide = true)]
    Unpack {
        path: PathBuf,
        #[command(flatten)]
        limits: Most,
    },
}

#[derive(Debug, clap::Args)]
struct Most {
    /// Refuse an image that unpacks to more bytes
    #[arg(long, default_value_t = Limits::default().bytes)]
    max_bytes: u64,
    /// Refuse an image of more files, directories and links
    #[arg(long, default_value_t = Limits::default().entries)]
    max_entries: u64,
}

impl From<Most> for Limits {
    fn from(most: Most) -> Self {
        Self { bytes: most.max_bytes, entries: most.max_entries }
    }
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    // An unpacking process has a source and its working directory, and opens nothing else.
    if let Verb::Unpack { path, limits } = args.verb {
        return Ok(child::run(&path, limits.into()));
    }
    let store = match args.directory {
        Some(directory) => Store::new(directory),
        None => Store::new(config::load(&args.config)?.state.directory.join("images")),
    };
    match args.verb {
        Verb::Import { path, name, limits } => {
            eprintln!("importing {} as `{name}`", path.display());
            let say = &mut |line: &str| eprintln!("  {line}");
            let record = store.import(&path, &name, limits.into(), say)?;
            report(&record);
        }
        Verb::List { json } => list(&store, json)?,
        Verb::Remove { name } => match store.remove(&name)? {
            Removed::Image => eprintln!("removed `{name}` and its image"),
            Removed::Name => eprintln!("removed the name `{name}`; its image has another"),
        },
        Verb::Unpack { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn report(record: &Record) {
    eprintln!("  {}: {} entries, {}", record.digest, record.entries, mebibytes(record.bytes));
    if record.privileged > 0 {
        let names = record.privileged_names.join(", ");
        eprintln!("  {} setuid or setgid bits taken away: {names}", record.privileged);
    }
    if record.attributes_dropped > 0 {
        eprintln!("  {} extended attributes dropped", record.attributes_dropped);
    }
    if record.devices_left_out > 0 {
        eprintln!("  {} nodes in /dev left out: a jail has its own", record.devices_left_out);
    }
}

fn list(store: &Store, json: bool) -> anyhow::Result<()> {
    let listed = store.list()?;
    if json {
        for image in &listed {
            println!("{}", serde_json::json!({ "name": image.name.to_string(), "image": image.record }));
        }
        return Ok(());
    }
    println!("{:<20} {:<12} {:>10} CREATED", "NAME", "DIGEST", "SIZE");
    for image in &listed {
        let record = &image.record;
        let created = record.created.as_deref().unwrap_or("-").escape_debug();
        println!("{:<20} {:<12} {:>10} {created}", image.name, record.digest()?.short(), mebibytes(record.bytes));
    }
    Ok(())
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}
