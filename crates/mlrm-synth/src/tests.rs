use std::collections::HashMap;

use mlrm_config::{DataSettings, PairSettings, PairWeight, Split};

use super::*;
use mlrm_data::notes::NoteSet;
use mlrm_data::split::load_pairs;

fn settings() -> SynthSettings {
    SynthSettings {
        notes: 120,
        users: 200,
        events_per_user: 12,
        image_pixels: 16,
        seed: 3,
        style: SynthStyle::Drawn,
    }
}

fn files(root: &Path) -> HashMap<String, Vec<u8>> {
    let mut files = HashMap::new();
    for folder in [root.to_path_buf(), root.join("images")] {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    files
}

#[test]
fn the_same_settings_give_the_same_bytes() {
    let home = tempfile::tempdir().unwrap();
    let (one, two) = (home.path().join("one"), home.path().join("two"));
    assert!(ensure_synth(&one, &settings()).unwrap());
    let single = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap();
    assert!(single.install(|| ensure_synth(&two, &settings())).unwrap());
    assert!(files(&one) == files(&two));
    assert_eq!(files(&one).len(), 120 + 4);
    // Made once only, and never over other settings or other files.
    fs::remove_file(one.join("README.md")).unwrap();
    assert!(!ensure_synth(&one, &settings()).unwrap());
    assert!(!one.join("README.md").exists());
    let other = SynthSettings {
        seed: 4,
        ..settings()
    };
    let message = ensure_synth(&one, &other).unwrap_err().to_string();
    assert!(
        message.contains("made with other settings: {\"notes\":120"),
        "{message}"
    );
    let message = ensure_synth(home.path(), &other).unwrap_err().to_string();
    assert!(message.contains("not empty"), "{message}");
    let three = home.path().join("three");
    assert!(ensure_synth(&three, &other).unwrap());
    assert!(files(&one)["notes.jsonl"] != files(&three)["notes.jsonl"]);
    fs::write(three.join(STAMP), "{").unwrap();
    assert!(
        ensure_synth(&three, &other)
            .unwrap_err()
            .to_string()
            .contains("no sample set")
    );
    assert_eq!(
        fs::read_dir(home.path()).unwrap().count(),
        3,
        "nothing partial is left"
    );
}

#[test]
fn sizes_out_of_range_are_refused_and_small_ones_work() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("x");
    for bad in [
        SynthSettings {
            notes: 3,
            ..settings()
        },
        SynthSettings {
            users: 0,
            ..settings()
        },
        SynthSettings {
            image_pixels: 5000,
            ..settings()
        },
    ] {
        let message = ensure_synth(&root, &bad).unwrap_err().to_string();
        assert!(message.contains("out of range; set "), "{message}");
        assert!(!root.exists());
    }
    let small = SynthSettings {
        notes: 4,
        users: 1,
        events_per_user: 1,
        ..settings()
    };
    ensure_synth(&root, &small).unwrap();
    assert_eq!(NoteSet::read(&root.join("notes.jsonl")).unwrap().len(), 4);
}

#[test]
fn themes_grow_with_the_set_and_end_with_the_vocabulary() {
    for (style, most) in [(SynthStyle::Drawn, 160), (SynthStyle::Photographs, 64)] {
        let themes = |notes| {
            let themes = Themes::of(notes, style);
            (themes.visual, themes.text)
        };
        assert_eq!([themes(4), themes(600)], [(2, 2), (8, 8)]);
        assert_eq!(themes(10_000_000), (most, 16));
    }
}

#[test]
fn texts_fit_the_prompt_and_never_name_what_is_drawn() {
    let drawn = [
        "red", "blue", "yellow", "green", "purple", "orange", "teal", "pink", "disc", "circle",
        "square", "triangle", "star", "ring", "plain", "stripes", "dots", "checks", "plus",
        "crescent", "heart", "ripples", "bricks", "wood", "blotches", "chevrons",
    ];
    for number in 0..2000 {
        let note = note(
            number,
            Taste {
                visual: 0,
                text: number % 16,
            },
            5,
        );
        assert!(note.title.chars().count() <= 20, "{}", note.title);
        assert!(note.content.chars().count() <= 80, "{}", note.content);
        let text = format!("{} {} {}", note.title, note.topics.join(" "), note.content);
        for word in text
            .to_lowercase()
            .split(|letter: char| !letter.is_alphabetic())
        {
            assert!(!drawn.contains(&word), "{text}");
        }
    }
}

