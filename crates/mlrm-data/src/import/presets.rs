//! Specs of data sets that are often used.

use std::path::Path;

use super::Spec;
use crate::error::{DataError, Result};

/// Names and texts.
const PRESETS: [(&str, &str); 8] = [
    (
        "movielens-100k",
        include_str!("presets/movielens-100k.toml"),
    ),
    ("movielens-1m", include_str!("presets/movielens-1m.toml")),
    ("movielens-10m", include_str!("presets/movielens-1m.toml")),
    ("movielens-csv", include_str!("presets/movielens-csv.toml")),
    ("microlens", include_str!("presets/microlens.toml")),
    (
        "amazon-reviews-2023",
        include_str!("presets/amazon-reviews-2023.toml"),
    ),
    ("hm", include_str!("presets/hm.toml")),
    ("shop", include_str!("presets/shop.toml")),
];

/// A preset that chooses the one of MovieLens that fits the folder.
pub const MOVIELENS: &str = "movielens";

/// Names and texts of all presets.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    PRESETS.into_iter()
}

/// The text of a preset, for the data in `from`.
///
/// # Errors
/// No preset has the name.
pub fn text(name: &str, from: &Path) -> Result<&'static str> {
    let name = match name {
        MOVIELENS if from.join("u.item").is_file() => "movielens-100k",
        MOVIELENS
            if ["movies.csv", "movies.csv.gz"]
                .iter()
                .any(|name| from.join(name).is_file()) =>
        {
            "movielens-csv"
        }
        MOVIELENS => "movielens-1m",
        name => name,
    };
    let found = PRESETS.iter().find(|(preset, _)| *preset == name);
    found.map(|(_, text)| *text).ok_or_else(|| {
        let names: Vec<&str> = PRESETS.iter().map(|(name, _)| *name).collect();
        DataError::Several(format!(
            "`{name}` is no file and no preset; name a spec (SPEC.toml) or one of {MOVIELENS}, {}",
            names.join(", ")
        ))
    })
}

/// The spec of a preset.
///
/// # Errors
/// As of [`text`].
pub fn spec(name: &str, from: &Path) -> Result<Spec> {
    Spec::parse(text(name, from)?, name)
}
