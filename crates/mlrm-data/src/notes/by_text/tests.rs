use super::*;

fn notes() -> NoteSet {
    let note = |id: usize| Note {
        id: id.to_string(),
        image: (id != 3).then(|| format!("{id}.png")),
        ..Note::default()
    };
    NoteSet::new((0..20).map(note).collect()).unwrap()
}

fn bad(message: &str) -> Problem {
    Problem::new(ProblemKind::UndecodableImage, message, "mend it")
}

fn screened() -> Screened {
    Screened {
        missing: vec![(3, None)],
        bad: (5..17).map(|row| (row, bad("no picture"))).collect(),
    }
}

fn settings(on_missing_image: OnImageProblem, on_bad_image: OnImageProblem) -> DataSettings {
    DataSettings {
        on_missing_image,
        on_bad_image,
        ..DataSettings::default()
    }
}

#[test]
fn errors_count_the_notes_and_name_the_first_ten_and_the_settings() {
    use OnImageProblem::{Error, Text};
    let message = |missing, bad| {
        let resolved = ByText::resolve(notes(), &screened(), &settings(missing, bad));
        resolved.unwrap_err().to_string()
    };
    let both = message(Error, Error);
    for part in [
        "1 of 20 notes has no picture:\n  note `3`: it names none",
        "12 of 20 notes have a picture that cannot be used:\n  note `5`, image `5.png`: no picture",
        "note `14`",
        "… and 2 more",
        "data.on_missing_image",
        "data.on_bad_image",
    ] {
        assert!(both.contains(part), "{part}: {both}");
    }
    assert!(!both.contains("note `15`"), "{both}");
    assert!(!message(Text, Error).contains("data.on_missing_image"));
    assert!(!message(Error, Text).contains("data.on_bad_image"));
}

#[test]
fn notes_are_read_by_text_or_left_out_as_the_settings_say() {
    use OnImageProblem::{Drop, Text};
    let (kept, by_text, counts) =
        ByText::resolve(notes(), &screened(), &settings(Text, Drop)).unwrap();
    assert_eq!((kept.len(), counts.by_text(), counts.dropped()), (8, 1, 12));
    assert!(kept.is_dropped("5") && !kept.is_dropped("3") && kept.row("5").is_none());
    let read: Vec<&str> = (0..8)
        .filter(|&row| by_text.reads(row))
        .map(|row| kept[row].id.as_str())
        .collect();
    assert_eq!(read, ["3"]);
    assert_eq!(
        counts.summary().unwrap(),
        "1 note is read by text alone (1 without a picture, 0 with one that cannot be used); 12 \
         notes are left out (0 without a picture, 12 with one that cannot be used)"
    );
    assert_eq!(WithoutPicture::default().summary(), None);
    // What shows later is told once; a note cannot be left out any more.
    let screened: Vec<FailedPicture> = by_text.take_failed();
    assert_eq!(screened.len(), 12);
    assert!(screened.iter().all(|failed| failed.left_out));
    by_text.late(0, &kept[0], bad("cut")).unwrap();
    by_text.late(0, &kept[0], bad("cut")).unwrap();
    let late = by_text.take_failed();
    assert_eq!(late.len(), 1);
    assert_eq!((late[0].image.as_str(), late[0].left_out), ("0.png", false));
    let news = by_text.take_news();
    assert_eq!(news.len(), 1);
    assert!(news[0].contains("too late to leave it out"), "{news:?}");
    assert!(by_text.reads(0) && by_text.take_news().is_empty());
    let strict = ByText::none(2).late(1, &kept[1], bad("cut")).unwrap_err();
    assert!(strict.mend.contains("data.on_bad_image"));
}

#[test]
fn a_set_of_which_nothing_is_left_is_refused() {
    let all = Screened {
        missing: (0..20).map(|row| (row, None)).collect(),
        bad: Vec::new(),
    };
    let drop = settings(OnImageProblem::Drop, OnImageProblem::Error);
    let message = ByText::resolve(notes(), &all, &drop)
        .unwrap_err()
        .to_string();
    assert!(message.contains("every note is dropped"), "{message}");
}
