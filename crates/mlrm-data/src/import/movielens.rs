//! The presets of MovieLens, with files named one by one.

use std::fs;
use std::path::{Path, PathBuf};

use super::{ImportSummary, Template, import, presets};
use crate::error::{DataError, Result};

/// The files to convert.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MovieLens {
    /// Folder of the release.
    pub folder: PathBuf,
    /// The file of films, when it is not in the folder.
    pub movies: Option<PathBuf>,
    /// The file of ratings, when it is not in the folder.
    pub ratings: Option<PathBuf>,
    /// Folder of posters, named by film id.
    pub posters: Option<PathBuf>,
    /// Plots: `id::plot` lines, or JSON Lines with `id` and `plot`.
    pub plots: Option<PathBuf>,
}

/// Converts into the new folder `out`, which appears whole or not at all. Posters and plots are
/// taken only where they are given.
///
/// # Errors
/// As of [`import`]; a folder of posters that cannot be listed.
pub fn convert(source: &MovieLens, out: &Path) -> Result<ImportSummary> {
    let preset = match &source.movies {
        Some(path) if path.file_name().is_some_and(|name| name == "u.item") => "movielens-100k",
        Some(path) if path.to_string_lossy().contains(".csv") => "movielens-csv",
        Some(_) => "movielens-1m",
        None => presets::MOVIELENS,
    };
    let mut spec = presets::spec(preset, &source.folder)?;
    for (table, path) in [
        ("movies", &source.movies),
        ("ratings", &source.ratings),
        ("plots", &source.plots),
    ] {
        if let (Some(path), Some(table)) = (path, spec.tables.get_mut(table)) {
            table.path = vec![text(&absolute(path)?)?];
            table.optional = false;
        }
    }
    if source.plots.is_none() {
        spec.tables.remove("plots");
        spec.notes.join.clear();
        spec.notes.content = None;
    }
    match &source.posters {
        Some(posters) => {
            // A wrong folder should not pass for one in which every poster is missing.
            fs::read_dir(posters).map_err(DataError::io("list", posters))?;
            let folder = text(&absolute(posters)?)?
                .replace('{', "{{")
                .replace('}', "}}");
            let template = Template::parse(&format!("{folder}/{{movieId}}"));
            let template = template.map_err(DataError::Several)?;
            if let Some(image) = &mut spec.notes.image {
                image.path = Some(template);
            }
        }
        None => spec.notes.image = None,
    }
    import(&spec, &source.folder, out)
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(DataError::io("find", path))
}

fn text(path: &Path) -> Result<String> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| DataError::file(path, "the path is no UTF-8 text", "rename it"))
}
