//! Builds `src/sys/init.rs`, process 1 of each jail: a static program without a standard library that the binary carries.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=src/sys/init.rs");
    let out = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let built = Command::new(rustc)
        .args(["--edition", "2024", "--crate-name", "init", "--crate-type", "bin", "src/sys/init.rs"])
        .args(["-C", "panic=abort", "-C", "opt-level=s", "-C", "relocation-model=static", "-C", "strip=symbols"])
        .args(["-C", "link-arg=-nostartfiles", "-C", "link-arg=-nostdlib", "-C", "link-arg=-static"])
        .args(["-C", "link-arg=-Wl,--build-id=none"])
        .arg("-o")
        .arg(Path::new(&out).join("init"))
        .status()
        .expect("rustc runs");
    assert!(built.success(), "src/sys/init.rs does not build");
}
