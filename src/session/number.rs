//! What is recorded of a session has a number: SSH channels count from 1, streams on clusters from `FIRST_STREAM`.

/// The first number of a stream on a cluster.
pub const FIRST_STREAM: u32 = 1 << 16;

/// As people write it: c1, c2, … for channels, k1, k2, … for streams on clusters.
pub fn channel_name(number: u32) -> String {
    match number.checked_sub(FIRST_STREAM) {
        Some(stream) => format!("k{}", u64::from(stream) + 1),
        None => format!("c{number}"),
    }
}

/// `c1`, `1`, `k1`.
pub fn channel_number(text: &str) -> Option<u32> {
    let digits = |text: &str| if text.starts_with('+') { None } else { text.parse::<u32>().ok() };
    match text.strip_prefix('k') {
        Some(stream) => digits(stream)?.checked_sub(1)?.checked_add(FIRST_STREAM),
        None => digits(text.strip_prefix('c').unwrap_or(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (name, number) in [("c1", 1), ("c65535", 65535), ("k1", FIRST_STREAM), ("k12", FIRST_STREAM + 11)] {
            assert_eq!(channel_name(number), name);
            assert_eq!(channel_number(name), Some(number));
        }
        assert_eq!(channel_number("7"), Some(7));
        for wrong in ["", "k", "k0", "c", "k-1", "x1", "k4294967295", "k+1", "ck1"] {
            assert_eq!(channel_number(wrong), None, "{wrong}");
        }
    }
}
