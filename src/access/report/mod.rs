//! What there is, told to people: who has what where and why, who may do a thing, what others left open.
//!
//! Values in, values out; only `cloudtrail` opens files. Commands print what comes out.

pub mod cloudtrail;
pub mod evaluate;
pub mod explain;
pub mod history;
pub mod lint;
pub mod listing;
pub mod mapped;
pub mod question;
pub mod review;
pub mod rights;
pub mod said;
pub mod sheet;
pub mod who_can;

use super::wanted::is_name_of_ours;
use super::world::Rbac;

/// Ours by its mark and by its name: a label alone is anybody's to write, and hides nothing here.
fn is_ours<T>(name: &str, object: &Rbac<T>) -> bool {
    object.is_ours() && is_name_of_ours(name)
}

#[cfg(test)]
mod tests;
