use std::fs;
use std::path::Path;

use mlrm_config::{PromptSettings, SwapField, SwapSettings, SwapSide};

use super::*;
use crate::batch::PictureHash;
use crate::image::{DecodeOptions, ImagePreprocessor, PreprocessorConfig};
use crate::notes::{ByText, ImageStore};
use crate::order::{Cursor, PairOrder};
use crate::prompt::{PromptStyle, special_tokens};
use crate::split::Pair;
use crate::tokenizer::Tokenizer;

const SIDE: usize = 8;

/// 20 notes, each with a picture of its own colour.
fn note_set(folder: &Path) -> NoteSet {
    let note = |row: usize| {
        let color = ::image::Rgb([row as u8 * 10, 0, 255 - row as u8]);
        let key = format!("{row}.png");
        let picture = ::image::RgbImage::from_pixel(20 + row as u32, 16, color);
        picture.save(folder.join(&key)).unwrap();
        Note {
            id: format!("note-{row}"),
            title: "word ".repeat(row % 5),
            content: format!("text {row}"),
            image: Some(key),
            ..Note::default()
        }
    };
    NoteSet::new((0..20).map(note).collect()).unwrap()
}

fn prompts(style: PromptStyle) -> Arc<PromptEncoder> {
    let settings = PromptSettings::default();
    let special = special_tokens(&settings, style);
    let texts = (0..9).map(|i| format!("note {i}"));
    let tokenizer = Arc::new(Tokenizer::train(texts, 300, &special).unwrap());
    let encoder = PromptEncoder::new(&settings, tokenizer, style, 4);
    Arc::new(encoder.unwrap())
}

fn pixels(bytes: usize) -> Arc<PixelCache> {
    Arc::new(PixelCache::new(bytes))
}

fn encoder(folder: &Path, notes: NoteSet, cache_bytes: usize) -> Arc<NoteEncoder> {
    let store = Arc::new(ImageStore::open(folder).unwrap());
    let preprocessor = ImagePreprocessor::new(PreprocessorConfig::clip(SIDE as u32), SIDE).unwrap();
    let pictures = Pictures::new(
        store,
        preprocessor,
        DecodeOptions::default(),
        pixels(cache_bytes),
    );
    let prompts = prompts(PromptStyle::Micl);
    Arc::new(NoteEncoder::new(Arc::new(notes), prompts, Some(pictures)))
}

fn pairs() -> Arc<[Pair]> {
    let pair = |query| Pair {
        query,
        target: (query + 7) % 20,
        weight: 1.0,
    };
    (0..20).map(pair).collect()
}

fn settings(threads: usize, prefetch_batches: usize) -> LoaderSettings {
    LoaderSettings {
        batch_pairs: 6,
        threads,
        prefetch_batches,
        swap: SwapSettings::default(),
        merge_duplicates: true,
        length_window_batches: 0,
    }
}

#[test]
fn a_batch_holds_what_its_notes_alone_hold() {
    let folder = tempfile::tempdir().unwrap();
    let encoder = encoder(folder.path(), note_set(folder.path()), 0);
    let rows = [3, 19, 0, 3];
    let batch = encoder.encode_rows(&rows).unwrap();
    assert_eq!(batch.notes, 4);
    assert_eq!(batch.rows, rows);
    let pictures = batch.pictures.as_ref().unwrap();
    assert!(
        pictures
            .distinct
            .iter()
            .all(|picture| picture.size == [SIDE; 2])
    );
    // What two notes show is there once.
    assert_eq!(
        (&pictures.of_note[..], pictures.distinct.len()),
        ([0, 1, 2, 0].as_slice(), 3)
    );
    let pad = encoder.prompts().tokenizer().pad_id() as i32;
    for (at, &row) in rows.iter().enumerate() {
        let alone = encoder.encode_rows(&[row]).unwrap();
        let length = alone.seq;
        let ids = &batch.input_ids[at * batch.seq..][..batch.seq];
        assert_eq!(ids[..length], alone.input_ids);
        assert!(ids[length..].iter().all(|&id| id == pad));
        assert_eq!(batch.lengths[at], length);
        assert_eq!(
            batch.image_index.as_ref().unwrap()[at],
            alone.image_index.as_ref().unwrap()[0]
        );
        assert_eq!(
            batch.image_emb_index.as_ref().unwrap()[at],
            alone.image_emb_index.as_ref().unwrap()[0]
        );
        let values = values_of(&batch, at);
        assert_eq!(values.len(), 3 * SIDE * SIDE);
        assert_eq!(values, values_of(&alone, 0));
        // Red is the first plane, blue the last.
        let config = PreprocessorConfig::clip(SIDE as u32);
        let red =
            ((row as f64 * 10.0 / 255.0) as f32 - config.mean[0] as f32) / config.std[0] as f32;
        assert_eq!(values[0], red);
    }
}

