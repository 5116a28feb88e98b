//! Stores against a server that misbehaves.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use super::Store;
use super::address::Address;
use super::cache::Cache;
use super::client::{Client, Tries};
use super::files::copy_to;
use super::http::Patience;
use crate::error::ProblemKind;
use crate::notes::ImageStore;
use crate::web::{Mishap, Web};

mod parquet_files;

const QUICK: Tries = Tries {
    patience: Patience {
        connect: Duration::from_millis(500),
        silence: Duration::from_millis(300),
    },
    further: 4,
    first_wait: Duration::from_millis(5),
};

fn client(web: &Web, path: &str) -> Client {
    let address = Address::of(Path::new(&format!("{}/{path}", web.address()))).unwrap();
    Client::new(address, &QUICK).unwrap()
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at * 31 % 251) as u8).collect()
}

#[test]
fn what_passes_is_tried_again_and_what_does_not_is_told() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("x.bin"), bytes(10_000)).unwrap();
    for mishap in [Mishap::Busy, Mishap::Cut, Mishap::Drop, Mishap::Stall(1)] {
        // Three of four requests fail.
        let web = Web::serve(home.path(), move |number, _| match number % 4 {
            3 => Mishap::None,
            _ => mishap,
        });
        let client = client(&web, "x.bin");
        // The headers of a cut answer are whole, so that a look has nothing to miss.
        let object = client.look("x.bin").unwrap();
        assert_eq!(object.bytes, 10_000, "{mishap:?}");
        assert_eq!(
            client.read(&object, 0..10_000).unwrap(),
            bytes(10_000),
            "{mishap:?}"
        );
        assert_eq!(
            client.read(&object, 70..90).unwrap(),
            bytes(10_000)[70..90],
            "{mishap:?}"
        );
        assert!(web.take_asked().len() >= 8, "{mishap:?}");
    }
    let web = Web::serve(home.path(), |_, path| match path {
        "/x.bin" => Mishap::None,
        "/refused.bin" => Mishap::Refused,
        _ => Mishap::Busy,
    });
    let client = client(&web, "x.bin");
    let object = client.look("x.bin").unwrap();
    let told = |key: &str| {
        let object = super::Object {
            key: key.into(),
            ..object.clone()
        };
        client.read(&object, 0..10).unwrap_err().problem()
    };
    web.take_asked();
    let refused = told("refused.bin");
    assert_eq!(web.take_asked().len(), 1);
    assert_eq!(refused.kind, ProblemKind::UnreachableStore);
    assert!(
        refused
            .message
            .contains("403 Forbidden, InvalidAccessKeyId"),
        "{}",
        refused.message
    );
    assert!(!refused.message.contains("LEAKED"));
    let busy = told("busy.bin");
    assert_eq!(web.take_asked().len(), 5);
    assert!(
        busy.message.contains("503") && busy.message.contains("after 4 further tries"),
        "{busy:?}"
    );
}

#[test]
fn pictures_of_far_shards_are_those_of_near_ones() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("web")).unwrap();
    let keys: Vec<String> = (0..150).map(|number| format!("sub/{number}.png")).collect();
    let content = |key: &str| [key.as_bytes(), &bytes(1000 + key.len() * 37)].concat();
    for shard in 0..2 {
        let file = fs::File::create(home.path().join(format!("web/s-0{shard}.tar"))).unwrap();
        let mut builder = tar::Builder::new(file);
        for key in keys.iter().skip(shard).step_by(2) {
            let content = content(key);
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            builder
                .append_data(&mut header, key, content.as_slice())
                .unwrap();
        }
        builder.finish().unwrap();
    }
    let web = Web::serve(&home.path().join("web"), |number, _| match number % 23 {
        3 => Mishap::Busy,
        6 => Mishap::Cut,
        _ => Mishap::None,
    });
    let path = format!("{}/s-{{00..01}}.tar", web.address());
    let open = |most: u64| {
        let cache = Cache::in_folder(home.path().join(format!("cache-{most}")), most);
        let store = Store::with(client(&web, "s-{00..01}.tar"), Some(cache));
        ImageStore::of_store(Path::new(&path), store).unwrap()
    };
    let all: Vec<&str> = keys.iter().map(String::as_str).collect();
    // All, a part of them, and nothing fits.
    for (most, warm) in [(1 << 20, 0), (60_000, 100), (0, 150)] {
        for turn in 0..2 {
            let images = open(most);
            if turn == 1 {
                web.take_asked();
            }
            let hashes: Vec<_> = images
                .look_all(&all)
                .into_iter()
                .map(Result::unwrap)
                .collect();
            for (key, hash) in keys.iter().zip(hashes) {
                assert_eq!(hash, *blake3::hash(&content(key)).as_bytes(), "{key}");
            }
            let asked = web.take_asked().len();
            // Pictures come with the headers around them.
            assert!(most < 1 << 20 || asked < 20, "{asked}");
            assert!(turn == 0 || asked >= warm, "{most}: {asked}");
            assert!(turn == 0 || warm > 0 || asked == 0, "{most}: {asked}");
            assert_eq!(images.read(&keys[7]).unwrap(), content(&keys[7]));
            assert_eq!(
                images.size(&keys[8]).unwrap(),
                content(&keys[8]).len() as u64
            );
            assert!(
                images
                    .read("none.png")
                    .unwrap_err()
                    .to_string()
                    .contains("no such picture")
            );
        }
    }
    let again = open(1 << 20).listing(&all);
    assert!(again.is_some() && again == open(0).listing(&all));
}