#[test]
fn words_of_a_theme_are_its_own_and_shared_by_some_of_its_notes() {
    let mut owner = HashMap::new();
    for (theme, words) in VOCABULARY.themes.iter().enumerate() {
        for word in words.topics.iter().chain(&words.things).chain(&words.acts) {
            assert_eq!(owner.insert(*word, theme), None, "{word}");
        }
    }
    // Matching words finds some relations, not all and not none.
    let words = |number: usize| -> Vec<&str> {
        let note = note(number, Taste { visual: 0, text: 3 }, 5);
        let text = format!(
            "{} | {} | {}",
            note.title,
            note.topics.join(" "),
            note.content
        );
        owner
            .keys()
            .filter(|word| text.contains(*word))
            .copied()
            .collect()
    };
    let notes: Vec<_> = (0..60).map(words).collect();
    let mut shared = 0;
    for (number, words) in notes.iter().enumerate() {
        for others in &notes[..number] {
            shared += usize::from(words.iter().any(|word| others.contains(word)));
        }
    }
    let share = shared as f64 / (60.0 * 59.0 / 2.0);
    assert!((0.25..0.75).contains(&share), "{share}");
}

#[test]
fn related_notes_share_both_themes() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("set");
    let synth = SynthSettings {
        users: 1500,
        events_per_user: 20,
        notes: 600,
        image_pixels: 8,
        seed: 7,
        style: SynthStyle::Drawn,
    };
    ensure_synth(&root, &synth).unwrap();
    let notes = NoteSet::read(&root.join("notes.jsonl")).unwrap();
    let data = DataSettings {
        root,
        pairs: PairSettings {
            split: Split::None,
            weight: PairWeight::Count,
            min_users: 3,
            ..PairSettings::default()
        },
        ..DataSettings::default()
    };
    let pairs = load_pairs(&data, &notes, 0).unwrap().pairs.train;
    let same = |field: &str| {
        let same = |pair: &&mlrm_data::split::Pair| {
            notes[pair.query].extra[field] == notes[pair.target].extra[field]
        };
        pairs.iter().filter(same).count() as f64 / pairs.len() as f64
    };
    let queries: std::collections::HashSet<u32> = pairs.iter().map(|pair| pair.query).collect();
    assert!(queries.len() > 590, "{}", queries.len());
    assert!(pairs.len() > 3000, "{}", pairs.len());
    assert!(same("visual_theme") > 0.95, "{}", same("visual_theme"));
    assert!(same("text_theme") > 0.95, "{}", same("text_theme"));
}

/// The bytes of the drawn pictures and of the notes are what results were measured on.
#[test]
fn the_drawn_style_is_fixed_for_all_time() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("set");
    ensure_synth(&root, &settings()).unwrap();
    let pixels = |name: &str| {
        image::open(root.join("images").join(name))
            .unwrap()
            .into_rgb8()
    };
    let hash = |bytes: &[u8]| blake3::hash(bytes).to_hex()[..16].to_owned();
    let found = [
        hash(pixels("n00000.png").as_raw()),
        hash(pixels("n00119.png").as_raw()),
        hash(&fs::read(root.join("notes.jsonl")).unwrap()),
        hash(&fs::read(root.join("interactions.csv")).unwrap()),
    ];
    let expected = [
        "4271a1cf697c9486",
        "1f6339a118d0d4d6",
        "37adfbf09f6b7bed",
        "96643674cf0edba1",
    ];
    assert_eq!(found, expected);
}

/// A mean colour finds the theme of a drawn picture, and not that of a photograph.
#[test]
fn a_mean_colour_does_not_tell_the_theme_of_a_photograph() {
    let share_found = |draw: fn(usize, u32, &mut Random) -> image::RgbImage| {
        let mean = |number: usize| -> [f64; 3] {
            let picture = draw(number % 8, 24, &mut Random::new(1, Stream::Picture, number));
            let sum = |channel: usize| {
                let values = picture.pixels().map(|pixel| f64::from(pixel.0[channel]));
                values.sum::<f64>() / f64::from(24 * 24)
            };
            std::array::from_fn(sum)
        };
        let means: Vec<[f64; 3]> = (0..320).map(mean).collect();
        let nearest = |number: usize| {
            let distance = |other: &usize| -> f64 {
                let channels = means[number].iter().zip(&means[*other]);
                channels.map(|(a, b)| (a - b).powi(2)).sum()
            };
            let others = (0..320).filter(|other| *other != number);
            others
                .min_by(|a, b| distance(a).total_cmp(&distance(b)))
                .unwrap()
        };
        let found = (0..320).filter(|&number| nearest(number) % 8 == number % 8);
        found.count() as f64 / 320.0
    };
    let drawn = share_found(picture::draw);
    let photographs = share_found(photograph::draw);
    assert!(drawn > 0.5, "{drawn}");
    assert!(photographs < 0.2, "{photographs}, by chance 0.125");
}

#[test]
fn photographs_of_a_theme_differ_and_are_the_same_again() {
    let draw = |theme, number| {
        let mut random = Random::new(1, Stream::Picture, number);
        photograph::draw(theme, 32, &mut random)
    };
    assert_eq!(draw(5, 1), draw(5, 1));
    assert_ne!(draw(5, 1), draw(5, 2));
    // The theme is in the picture: the same scene around another object.
    let (one, other) = (draw(5, 1), draw(6, 1));
    let changed = one.pixels().zip(other.pixels()).filter(|(a, b)| a != b);
    let share = changed.count() as f64 / f64::from(32 * 32);
    assert!((0.05..0.7).contains(&share), "{share}");
}