/// The values of what a note shows.
fn values_of(batch: &NoteBatch, note: usize) -> Arc<[f32]> {
    let pictures = batch.pictures.as_ref().unwrap();
    let picture = &pictures.distinct[pictures.of_note[note]];
    Arc::clone(picture.values.as_ref().unwrap())
}

#[test]
fn text_needs_no_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let notes = Arc::new(note_set(folder.path()));
    let encoder = NoteEncoder::new(notes, prompts(PromptStyle::Text), None);
    let batch = encoder.encode_rows(&[1, 2]).unwrap();
    assert_eq!(batch.pictures, None);
    assert_eq!((batch.image_index, batch.image_emb_index), (None, None));
    assert_eq!(encoder.encode_rows(&[]).unwrap().notes, 0);
}

#[test]
fn batches_are_the_same_for_any_threads_prefetch_and_cache() {
    let folder = tempfile::tempdir().unwrap();
    let notes = note_set(folder.path());
    let drawn = |threads, prefetch, cache| {
        let encoder = encoder(folder.path(), notes.clone(), cache);
        let start = Cursor::default();
        let batches = PairBatches::new(encoder, pairs(), 5, start, settings(threads, prefetch));
        let taken = batches.unwrap().take(9);
        taken.map(|item| item.unwrap()).collect::<Vec<_>>()
    };
    let expected = drawn(1, 0, 0);
    let pixels = 3 * SIDE * SIDE;
    for (threads, prefetch, cache) in [
        (1, 1, 0),
        (4, 3, 5 * pixels),
        (2, 2, 1 << 20),
        (0, 1, 1 << 20),
    ] {
        assert!(
            drawn(threads, prefetch, cache) == expected,
            "{threads} {prefetch} {cache}"
        );
    }
    // Queries, then their targets, in the seeded order; the cursor goes on behind the batch.
    let mut order = PairOrder::new(20, 5, Cursor::default());
    for (cursor, batch) in &expected {
        let indices = order.next_batch(6);
        let queries: Vec<u32> = indices.iter().map(|&(_, index)| index as u32).collect();
        let rows = batch.at_places(&batch.rows);
        assert_eq!(rows[..6], queries);
        let targets: Vec<u32> = queries.iter().map(|query| (query + 7) % 20).collect();
        assert_eq!(rows[6..], targets);
        assert_eq!(*cursor, order.cursor());
    }
    let (cursor, _) = expected[3];
    let encoder = encoder(folder.path(), notes.clone(), 0);
    let resumed = PairBatches::new(encoder, pairs(), 5, cursor, settings(2, 2)).unwrap();
    let resumed: Vec<_> = resumed.take(5).map(|item| item.unwrap()).collect();
    assert!(resumed == expected[4..]);
}

