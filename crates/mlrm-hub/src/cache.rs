//! The cache of one repository, in the layout of `huggingface_hub`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use hf_hub::{Cache, Repo, RepoType};
use mlrm_config::{HubName, is_commit};

use crate::{HubError, Watch};

/// The branch that a name without a revision means.
pub(crate) const MAIN: &str = "main";

/// The repository of a name, as `hf-hub` writes its paths and addresses.
pub(crate) fn repo(name: &HubName) -> Repo {
    let revision = name.revision.as_deref().unwrap_or(MAIN);
    Repo::with_revision(name.repo.clone(), RepoType::Model, revision.into())
}

/// Where the files of a repository lie.
pub(crate) struct RepoCache {
    root: PathBuf,
    repo: Repo,
    name: HubName,
}

impl RepoCache {
    pub(crate) fn new(root: &Path, name: &HubName) -> Self {
        Self {
            root: root.to_owned(),
            repo: repo(name),
            name: name.clone(),
        }
    }

    /// The content of a file, by its hash.
    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        Cache::new(self.root.clone())
            .repo(self.repo.clone())
            .blob_path(etag)
    }

    /// The folder of a commit.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        Cache::new(self.root.clone())
            .repo(self.repo.clone())
            .pointer_path(commit)
    }

    /// The commit that the name stood for when it was asked last.
    pub(crate) fn known_commit(&self) -> Option<String> {
        if let Some(commit) = self.name.commit() {
            return Some(commit.to_owned());
        }
        let refs = self.root.join(self.repo.folder_name()).join("refs");
        let commit = fs::read_to_string(refs.join(self.repo.revision())).ok()?;
        let commit = commit.trim();
        is_commit(commit).then(|| commit.to_owned())
    }

    /// Remembers the commit of a branch or tag.
    pub(crate) fn remember(&self, commit: &str) -> Result<(), HubError> {
        if self.name.commit().is_some() {
            return Ok(());
        }
        let cached = Cache::new(self.root.clone()).repo(self.repo.clone());
        cached
            .create_ref(commit)
            .map_err(HubError::io("write below", &self.root))
    }

    /// The files of a commit that are there, by their paths in the repository.
    pub(crate) fn files(&self, commit: &str) -> Vec<String> {
        let snapshot = self.snapshot(commit);
        let mut files = Vec::new();
        let mut folders = vec![snapshot.clone()];
        while let Some(folder) = folders.pop() {
            // A folder that cannot be read holds nothing that could be used.
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if let Ok(below) = path.strip_prefix(&snapshot)
                    && path.is_file()
                {
                    let parts = below
                        .components()
                        .map(|part| part.as_os_str().to_string_lossy());
                    files.push(parts.collect::<Vec<_>>().join("/"));
                }
            }
        }
        files
    }

    /// Lets a file of a commit be its content.
    pub(crate) fn link(&self, commit: &str, file: &str, blob: &Path) -> Result<(), HubError> {
        let path = self.snapshot(commit).join(file);
        if path.exists() {
            return Ok(());
        }
        let folder = path.parent().unwrap_or(&path);
        fs::create_dir_all(folder).map_err(HubError::io("create", folder))?;
        // A link whose target is gone.
        if path.is_symlink() {
            fs::remove_file(&path).map_err(HubError::io("replace", &path))?;
        }
        #[cfg(unix)]
        let linked = {
            // Out of `snapshots/COMMIT/` and the folders of the file: a cache may be moved.
            let up = "../".repeat(2 + file.matches('/').count());
            let name = blob.file_name().unwrap_or_default();
            std::os::unix::fs::symlink(Path::new(&format!("{up}blobs")).join(name), &path)
        };
        #[cfg(not(unix))]
        let linked = fs::copy(blob, &path).map(drop);
        match linked {
            // Another process was faster.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            other => other.map_err(HubError::io("link", &path)),
        }
    }

    /// Keeps other processes, those of `huggingface_hub` too, from the same download while it is held.
    pub(crate) fn lock(&self, etag: &str, watch: &mut dyn Watch) -> Result<File, HubError> {
        let folder = self.root.join(".locks").join(self.repo.folder_name());
        fs::create_dir_all(&folder).map_err(HubError::io("create", &folder))?;
        let path = folder.join(format!("{etag}.lock"));
        let file = File::create(&path).map_err(HubError::io("create", &path))?;
        if file.try_lock().is_err() {
            watch.say("another process downloads the same file; waiting for it");
            file.lock().map_err(HubError::io("lock", &path))?;
        }
        Ok(file)
    }
}
