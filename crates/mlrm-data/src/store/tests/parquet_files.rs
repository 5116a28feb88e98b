//! Pictures in Parquet files.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, BinaryArray, RecordBatch, StringArray, StructArray};
use arrow_schema::{DataType, Field};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};

use super::{bytes, client};
use crate::notes::ImageStore;
use crate::store::Store;
use crate::store::cache::Cache;
use crate::web::{Mishap, Web};

/// Writes pictures as structs of bytes and a path, in row groups of ten.
fn write_parquet(path: &Path, pictures: &[(&str, Vec<u8>)], options: WriterPropertiesBuilder) {
    let bytes = pictures.iter().map(|(_, bytes)| Some(bytes.as_slice()));
    let paths = pictures.iter().map(|(key, _)| Some(*key));
    let structs = StructArray::from(vec![
        (
            Arc::new(Field::new("bytes", DataType::Binary, true)),
            Arc::new(BinaryArray::from_iter(bytes)) as ArrayRef,
        ),
        (
            Arc::new(Field::new("path", DataType::Utf8, true)),
            Arc::new(StringArray::from_iter(paths)) as ArrayRef,
        ),
    ]);
    let image: ArrayRef = Arc::new(structs);
    let batch = RecordBatch::try_from_iter_with_nullable([("image", image, true)]).unwrap();
    let options = options.set_max_row_group_row_count(Some(10));
    let file = fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(options.build())).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn pictures_of_far_parquet_files_are_those_of_near_ones() {
    let home = tempfile::tempdir().unwrap();
    let keys: Vec<String> = (0..100).map(|number| format!("sub/{number}.png")).collect();
    let content = |key: &str| [key.as_bytes(), &bytes(20_000 + key.len() * 37)].concat();
    let plain = || WriterProperties::builder().set_dictionary_enabled(false);
    let pages = plain()
        .set_data_page_row_count_limit(2)
        .set_write_batch_size(1);
    let whole = plain()
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true);
    // Pictures that are fetched together: those of a page, of a row group.
    for (name, options, of_part) in [("pages", pages, 2), ("whole", whole, 10)] {
        let folder = home.path().join(name);
        fs::create_dir(&folder).unwrap();
        for shard in 0..2 {
            let own = keys.iter().skip(shard).step_by(2);
            let own: Vec<_> = own.map(|key| (key.as_str(), content(key))).collect();
            let path = folder.join(format!("s-{shard}.parquet"));
            write_parquet(&path, &own, options.clone());
        }
        let web = Web::serve(&folder, |number, _| match number % 23 {
            3 => Mishap::Busy,
            6 => Mishap::Cut,
            _ => Mishap::None,
        });
        let calm = Web::calm(&folder);
        let open = |web: &Web, most: u64| {
            let cache = Cache::in_folder(home.path().join(format!("{name}-{most}")), most);
            let path = format!("{}/s-{{0..1}}.parquet", web.address());
            let store = Store::with(client(web, "s-{0..1}.parquet"), Some(cache));
            ImageStore::of_store(Path::new(&path), store)
        };
        let all: Vec<&str> = keys.iter().map(String::as_str).collect();
        // All, a part of them, and nothing fits.
        for most in [1 << 23, 600_000, 0] {
            for turn in 0..2 {
                let images = open(&web, most).unwrap();
                web.take_asked();
                for (key, hash) in keys.iter().zip(images.look_all(&all)) {
                    assert_eq!(hash.unwrap(), *blake3::hash(&content(key)).as_bytes());
                }
                let asked = web.take_asked().len();
                assert_eq!(asked == 0, most == 1 << 23 && turn == 1, "{most}: {asked}");
                assert_eq!(images.read(&keys[7]).unwrap(), content(&keys[7]));
                let size = images.size(&keys[8]).unwrap();
                assert_eq!(size, content(&keys[8]).len() as u64);
                let none = images.read("none.png").unwrap_err().to_string();
                assert!(none.contains("no such picture"), "{none}");
            }
        }
        // What is kept of the ends of the files opens them, and what came with a picture is there.
        let first = open(&calm, 1 << 24).unwrap();
        assert!(calm.take_asked().len() >= 6);
        first.read(&keys[0]).unwrap();
        assert_eq!(calm.take_asked().len(), 1);
        for number in 0..of_part {
            assert_eq!(
                first.read(&keys[2 * number]).unwrap(),
                content(&keys[2 * number])
            );
        }
        assert_eq!(calm.take_asked().len(), 0);
        first.read(&keys[2 * of_part]).unwrap();
        assert_eq!(calm.take_asked().len(), 1);
        let again = open(&calm, 1 << 24).unwrap();
        assert!(
            calm.take_asked()
                .iter()
                .all(|asked| asked.starts_with("HEAD"))
        );
        assert_eq!(again.listing(&all), first.listing(&all));
        // Together, each part is fetched once.
        let bare = open(&calm, 0).unwrap();
        calm.take_asked();
        bare.ahead(all[..20].iter().copied());
        assert_eq!(calm.take_asked().len(), 20 / of_part);
        // A file that was written again is another one.
        std::thread::sleep(Duration::from_millis(5));
        let path = folder.join("s-0.parquet");
        write_parquet(&path, &[("sub/0.png", bytes(500))], options.clone());
        let error = bare.read(&keys[0]).unwrap_err().to_string();
        assert!(error.contains("has changed"), "{error}");
        let new = open(&calm, 1 << 24).unwrap();
        assert_eq!(new.read(&keys[0]).unwrap(), bytes(500));
        assert_ne!(new.listing(&all), first.listing(&all));
        // Half of a file, and one of something else.
        let cut = fs::read(&path).unwrap();
        for damage in [&cut[..cut.len() / 2], b"PAR1", b""] {
            fs::write(&path, damage).unwrap();
            let error = open(&calm, 0).unwrap_err().to_string();
            assert!(error.contains("no readable Parquet"), "{error}");
        }
    }
}
