//! The pictures that could not be read, listed beside the embeddings.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use miette::{IntoDiagnostic, WrapErr};
use mlrm_data::notes::FailedPicture;
use mlrm_eval::write_companion;

/// Where those of the embeddings `out` are listed.
pub fn path_of(out: &Path) -> PathBuf {
    beside(out, ".failed.jsonl")
}

/// The place of a file that belongs to `out`.
pub fn beside(out: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(out);
    name.push(ending);
    name.into()
}

/// Writes a list, a picture a line; where there is none, no list is left.
///
/// # Errors
///
/// A file that cannot be written, or an older one that cannot be removed.
pub fn write_failed(path: &Path, failed: &[FailedPicture]) -> miette::Result<()> {
    if failed.is_empty() {
        return match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error)
                .into_diagnostic()
                .wrap_err_with(|| format!("cannot remove the old {}", path.display())),
            _ => Ok(()),
        };
    }
    let mut text = String::new();
    for picture in failed {
        text += &serde_json::to_string(picture).into_diagnostic()?;
        text.push('\n');
    }
    Ok(write_companion(path, &text).map_err(mlrm_train::TrainError::from)?)
}

/// Reads a list; none is an empty one.
///
/// # Errors
///
/// A list that cannot be read.
pub fn read_failed(path: &Path) -> miette::Result<Vec<FailedPicture>> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.into_diagnostic(),
    };
    let parse = |text: String| -> miette::Result<Vec<FailedPicture>> {
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).into_diagnostic())
            .collect()
    };
    text.and_then(parse)
        .wrap_err_with(|| format!("{} cannot be read", path.display()))
}
