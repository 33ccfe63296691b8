//! A failed step of the recipe.

use std::fmt;
use std::io;

/// Which step failed, and what the kernel said.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step}: {error}")]
pub struct Fault {
    pub step: &'static str,
    pub error: io::Error,
}

impl Fault {
    pub fn new(step: &'static str, error: impl fmt::Display) -> Self {
        Self { step, error: io::Error::other(error.to_string()) }
    }
}

/// Names the step that a result belongs to.
pub trait Step<T> {
    fn step(self, step: &'static str) -> Result<T, Fault>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: &'static str) -> Result<T, Fault> {
        self.map_err(|error| Fault { step, error: error.into() })
    }
}