/// Notes that stand in several pairs are one note of a batch, unless that is switched off; notes come
/// short ones first; and with windows the pairs of a batch are of like length.
#[test]
fn batches_hold_each_note_once_and_sorted_by_length() {
    let folder = tempfile::tempdir().unwrap();
    let notes = note_set(folder.path());
    let drawn = |change: &dyn Fn(&mut LoaderSettings), cursor, count: usize| {
        let mut order = settings(2, 1);
        change(&mut order);
        let encoder = encoder(folder.path(), notes.clone(), 1 << 20);
        let batches = PairBatches::new(encoder, pairs(), 5, cursor, order).unwrap();
        let batches: Vec<_> = batches.take(count).map(|item| item.unwrap()).collect();
        batches
    };
    let start = Cursor::default();
    let merged = drawn(&|_| (), start, 10);
    let apart = drawn(&|order| order.merge_duplicates = false, start, 10);
    for ((_, merged), (_, apart)) in merged.iter().zip(&apart) {
        assert_eq!((merged.places.len(), apart.notes), (12, 12));
        let ids = |batch: &NoteBatch, place: usize| {
            let note = batch.places[place];
            batch.slice(note..note + 1)
        };
        assert!((0..12).all(|place| ids(merged, place) == ids(apart, place)));
        let mut rows = merged.rows.clone();
        rows.sort_unstable();
        rows.dedup();
        assert_eq!(rows.len(), merged.notes);
        let bytes = |&row: &u32| notes[row].title.len() + notes[row].content.len();
        assert!(merged.rows.iter().map(bytes).is_sorted());
    }
    let count = |batches: &[(Cursor, NoteBatch)]| -> usize {
        batches.iter().map(|(_, batch)| batch.notes).sum()
    };
    assert!(count(&merged) < count(&apart));

    let positions = |batches: &[(Cursor, NoteBatch)]| -> usize {
        let of_batch = |(_, batch): &(Cursor, NoteBatch)| batch.notes * batch.seq;
        batches.iter().map(of_batch).sum()
    };
    let windows = |order: &mut LoaderSettings| {
        (order.batch_pairs, order.length_window_batches) = (3, 6);
    };
    let sorted = drawn(&windows, start, 20);
    let plain = drawn(&|order| order.batch_pairs = 3, start, 20);
    assert!(positions(&sorted) < positions(&plain));
    let (cursor, _) = sorted[7];
    assert!(drawn(&windows, cursor, 5) == sorted[8..13]);
}

#[test]
fn kept_pixels_are_not_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let encoder = encoder(folder.path(), note_set(folder.path()), 1 << 20);
    let first = encoder.encode_rows(&[4, 5]).unwrap();
    fs::remove_file(folder.path().join("4.png")).unwrap();
    fs::remove_file(folder.path().join("5.png")).unwrap();
    assert_eq!(encoder.encode_rows(&[4, 5]).unwrap(), first);
}

/// Pictures that others say they know.
#[derive(Debug, Default)]
struct Known {
    hashes: std::sync::Mutex<std::collections::HashSet<PictureHash>>,
    full: bool,
}

impl KnownPictures for Known {
    fn knows(&self, picture: &PictureHash) -> bool {
        self.hashes.lock().unwrap().contains(picture)
    }

    fn keeps_more(&self) -> bool {
        !self.full
    }
}

/// An encoder of six notes, of which the last shows a copy of the first one's picture.
fn encoder_with_known(folder: &Path, full: bool) -> (NoteEncoder, Arc<Known>) {
    let mut notes = note_set(folder).rows()[..6].to_vec();
    fs::copy(folder.join("0.png"), folder.join("copy.png")).unwrap();
    notes[5].image = Some("copy.png".into());
    let known = Arc::new(Known {
        full,
        ..Known::default()
    });
    let store = Arc::new(ImageStore::open(folder).unwrap());
    let preprocessor = ImagePreprocessor::new(PreprocessorConfig::clip(SIDE as u32), SIDE).unwrap();
    let pictures = Pictures::new(
        store,
        preprocessor,
        DecodeOptions::default(),
        pixels(1 << 20),
    );
    let pictures = pictures.with_known(Some(Arc::clone(&known) as Arc<dyn KnownPictures>));
    let notes = Arc::new(NoteSet::new(notes).unwrap());
    (
        NoteEncoder::new(notes, prompts(PromptStyle::Micl), Some(pictures)),
        known,
    )
}

