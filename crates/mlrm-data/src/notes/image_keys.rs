//! Keys of pictures: which are allowed, and the names that are the same to everyone but a file system.

use std::collections::HashMap;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use unicode_normalization::UnicodeNormalization;

use crate::error::{Problem, ProblemKind};

/// Refuses keys that are no plain relative path: notes may come from strangers, and a key must not
/// reach files outside the image folder.
pub(super) fn check_key(key: &str) -> Result<(), Problem> {
    let bad = |message: &str| {
        Err(Problem::new(
            ProblemKind::BadImageKey,
            message,
            "write the picture's path relative to the image folder",
        ))
    };
    if key.contains("://") {
        return bad("the key is a URL; pictures are read from disk only");
    }
    if key.is_empty() || key.contains('\0') {
        return bad("the key is no path");
    }
    let plain =
        |component: Component<'_>| matches!(component, Component::Normal(_) | Component::CurDir);
    // A backslash separates folders on Windows only; refusing `..\` everywhere keeps sets portable.
    let climbs = key.split(['/', '\\']).any(|part| part == "..");
    if climbs || !Path::new(key).components().all(plain) {
        return bad("the key leads outside the image folder");
    }
    Ok(())
}

/// A name in Unicode's composed form (NFC): "é" as one character. Archives and disks of macOS hold
/// the decomposed one (NFD), and look the same.
pub(super) fn composed(name: &str) -> String {
    name.nfc().collect()
}

/// Names in a folder by their composed form.
type Names = HashMap<String, Vec<String>>;

/// The names that folders hold, read when they are first asked for.
#[derive(Debug, Default)]
pub(super) struct FolderNames {
    folders: Mutex<HashMap<PathBuf, Arc<Names>>>,
}

impl FolderNames {
    /// The paths below `root`, written as keys, that are `key` in some normal form.
    pub fn same(&self, root: &Path, key: &str) -> Vec<String> {
        let mut found = vec![String::new()];
        for part in key
            .split('/')
            .filter(|part| !part.is_empty() && *part != ".")
        {
            let mut longer = Vec::new();
            for start in &found {
                let names = self.names(&root.join(start));
                for name in names.get(&composed(part)).into_iter().flatten() {
                    longer.push(match start.is_empty() {
                        true => name.clone(),
                        false => format!("{start}/{name}"),
                    });
                }
            }
            found = longer;
        }
        found
    }

    fn names(&self, folder: &Path) -> Arc<Names> {
        // Nothing in here panics while it holds the lock.
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(names) = folders.get(folder) {
            return Arc::clone(names);
        }
        let mut names = Names::new();
        // A folder that cannot be listed has no names: that its file is missing is said elsewhere.
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if let Ok(name) = entry.file_name().into_string() {
                names.entry(composed(&name)).or_default().push(name);
            }
        }
        let names = Arc::new(names);
        folders.insert(folder.to_path_buf(), Arc::clone(&names));
        names
    }
}
