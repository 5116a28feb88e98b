//! Typed, validated run configuration of mlrm.
//!
//! [`settings`] holds the types: one struct a TOML section, every key with a default, a unit in its
//! name where it has one, and a doc comment that is also what `mlrm config explain` prints. Ranges
//! and sources stand beside the keys as attributes; everything else about a key (messages, the
//! generated reference, the JSON schema for editors) is read from there.
//!
//! In the order of reading: `document` (TOML with places) and `overrides` (`--set`) become one tree;
//! `catalog` is what the types say of every key, `check` holds the tree to it, `validate` holds what keys
//! demand of each other, `error` shows what was found; `load` puts these together. `explain` and
//! `reference` print the catalogue; `sweep` multiplies configs; `hub` and `ids` are names.
//!
//! [`RunConfig::load`] reads a file and overrides and refuses what cannot work, with everything that
//! it found, before anything runs.

mod catalog;
mod check;
mod document;
mod error;
mod explain;
mod hub;
mod ids;
mod load;
mod overrides;
mod place;
mod reference;
pub mod settings;
mod suggest;
mod sweep;
mod text;
mod validate;

pub use catalog::Choice;
pub use error::{ConfigError, Finding, Location};
pub use explain::{Explanation, explain};
pub use hub::{HubName, HubNameError, ModelPath, is_commit};
pub use ids::id_ranks;
pub use load::{LoadedConfig, Places};
pub use place::{AddressError, SCHEMES, check_address, is_address, place};
pub use reference::{json_schema, reference_markdown};
pub use settings::*;
pub use suggest::closest;
pub use sweep::{Axis, Cell, Point, Sweep, SweepOverrides};