#[test]
fn known_pictures_are_neither_read_again_nor_decoded() {
    let folder = tempfile::tempdir().unwrap();
    let (encoder, known) = encoder_with_known(folder.path(), false);
    let rows = [0, 1, 5];
    let pictures = |encoder: &NoteEncoder| encoder.encode_rows(&rows).unwrap().pictures.unwrap();
    let first = pictures(&encoder);
    let hashes: Vec<PictureHash> = first.distinct.iter().map(|p| p.hash.unwrap()).collect();
    assert!(
        first
            .distinct
            .iter()
            .all(|picture| picture.values.is_some())
    );
    assert_eq!(
        hashes[0],
        *blake3::hash(&fs::read(folder.path().join("0.png")).unwrap()).as_bytes()
    );
    // Two files of the same content are one picture.
    assert!(hashes[0] == hashes[2] && hashes[0] != hashes[1]);

    known.hashes.lock().unwrap().insert(hashes[0]);
    let second = pictures(&encoder);
    assert_eq!(second.of_note, first.of_note);
    let hidden: Vec<bool> = second.distinct.iter().map(|p| p.values.is_none()).collect();
    assert_eq!(hidden, [true, false, true]);
    assert_eq!(second.distinct[1], first.distinct[1]);
    // What is known needs no file any more, what is not known does: its pixels were not kept.
    fs::remove_file(folder.path().join("0.png")).unwrap();
    fs::remove_file(folder.path().join("copy.png")).unwrap();
    assert_eq!(pictures(&encoder), second);
    fs::remove_file(folder.path().join("1.png")).unwrap();
    assert!(encoder.encode_rows(&rows).is_err());
}

#[test]
fn pixels_are_kept_where_features_will_not_be() {
    let folder = tempfile::tempdir().unwrap();
    let (encoder, _) = encoder_with_known(folder.path(), true);
    let first = encoder.encode_rows(&[3]).unwrap();
    fs::remove_file(folder.path().join("3.png")).unwrap();
    assert_eq!(encoder.encode_rows(&[3]).unwrap(), first);
}

#[test]
fn an_error_names_note_and_picture_and_ends_the_batches() {
    let folder = tempfile::tempdir().unwrap();
    let notes = note_set(folder.path());
    let whole = fs::read(folder.path().join("13.png")).unwrap();
    fs::write(folder.path().join("13.png"), &whole[..whole.len() / 2]).unwrap();
    for (threads, prefetch) in [(1, 0), (3, 2)] {
        let encoder = encoder(folder.path(), notes.clone(), 0);
        let order = settings(threads, prefetch);
        let batches = PairBatches::new(encoder, pairs(), 5, Cursor::default(), order).unwrap();
        let items: Vec<_> = batches.collect();
        let (last, good) = items.split_last().unwrap();
        assert!(good.iter().all(Result::is_ok));
        let message = last.as_ref().unwrap_err().to_string();
        assert!(
            message.contains("note-13") && message.contains("13.png"),
            "{message}"
        );
    }
    // Of several errors the first note's is reported, whichever thread is faster.
    fs::remove_file(folder.path().join("2.png")).unwrap();
    let encoder = encoder(folder.path(), notes, 0);
    for _ in 0..20 {
        let message = encoder.encode_rows(&[1, 2, 13, 3]).unwrap_err().to_string();
        assert!(message.contains("note-2"), "{message}");
    }
}

#[test]
fn a_note_without_the_picture_that_it_needs_is_an_error_of_its_batch() {
    let folder = tempfile::tempdir().unwrap();
    let mut notes = note_set(folder.path()).rows().to_vec();
    notes[11].image = None;
    let encoder = encoder(folder.path(), NoteSet::new(notes).unwrap(), 0);
    let message = encoder.encode_rows(&[1, 11]).unwrap_err().to_string();
    assert!(message.contains("note-11"), "{message}");
    assert!(encoder.shows_picture(1) && !encoder.shows_picture(11));
    let start = Cursor::default();
    let none = PairBatches::new(encoder, Arc::new([]), 5, start, settings(1, 1));
    assert!(none.unwrap_err().to_string().contains("data.pairs"));
}