#[test]
fn an_object_that_changes_is_not_mixed() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("x.bin");
    fs::write(&path, bytes(1000)).unwrap();
    let web = Web::calm(home.path());
    let client = client(&web, "x.bin");
    let object = client.look("x.bin").unwrap();
    std::thread::sleep(Duration::from_millis(5));
    fs::write(&path, [bytes(500), bytes(500)].concat()).unwrap();
    for range in [0..1000, 10..20] {
        let fault = client.read(&object, range).unwrap_err().problem();
        assert!(fault.message.contains("has changed"), "{fault:?}");
    }
}

#[test]
fn parts_are_asked_for_once_and_again_where_the_cache_is_damaged() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("web")).unwrap();
    fs::write(home.path().join("web/x.bin"), bytes(5000)).unwrap();
    let web = Web::calm(&home.path().join("web"));
    let cache = || Cache::in_folder(home.path().join("cache"), 1 << 20);
    let object = client(&web, "x.bin").look("x.bin").unwrap();
    let store = Store::with(client(&web, "x.bin"), Some(cache()));
    let wanted = [(&object, 0..100), (&object, 100..300), (&object, 0..0)];
    let read = |store: &Store| store.read_ahead(&wanted);
    let expected = [bytes(100), bytes(300)[100..].to_vec(), Vec::new()];
    web.take_asked();
    assert_eq!(read(&store), expected.clone().map(Some));
    assert_eq!(web.take_asked().len(), 2);
    // What is there is left to whoever reads it.
    assert_eq!(read(&store), [None, None, None]);
    let again = Store::with(client(&web, "x.bin"), Some(cache()));
    for ((object, range), content) in wanted.iter().zip(&expected) {
        assert_eq!(&again.read(object, range.clone()).unwrap(), content);
    }
    assert_eq!(web.take_asked().len(), 0);
    for folder in fs::read_dir(home.path().join("cache")).unwrap().flatten() {
        for entry in fs::read_dir(folder.path()).unwrap().flatten() {
            fs::write(entry.path(), "damaged").unwrap();
        }
    }
    assert_eq!(again.read(&object, 0..100).unwrap(), expected[0]);
    assert_eq!(web.take_asked().len(), 1);
}

#[test]
fn a_far_file_reads_as_a_near_one() {
    let home = tempfile::tempdir().unwrap();
    let content = bytes(3 << 20);
    fs::write(home.path().join("x.bin"), &content).unwrap();
    let web = Web::calm(home.path());
    let object = client(&web, "x.bin").look("x.bin").unwrap();
    let store = Store::with(client(&web, "x.bin"), None);
    let mut reader = store.reader(&object);
    let mut all = Vec::new();
    reader.read_to_end(&mut all).unwrap();
    assert!(all == content);
    // Ranges grow: 3 MiB in three requests, beside the look.
    assert_eq!(web.take_asked().len(), 4);
    let mut part = [0; 50];
    for (place, at) in [
        (SeekFrom::Start(2_000_000), 2_000_000),
        (SeekFrom::Current(-60), 1_999_990),
    ] {
        assert_eq!(reader.seek(place).unwrap(), at);
        reader.read_exact(&mut part).unwrap();
        assert_eq!(part[..], content[at as usize..][..50]);
    }
    assert_eq!(reader.seek(SeekFrom::End(0)).unwrap(), 3 << 20);
    assert_eq!(reader.read(&mut part).unwrap(), 0);
    assert!(reader.seek(SeekFrom::End(-4_000_000)).is_err());
}

#[test]
fn whole_files_are_copied_once_and_again_where_they_are_damaged_or_others() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("web")).unwrap();
    let path = home.path().join("web/notes.csv");
    fs::write(&path, bytes(20 << 20)).unwrap();
    let web = Web::serve(&home.path().join("web"), |number, _| match number % 7 {
        1 => Mishap::Cut,
        _ => Mishap::None,
    });
    let cache = Cache::in_folder(home.path().join("cache"), u64::MAX);
    let client = client(&web, "notes.csv");
    let copy = || copy_to(&client, &cache).unwrap().0;
    let first = copy();
    assert!(fs::read(&first).unwrap() == bytes(20 << 20));
    assert!(first.to_string_lossy().ends_with("-notes.csv"));
    web.take_asked();
    assert_eq!(copy(), first);
    assert!(
        web.take_asked()
            .iter()
            .all(|asked| asked.starts_with("HEAD"))
    );
    fs::write(&first, "damaged").unwrap();
    assert_eq!(copy(), first);
    assert!(fs::read(&first).unwrap() == bytes(20 << 20));
    fs::write(&path, "other").unwrap();
    assert_eq!(fs::read(copy()).unwrap(), b"other");
    // Nothing is left of what was under way.
    let left = fs::read_dir(cache.files()).unwrap().flatten();
    assert_eq!(
        left.filter(|entry| entry.file_name().to_string_lossy().starts_with('.'))
            .count(),
        0
    );
}
