//! Where hostile bytes enter: for each place a law that holds for any bytes, as a plain function that panics when it
//! does not. `tests/fuzz` looks for such bytes by what they reach; the tests below try its seeds and chance.
//!
//! Neither in the program nor in its library: only with `cfg(test)`, and `cfg(fuzzing)`, which `tests/fuzz` sets.

pub use crate::config::fuzz::configuration;
pub use crate::identity::fuzz::keys;
pub use crate::keeper::kube_streams;
pub use crate::porter::fuzz::{doors, egress, kube, kube_bodies, socks};
pub use crate::privsep::fuzz::{messages, streams};
pub use crate::recording::fuzz::recordings;

/// Each by the name of its folder of seeds.
pub const LAWS: &[(&str, fn(&[u8]))] = &[
    ("configuration", configuration),
    ("doors", doors),
    ("egress", egress),
    ("keys", keys),
    ("kube", kube),
    ("kube_bodies", kube_bodies),
    ("kube_streams", kube_streams),
    ("messages", messages),
    ("recordings", recordings),
    ("socks", socks),
    ("streams", streams),
];

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use proptest::prelude::*;

    use super::*;

    fn seeds(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        files.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }

    #[test]
    fn every_target_has_a_file_and_seeds_that_hold() {
        for (name, law) in LAWS {
            assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fuzz/targets/{name}.rs")).exists());
            let seeds = seeds(name);
            assert!(!seeds.is_empty(), "{name}");
            for (path, bytes) in seeds {
                println!("{}", path.display());
                law(&bytes);
            }
        }
    }

    /// Seeds with some bytes of theirs replaced: chance alone gets through no parser's first line.
    fn tried(name: &str, cases: u32) {
        let law = LAWS.iter().find(|(known, _)| *known == name).unwrap().1;
        let seeds: Vec<Vec<u8>> = seeds(name).into_iter().map(|(_, bytes)| bytes).collect();
        let noise = || prop::collection::vec(any::<u8>(), 0..9);
        let cuts = prop::collection::vec((any::<prop::sample::Index>(), 0usize..9, noise()), 0..6);
        let anything = (0..seeds.len(), cuts, prop::collection::vec(any::<u8>(), 0..200));
        let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
        let result = proptest::test_runner::TestRunner::new(config).run(&anything, |(seed, cuts, bytes)| {
            let mut seed = seeds[seed].clone();
            law(&bytes);
            for (place, away, with) in cuts {
                let at = place.index(seed.len() + 1);
                let end = (at + away).min(seed.len());
                seed.splice(at..end, with);
            }
            law(&seed);
            Ok(())
        });
        assert!(result.is_ok(), "{name}: {}", result.unwrap_err());
    }

    #[test]
    fn any_configuration() {
        tried("configuration", 256);
    }

    #[test]
    fn any_request_at_a_door() {
        tried("doors", 4000);
    }

    #[test]
    fn any_way_out() {
        tried("egress", 2000);
    }

    #[test]
    fn any_file_of_keys() {
        tried("keys", 4000);
    }

    #[test]
    fn any_request_to_a_cluster() {
        tried("kube", 4000);
    }

    #[test]
    fn any_body_of_a_request_to_a_cluster() {
        tried("kube_bodies", 2000);
    }

    #[test]
    fn any_stream_to_a_container() {
        tried("kube_streams", 4000);
    }

    #[test]
    fn any_message() {
        tried("messages", 4000);
    }

    #[test]
    fn any_recording() {
        tried("recordings", 1000);
    }

    #[test]
    fn any_wish_in_socks() {
        tried("socks", 4000);
    }

    #[test]
    fn any_packet_of_a_stream() {
        tried("streams", 4000);
    }
}