/// The encoder of `settings` for notes of which one names no picture, one a file that is gone, and one
/// that turns out to be damaged when it is decoded.
fn encoder_with_fallback(folder: &Path, hide_text: bool) -> (NoteEncoder, Arc<ByText>) {
    let mut notes = note_set(folder).rows().to_vec();
    notes[2].image = None;
    fs::remove_file(folder.join("3.png")).unwrap();
    let damaged = folder.join("4.png");
    let mut bytes = fs::read(&damaged).unwrap();
    let data = bytes.windows(4).position(|name| name == b"IDAT").unwrap();
    bytes[data + 8] ^= 0xff;
    fs::write(&damaged, bytes).unwrap();
    let notes = NoteSet::new(notes).unwrap();
    let text = mlrm_config::OnImageProblem::Text;
    let settings = mlrm_config::DataSettings {
        on_missing_image: text,
        on_bad_image: text,
        ..Default::default()
    };
    let options = DecodeOptions::new(&settings);
    let store = Arc::new(ImageStore::open(folder).unwrap());
    let rows: Vec<u32> = (0..20).collect();
    let screened = store.screen(&notes, &rows, &options, &|_, _| {});
    let (notes, by_text, counts) = ByText::resolve(notes, &screened, &settings).unwrap();
    assert_eq!((counts.missing_by_text, counts.bad_by_text), (2, 0));
    let by_text = Arc::new(by_text);
    let preprocessor = ImagePreprocessor::new(PreprocessorConfig::clip(SIDE as u32), SIDE).unwrap();
    let fallback = Fallback {
        by_text: Arc::clone(&by_text),
        prompts: prompts(PromptStyle::Text),
        hide_text,
    };
    let pictures =
        Pictures::new(store, preprocessor, options, pixels(1 << 20)).with_fallback(fallback);
    let notes = Arc::new(notes);
    let encoder = NoteEncoder::new(notes, prompts(PromptStyle::Micl), Some(pictures));
    (encoder, by_text)
}

#[test]
fn notes_without_a_usable_picture_are_text_prompts_in_the_same_batch() {
    let folder = tempfile::tempdir().unwrap();
    let (encoder, by_text) = encoder_with_fallback(folder.path(), false);
    let batch = encoder.encode_rows(&[1, 2, 3, 4, 5]).unwrap();
    assert_eq!(batch.by_text, [false, true, true, true, false]);
    let texts = NoteEncoder::new(encoder.notes.clone(), prompts(PromptStyle::Text), None);
    for (at, row) in [1, 2, 3, 4, 5].into_iter().enumerate() {
        let alone = match batch.by_text[at] {
            true => texts.encode_rows(&[row]).unwrap(),
            false => encoder.encode_rows(&[row]).unwrap(),
        };
        let ids = &batch.input_ids[at * batch.seq..][..batch.lengths[at]];
        assert_eq!(ids, alone.input_ids, "row {row}");
        let blank = values_of(&batch, at).iter().all(|&value| value == 0.0);
        assert_eq!(blank, batch.by_text[at], "row {row}");
    }
    // What shows only when it is decoded is told once, and known from then on.
    let news = by_text.take_news();
    assert!(news.len() == 1 && news[0].contains("note-4"), "{news:?}");
    assert!(!encoder.shows_picture(4));
    encoder.encode_rows(&[4]).unwrap();
    assert!(by_text.take_news().is_empty());
    // A batch of such notes alone is still one of the variant.
    let alone = encoder.encode_rows(&[2, 3]).unwrap();
    assert_eq!(alone.image_emb_index, Some(vec![0, 0]));
    assert_eq!(batch.slice(1..3).by_text, [true, true]);
}

#[test]
fn a_model_that_sees_pictures_alone_is_told_nothing_of_notes_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let (encoder, _) = encoder_with_fallback(folder.path(), true);
    let batch = encoder.encode_rows(&[2, 3]).unwrap();
    let (first, second) = batch.input_ids.split_at(batch.seq);
    assert_eq!(first, second);
}

#[test]
fn dropping_stops_the_threads() {
    let folder = tempfile::tempdir().unwrap();
    let encoder = encoder(folder.path(), note_set(folder.path()), 0);
    for taken in 0..4 {
        let start = Cursor::default();
        let order = settings(2, 2);
        let batches = PairBatches::new(Arc::clone(&encoder), pairs(), 5, start, order).unwrap();
        let mut batches = batches;
        for _ in 0..taken {
            batches.next().unwrap().unwrap();
        }
        drop(batches);
        // The threads hold the encoder as long as they run.
        assert_eq!(Arc::strong_count(&encoder), 1);
    }
}

