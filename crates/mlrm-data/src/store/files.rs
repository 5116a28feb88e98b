//! Whole files: tables are copied here once, and read as files.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::Object;
use super::cache::{Cache, DAMAGED, Entry, PARTIAL};
use super::client::Client;
use crate::error::{DataError, Result};
use crate::files::fits;

/// Bytes that are asked for at once.
const PART: u64 = 8 << 20;
/// Parts that are under way at the same time.
const PARTS: u64 = 8;

/// The copies that this process reads. Their locks keep them from being removed.
static COPIES: Mutex<Option<HashMap<PathBuf, (PathBuf, File)>>> = Mutex::new(None);

/// A copy of what an address names, as it is now; looked up once by a process.
pub(crate) fn copy_of(path: &Path) -> Result<PathBuf> {
    let mut copies = COPIES.lock().unwrap_or_else(PoisonError::into_inner);
    let copies = copies.get_or_insert_default();
    if let Some((copy, _)) = copies.get(path) {
        return Ok(copy.clone());
    }
    let client = Client::of(path)?;
    let cache = Cache::open(u64::MAX).ok_or_else(|| {
        DataError::file(
            path,
            "there is no cache folder to copy it to",
            "set XDG_CACHE_HOME or HOME",
        )
    })?;
    let (copy, lock) = copy_to(&client, &cache)?;
    copies.insert(path.to_path_buf(), (copy.clone(), lock));
    Ok(copy)
}

/// The copy in a cache, fetched unless it is there and whole, and a lock on it.
pub(super) fn copy_to(client: &Client, cache: &Cache) -> Result<(PathBuf, File)> {
    let address = &client.address;
    let place = address.with_key(&address.key);
    let object = client
        .look(&address.key)
        .map_err(|fault| fault.of_place(address))?;
    let entry = Entry::of(&address.with_key(""), &object, 0, object.bytes);
    let folder = cache.files();
    fs::create_dir_all(&folder).map_err(DataError::io("create", &folder))?;
    if let Some(found) = kept(&folder, &entry) {
        return Ok(found);
    }
    cache.make_room(object.bytes);
    // As entries of the cache are kept; the name has the hash.
    let mut builder = tempfile::Builder::new();
    let file = builder.prefix(".").suffix(PARTIAL).tempfile_in(&folder);
    let file = file.map_err(DataError::io("write into", &folder))?;
    let hash = fetch(client, &object, file.as_file())?;
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    let path = folder.join(format!("{}-{hash}-{name}", &entry.name()[..32]));
    let lock = File::open(file.path()).map_err(DataError::io("read", &path))?;
    keep_in_place(&lock);
    file.persist(&path)
        .map_err(|error| DataError::io("write", &path)(error.error))?;
    Ok((path, lock))
}

/// Fetches a whole object into a file, and gives the hash of what it holds.
fn fetch(client: &Client, object: &Object, mut file: &File) -> Result<String> {
    let address = &client.address;
    let mut hasher = blake3::Hasher::new();
    let ends = |start: u64| (start + PART).min(object.bytes);
    let mut start = 0;
    while start < object.bytes {
        let mut parts = Vec::new();
        while start < object.bytes && (parts.len() as u64) < PARTS {
            parts.push((object, start..ends(start)));
            start = ends(start);
        }
        let mut read: Vec<Option<Vec<u8>>> = vec![None; parts.len()];
        let mut failed = None;
        client.read_all(&parts, |at, part| match part {
            Ok(part) => read[at] = Some(part),
            Err(fault) => failed = Some(fault),
        });
        if let Some(fault) = failed {
            return Err(fault.of_place(address));
        }
        for part in read.into_iter().flatten() {
            hasher.update(&part);
            let place = address.with_key(&address.key);
            file.write_all(&part)
                .map_err(DataError::io("copy", place))?;
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// The copy of this entry, where it is there and whole. Its name has the hash of its content.
fn kept(folder: &Path, entry: &Entry) -> Option<(PathBuf, File)> {
    let start = format!("{}-", &entry.name()[..32]);
    for found in fs::read_dir(folder).ok()?.flatten() {
        let name = found.file_name().to_string_lossy().into_owned();
        let Some(hash) = name
            .strip_prefix(&start)
            .and_then(|rest| rest.split('-').next())
        else {
            continue;
        };
        let lock = File::open(found.path()).ok()?;
        keep_in_place(&lock);
        if hash_of(&lock).is_ok_and(|found| found == hash) {
            // Whoever reads it keeps it longest.
            let _ = lock.set_modified(std::time::SystemTime::now());
            return Some((found.path(), lock));
        }
        DAMAGED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let _ = fs::remove_file(found.path());
    }
    None
}

/// Some file systems have no locks: there a copy may go while it is read, as any file may.
fn keep_in_place(file: &File) {
    let _unlocked = file.lock_shared().is_err();
}

fn hash_of(mut file: &File) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().to_hex().to_string()),
            bytes => {
                hasher.update(&buffer[..bytes]);
            }
        }
    }
}

/// The addresses of the files that an address names: itself, those that fit braces and a `*` in its last part, or those
/// directly below it as a prefix whose names are `wanted`.
pub(crate) fn list_files(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let client = Client::of(path)?;
    let address = client.address.clone();
    let keys = address.keys()?;
    let place = |object: Object| address.with_key(&object.key);
    let name = |key: &str| key.rsplit('/').next().unwrap_or(key).to_owned();
    if let [key] = keys.as_slice()
        && !key.contains('*')
        && !wanted(&name(key))
        && !address.is_web()
    {
        let below = client.list(key).map_err(|fault| fault.of_place(&address))?;
        let skip = if key.is_empty() { 0 } else { key.len() + 1 };
        let direct = |object: &Object| {
            let rest = object.key.get(skip..).unwrap_or_default();
            !rest.contains('/') && wanted(rest)
        };
        let found: Vec<PathBuf> = below.into_iter().filter(direct).map(place).collect();
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Ok(named_all(&client, &keys)?.into_iter().map(place).collect())
}

/// The objects that keys name, asked for together.
pub(super) fn named_all(client: &Client, keys: &[String]) -> Result<Vec<Object>> {
    let named: Vec<Result<Vec<Object>>> = keys.par_iter().map(|key| named(client, key)).collect();
    let named: Result<Vec<Vec<Object>>> = named.into_iter().collect();
    Ok(named?.into_iter().flatten().collect())
}

/// The objects that a key names, where a `*` in its last part stands for any characters.
fn named(client: &Client, key: &str) -> Result<Vec<Object>> {
    let address = &client.address;
    let (folder, pattern) = key.rsplit_once('/').unwrap_or(("", key));
    if !pattern.contains('*') {
        let found = client.look(key).map_err(|fault| fault.of_place(address))?;
        return Ok(vec![found]);
    }
    if address.is_web() {
        return Err(DataError::file(
            address.with_key(key),
            "a web server does not list its files",
            "name them by braces: https://host/shards/{000..031}.tar",
        ));
    }
    let mut found = client
        .list(folder)
        .map_err(|fault| fault.of_place(address))?;
    let skip = if folder.is_empty() {
        0
    } else {
        folder.len() + 1
    };
    found.retain(|object| {
        let rest = object.key.get(skip..).unwrap_or_default();
        !rest.contains('/') && fits(pattern, rest)
    });
    match found.is_empty() {
        false => Ok(found),
        true => Err(DataError::file(
            address.with_key(key),
            "no object has such a name",
            "correct the pattern; `*` stands for any characters of the last part",
        )),
    }
}
