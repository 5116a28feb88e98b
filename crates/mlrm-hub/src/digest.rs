//! Whether a file is the one that the Hub lists, by the hash that names its content.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

/// Bytes read at a time.
const PIECE_BYTES: usize = 1 << 20;
/// Hexadecimal digits of SHA-256, which names large files.
const SHA256_DIGITS: usize = 64;
/// Those of SHA-1, by which git names all others.
const SHA1_DIGITS: usize = 40;

/// The hash of the file at `path` where it is another than `etag`; `None` where it is the same, or where
/// `etag` is of no known kind.
///
/// # Errors
///
/// The file cannot be read.
pub(crate) fn other_hash(path: &Path, etag: &str) -> io::Result<Option<String>> {
    let mut file = File::open(path)?;
    let mut context = match etag.len() {
        SHA256_DIGITS => Context::new(&SHA256),
        SHA1_DIGITS => {
            let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
            // As git hashes a file.
            context.update(format!("blob {}\0", file.metadata()?.len()).as_bytes());
            context
        }
        _ => return Ok(None),
    };
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece)? {
            0 => break,
            read => context.update(&piece[..read]),
        }
    }
    let digest = context.finish();
    let found: String = digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok((!found.eq_ignore_ascii_case(etag)).then_some(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_of_both_kinds_are_told_apart_from_others() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        std::fs::write(&path, "hello\n").expect("a file");
        // By `sha256sum` and `git hash-object`.
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        for etag in [sha256, git, &sha256.to_uppercase(), "0123abcd"] {
            assert_eq!(other_hash(&path, etag).expect("readable"), None, "{etag}");
        }
        for (etag, found) in [
            (sha256.replace('5', "6"), sha256),
            (git.replace('c', "d"), git),
        ] {
            let other = other_hash(&path, &etag).expect("readable");
            assert_eq!(other.as_deref(), Some(found));
        }
    }
}