fn swapping(share: f64, side: SwapSide, fields: &[SwapField]) -> SwapSettings {
    SwapSettings {
        share,
        side,
        fields: fields.to_vec(),
        keep_title_end_chars: 0,
    }
}

const ALL_FIELDS: [SwapField; 4] = [
    SwapField::Title,
    SwapField::Topics,
    SwapField::Content,
    SwapField::Image,
];

#[test]
fn swaps_follow_share_side_and_fields() {
    let pairs = pairs();
    let place = |position| Cursor { epoch: 2, position };
    assert!(Swap::new(&swapping(0.0, SwapSide::Both, &ALL_FIELDS), &pairs, 1).is_none());

    // Every part comes from every note equally often, by draws that do not know of each other.
    let settings = swapping(0.25, SwapSide::Both, &ALL_FIELDS);
    let swap = Swap::new(&settings, &pairs, 1).unwrap();
    let draws = 40_000;
    let mut swapped = [0; 2];
    let mut both = 0;
    let mut donors = [[0_u32; 20]; 4];
    let mut equal_donors = 0;
    for position in 0..draws {
        let drawn = swap.draw(place(position), 3, 9);
        assert_eq!(drawn, swap.draw(place(position), 3, 9));
        let own = [Shown::own(3), Shown::own(9)];
        let differs = [0, 1].map(|side| drawn[side] != own[side]);
        both += i32::from(differs == [true; 2]);
        for side in [0, 1].into_iter().filter(|&side| differs[side]) {
            swapped[side] += 1;
            let Shown {
                row,
                title,
                topics,
                content,
                image,
                ..
            } = drawn[side];
            assert_eq!(row, own[side].row);
            for (field, donor) in [title, topics, content, image].into_iter().enumerate() {
                donors[field][donor as usize] += 1;
            }
            equal_donors += i32::from(title == image);
        }
    }
    // A quarter, within five standard deviations (87); both sides at once a sixteenth (48).
    assert!(
        swapped.iter().all(|count| (9565..10435).contains(count)),
        "{swapped:?}"
    );
    assert!((2260..2740).contains(&both), "{both}");
    assert!((800..1200).contains(&equal_donors), "{equal_donors}");
    let even = |count: &u32| (845..1155).contains(count);
    assert!(donors.iter().flatten().all(even), "{donors:?}");

    let settings = swapping(1.0, SwapSide::Query, &[SwapField::Content]);
    let swap = Swap::new(&settings, &pairs, 1).unwrap();
    let others = (0..200).filter(|&position| {
        let [query, target] = swap.draw(place(position), 3, 9);
        assert_eq!(target, Shown::own(9));
        assert_eq!(
            query,
            Shown {
                content: query.content,
                ..Shown::own(3)
            }
        );
        query.content != 3
    });
    assert!((175..=200).contains(&others.count()));
    let again = Swap::new(&settings, &pairs, 2).unwrap();
    let differs = |position| swap.draw(place(position), 3, 9) != again.draw(place(position), 3, 9);
    assert!((0..200).filter(|&position| differs(position)).count() > 150);
}

#[test]
fn parts_come_from_the_notes_of_training_pairs_alone() {
    let pair = |query, target| Pair {
        query,
        target,
        weight: 1.0,
    };
    let pairs = [pair(4, 7), pair(7, 11)];
    let swap = Swap::new(&swapping(1.0, SwapSide::Both, &ALL_FIELDS), &pairs, 1).unwrap();
    let shown = (0..300).flat_map(|position| swap.draw(Cursor { epoch: 0, position }, 4, 7));
    let donors: std::collections::BTreeSet<u32> = shown
        .flat_map(|shown| [shown.title, shown.topics, shown.content, shown.image])
        .collect();
    assert_eq!(donors.into_iter().collect::<Vec<_>>(), [4, 7, 11]);
}

