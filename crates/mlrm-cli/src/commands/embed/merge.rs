//! `mlrm embed --merge DIR`: the shards of a corpus as one file.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use miette::{IntoDiagnostic, WrapErr, miette};
use mlrm_eval::{Numbers, PartFile, join_embeddings};

use super::failed::{self, read_failed, write_failed};
use super::shard::{MANIFEST, Manifest};
use super::{NumbersArg, tell};

/// Most names that a message lists.
const NAMED: usize = 20;

/// Joins the shards in `folder` as `out`, once all are there, whole, and of one job.
pub fn run(folder: &Path, out: &Path) -> miette::Result<ExitCode> {
    let shards = check(folder, manifests(folder)?)?;
    let is_int8 = |written: &String| *written == format!("{:?}", NumbersArg::Int8);
    let first = shards.values().next();
    let written = first.and_then(|(_, manifest)| manifest.options.get("--dtype"));
    let numbers = match written.is_some_and(is_int8) {
        true => Numbers::Int8,
        false => Numbers::F32,
    };
    let mut failed = Vec::new();
    let mut parts = Vec::new();
    for (path, manifest) in shards.values() {
        let embeddings = embeddings_of(path, manifest)?;
        if is_same(&embeddings, out) {
            return Err(miette!(
                help = "name another file",
                "--out {} is one of the shards",
                out.display()
            ));
        }
        failed.extend(read_failed(&failed::path_of(&embeddings))?);
        parts.push(PartFile {
            path: embeddings,
            notes: manifest.embeddings,
        });
    }
    failed.sort();
    write_failed(&failed::path_of(out), &failed)?;
    let joined =
        join_embeddings(out, &parts, None, numbers).map_err(mlrm_train::TrainError::from)?;
    tell(joined.notes, joined.dim, failed.len(), out);
    Ok(ExitCode::SUCCESS)
}

/// Every manifest of the folder, by name.
fn manifests(folder: &Path) -> miette::Result<Vec<(PathBuf, Manifest)>> {
    let entries = fs::read_dir(folder).into_diagnostic();
    let entries = entries.wrap_err_with(|| format!("cannot list {}", folder.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.into_diagnostic()?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(MANIFEST) {
            paths.push(path);
        }
    }
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        if let Some(manifest) = Manifest::read(&path)? {
            found.push((path, manifest));
        }
    }
    match found.is_empty() {
        false => Ok(found),
        true => Err(miette!(
            help = "write them there by `mlrm embed … --shard i/n --out DIR/NAME`",
            "{}: there is no shard in it",
            folder.display()
        )),
    }
}

/// The shards by number, if there is nothing against them; else all that is, at once.
fn check(
    folder: &Path,
    manifests: Vec<(PathBuf, Manifest)>,
) -> miette::Result<BTreeMap<usize, (PathBuf, Manifest)>> {
    let mut found = Vec::new();
    let mut shards: BTreeMap<usize, (PathBuf, Manifest)> = BTreeMap::new();
    for (path, manifest) in manifests {
        let name = format!("shard {} ({})", manifest.shard, path.display());
        if let Some((first, one)) = shards.values().next() {
            let differences = one.differences(&manifest);
            if !differences.is_empty() {
                found.push(format!(
                    "{name} is of another job than {}: {} differ",
                    first.display(),
                    differences.join(", ")
                ));
                continue;
            }
            if one.device != manifest.device {
                eprintln!(
                    "{name} was computed on {}, shard {} on {}: their numbers differ by rounding",
                    manifest.device, one.shard, one.device
                );
            }
        }
        found.extend(
            manifest
                .damage(&path)
                .map(|damage| format!("{name}: {damage}")),
        );
        if let Some((other, _)) = shards.get(&manifest.shard) {
            found.push(format!("{name} is in {} too", other.display()));
            continue;
        }
        shards.insert(manifest.shard, (path, manifest));
    }
    let count = shards.values().next().map_or(0, |(_, one)| one.of);
    let missing: Vec<String> = (0..count)
        .filter(|number| !shards.contains_key(number))
        .map(|number| number.to_string())
        .collect();
    if !missing.is_empty() {
        let more = missing.len().saturating_sub(NAMED);
        let named = missing[..missing.len() - more].join(", ");
        let more = match more {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        found.push(format!(
            "of {count} shards these are missing: {named}{more}"
        ));
    }
    match found.is_empty() {
        true => Ok(shards),
        false => Err(miette!(
            help = "compute these shards (again), all with the same model, notes and options",
            "the shards in {} do not make a whole:\n  {}",
            folder.display(),
            found.join("\n  ")
        )),
    }
}

/// The file of a shard's embeddings.
fn embeddings_of(path: &Path, manifest: &Manifest) -> miette::Result<PathBuf> {
    match manifest.files.first() {
        Some(file) => Ok(path.with_file_name(&file.name)),
        None => Err(miette!("{} names no file", path.display())),
    }
}

/// Whether two paths are of one file.
fn is_same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}