#[test]
fn a_swapped_title_keeps_its_own_end() {
    let note = |id: &str, title: &str| Note {
        id: id.into(),
        title: title.into(),
        topics: vec![format!("topic of {id}")],
        content: format!("content of {id}"),
        ..Note::default()
    };
    let notes = [
        note("a", "Toy Story (1995)"),
        note("b", "Heat (1986)"),
        note("c", "É"),
    ];
    let notes = NoteSet::new(notes.to_vec()).unwrap();
    let shown = |row, title, own_title_end| Shown {
        title,
        own_title_end,
        ..Shown::own(row)
    };
    let title = |shown: Shown| shown.text(&notes).title.clone();
    assert_eq!(title(shown(0, 1, 6)), "Heat (1995)");
    assert_eq!(title(shown(1, 0, 6)), "Toy Story (1986)");
    assert_eq!(title(shown(0, 1, 0)), "Heat (1986)");
    assert_eq!(title(shown(0, 2, 6)), "(1995)");
    assert_eq!(title(shown(2, 0, 6)), "Toy Story É");
    assert_eq!(title(shown(0, 0, 6)), "Toy Story (1995)");
    let all = Shown {
        topics: 1,
        content: 2,
        ..shown(0, 1, 6)
    };
    let text = all.text(&notes);
    assert_eq!(
        (text.id.as_str(), text.content.as_str()),
        ("a", "content of c")
    );
    assert_eq!(text.topics, ["topic of b"]);
    assert_eq!(*Shown::own(1).text(&notes), notes[1]);
}

/// A batch with swaps holds what a note set holds whose notes have those parts; and a resumed
/// loader, of any threads, goes on with the same swaps.
#[test]
fn swapped_batches_hold_the_parts_that_were_drawn_and_resume() {
    let folder = tempfile::tempdir().unwrap();
    let notes = note_set(folder.path());
    let swap = swapping(0.6, SwapSide::Both, &ALL_FIELDS);
    let drawn = |cursor, threads, prefetch, count| {
        let encoder = encoder(folder.path(), notes.clone(), 1 << 20);
        let settings = LoaderSettings {
            swap: swap.clone(),
            ..settings(threads, prefetch)
        };
        let batches = PairBatches::new(encoder, pairs(), 5, cursor, settings).unwrap();
        batches
            .take(count)
            .map(|item| item.unwrap())
            .collect::<Vec<_>>()
    };
    let batches = drawn(Cursor::default(), 1, 0, 9);
    let swaps = Swap::new(&swap, &pairs(), 5).unwrap();
    let mut order = PairOrder::new(20, 5, Cursor::default());
    for (_, batch) in &batches {
        let drawn: Vec<[Shown; 2]> = order
            .next_batch(6)
            .into_iter()
            .map(|(place, index)| swaps.draw(place, index as u32, (index as u32 + 7) % 20))
            .collect();
        let shown: Vec<Shown> = [0, 1]
            .into_iter()
            .flat_map(|side| drawn.iter().map(move |p| p[side]))
            .collect();
        let made = shown.iter().enumerate().map(|(at, shown)| {
            let row = |row: u32| &notes.rows()[row as usize];
            Note {
                id: format!("made-{at}"),
                title: row(shown.title).title.clone(),
                topics: row(shown.topics).topics.clone(),
                content: row(shown.content).content.clone(),
                image: row(shown.image).image.clone(),
                ..Note::default()
            }
        });
        let made = encoder(folder.path(), NoteSet::new(made.collect()).unwrap(), 0);
        let rows: Vec<u32> = shown.iter().map(|shown| shown.row).collect();
        assert_eq!(batch.at_places(&batch.rows), rows);
        for (place, &note) in batch.places.iter().enumerate() {
            let expected = made.encode_rows(&[place as u32]).unwrap();
            let found = batch.slice(note..note + 1);
            let rows = vec![rows[place]];
            assert_eq!(found, NoteBatch { rows, ..expected });
        }
        let distinct = shown.iter().collect::<std::collections::HashSet<_>>().len();
        assert_eq!(batch.notes, distinct);
        // A picture that several notes show is there once.
        let pictures = batch.pictures.as_ref().unwrap();
        let shown: std::collections::HashSet<u32> = shown.iter().map(|note| note.image).collect();
        assert_eq!(pictures.distinct.len(), shown.len());
        assert_eq!(pictures.of_note.len(), batch.notes);
    }
    let (cursor, _) = batches[3];
    assert!(drawn(cursor, 3, 2, 5) == batches[4..]);
}
