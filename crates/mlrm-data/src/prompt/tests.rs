use std::path::Path;

use mlrm_config::Variant;
use proptest::prelude::*;

use super::*;

const STYLES: [PromptStyle; 4] = [
    PromptStyle::Text,
    PromptStyle::Image,
    PromptStyle::Basic,
    PromptStyle::Micl,
];

fn note(title: &str, topics: &[&str], content: &str) -> Note {
    Note {
        id: "n".into(),
        title: title.into(),
        topics: topics.iter().map(|topic| (*topic).into()).collect(),
        content: content.into(),
        ..Note::default()
    }
}

fn tokenizer(settings: &PromptSettings) -> Arc<Tokenizer> {
    let texts = (0..40).map(|i| format!("Note: {{\"title\":\"a cat {i}\"}}, compress this note"));
    let mut special = special_tokens(settings, PromptStyle::Micl);
    special.push("<|im_start|>");
    Arc::new(Tokenizer::train(texts, 320, &special).unwrap())
}

fn encoder(settings: &PromptSettings, style: PromptStyle, visual_tokens: usize) -> PromptEncoder {
    PromptEncoder::new(settings, tokenizer(settings), style, visual_tokens).unwrap()
}

/// The prompt as text, special tokens spelt out. Byte-level ids decode without loss.
fn prompt_text(settings: &PromptSettings, style: PromptStyle, note: &Note) -> String {
    let encoder = encoder(settings, style, 16);
    let encoded = encoder.encode(note).unwrap();
    encoder.tokenizer().decode(&encoded.ids).unwrap()
}

#[test]
fn prompts_are_those_of_the_method() {
    let note = note("A cat", &["pets", "cute"], "It sleeps.\nIt eats");
    let fields = r#""title":"A cat","topics":"pets, cute","content":"It sleeps. It eats""#;
    let ask = "compress this note into one word: ";
    let expected = [
        format!(r#"Note: {{{fields}}}, {ask}""#),
        format!(r#"Note: {{"image":"<IMG>"}}, {ask}""#),
        format!(r#"Note: {{"image":"<IMG>",{fields}}}, {ask}""#),
        format!(r#"Note: {{"image":"<IMG>"}}, {ask}"<IMG_EMB>". Note: {{{fields}}}, {ask}""#),
    ];
    let settings = PromptSettings::default();
    for (style, expected) in STYLES.into_iter().zip(expected) {
        assert_eq!(prompt_text(&settings, style, &note), expected);
    }
    let chinese = PromptSettings {
        language: "zh".into(),
        // The vocabulary of these tests has no Chinese words: a character is three tokens.
        max_tokens: Some(500),
        ..PromptSettings::default()
    };
    assert_eq!(
        prompt_text(
            &chinese,
            PromptStyle::Micl,
            &super::tests::note("猫", &["宠物", "可爱"], "它睡。\n它吃\n好")
        ),
        "笔记：{\"图片\":\"<IMG>\"}，将此笔记压缩为一个词：\"<IMG_EMB>\"。\
         笔记：{\"标题\":\"猫\",\"主题\":\"宠物，可爱\",\"内容\":\"它睡。它吃。好\"}，将此笔记压缩为一个词：\""
    );
}

#[test]
fn variants_have_the_styles_of_the_method() {
    let styles = Variant::ALL.map(|variant| PromptStyle::from(variant).name());
    let expected = ["text", "image", "basic", "micl", "text", "basic", "micl"];
    assert_eq!(styles, expected);
    for variant in Variant::ALL {
        assert_eq!(
            PromptStyle::from(variant).has_image(),
            variant.image_tokens()
        );
        assert_eq!(PromptStyle::from(variant).has_image_emb(), variant.micl());
    }
}

#[test]
fn indices_point_at_the_image_tokens() {
    for layout in [ImageLayout::Replace, ImageLayout::After] {
        let settings = PromptSettings {
            layout,
            image_token: "<img>".into(),
            ..PromptSettings::default()
        };
        for style in STYLES {
            let encoder = encoder(&settings, style, 4);
            let encoded = encoder
                .encode(&note("<img>", &["</img>"], "<IMG_EMB>"))
                .unwrap();
            let places = |token: &str| -> Vec<usize> {
                let id = encoder.tokenizer().token_id(token);
                (0..encoded.ids.len())
                    .filter(|&at| Some(encoded.ids[at]) == id)
                    .collect()
            };
            let image: Vec<usize> = encoded.image_index.into_iter().collect();
            assert_eq!(image.len(), usize::from(style.has_image()));
            assert_eq!(places("<img>"), image);
            let end: Vec<usize> = match layout {
                ImageLayout::Replace => Vec::new(),
                ImageLayout::After => image.iter().map(|at| at + 1).collect(),
            };
            assert_eq!(places("</img>"), end);
            let image_emb: Vec<usize> = encoded.image_emb_index.into_iter().collect();
            assert_eq!(image_emb.len(), usize::from(style.has_image_emb()));
            assert_eq!(places("<IMG_EMB>"), image_emb);
        }
    }
}

#[test]
fn budgets_count_graphemes_and_topics() {
    let settings = PromptSettings {
        title_chars: 3,
        content_chars: 4,
        topics: 2,
        topic_chars: 2,
        ..PromptSettings::default()
    };
    let family = "👩\u{200d}👩\u{200d}👧";
    let topics = ["abc", " \n", "defg", "never"];
    let text = prompt_text(
        &settings,
        PromptStyle::Text,
        &note(&format!("a{family}bc"), &topics, "x\ny z"),
    );
    let expected = format!(r#""title":"a{family}b","topics":"ab, de","content":"x. y""#);
    assert!(text.contains(&expected), "{text}");
}

/// The definition, slowly: one grapheme of the content less, then one topic less, then one grapheme
/// of the title less, until the prompt fits.
fn naive(encoder: &PromptEncoder, note: &Note) -> String {
    use unicode_segmentation::UnicodeSegmentation;
    let mut text = NoteText::new(note, &encoder.settings, &encoder.template);
    loop {
        let (encoded, _) = encoder.encode_text(&text).unwrap();
        if encoder.positions(&encoded) <= encoder.max_tokens {
            return plain_text(&text, &encoder.template);
        }
        let field = CUT_ORDER
            .into_iter()
            .find(|field| !text.get(*field).is_empty())
            .unwrap();
        let last = text.get(field).graphemes(true).next_back().unwrap().len();
        text.cut(field, text.get(field).len() - last);
    }
}

const SUFFIX: &str = "\"}, compress this note into one word: \"";

proptest! {
    // A fixed seed: the two agree unless a cut lets its neighbours merge into fewer tokens.
    #![proptest_config(ProptestConfig {
        cases: 64,
        rng_seed: proptest::test_runner::RngSeed::Fixed(1),
        ..ProptestConfig::default()
    })]

    #[test]
    fn prompts_over_budget_are_cut_in_order_and_keep_the_template(
        title in "[a-d \"é👩]{0,30}",
        topics in prop::collection::vec("[a-d é]{0,9}", 0..6),
        content in "[a-d .\"é👩\n]{0,120}",
        spare in 0usize..60,
    ) {
        let open = PromptSettings {
            title_chars: 30,
            content_chars: 120,
            max_tokens: Some(10_000),
            ..PromptSettings::default()
        };
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        let note = note(&title, &topics, &content);
        let tokenizer = tokenizer(&open);
        for style in [PromptStyle::Text, PromptStyle::Micl] {
            let whole = PromptEncoder::new(&open, Arc::clone(&tokenizer), style, 5).unwrap();
            let empty = whole.encode(&super::tests::note("", &[], "")).unwrap();
            let added = if style.has_image() { 4 } else { 0 };
            let settings = PromptSettings {
                max_tokens: Some(empty.ids.len() + added + spare),
                ..open.clone()
            };
            let encoder = PromptEncoder::new(&settings, Arc::clone(&tokenizer), style, 5).unwrap();
            let encoded = encoder.encode(&note).unwrap();
            prop_assert!(encoded.ids.len() + added <= encoder.max_tokens());
            let text = tokenizer.decode(&encoded.ids).unwrap();
            let text = text.replace("<IMG_EMB>", "").replace("<IMG>", "");
            prop_assert!(text.ends_with(SUFFIX), "{}", text);
            prop_assert_eq!(text, naive(&encoder, &note));
        }
    }
}

#[test]
fn content_gives_way_before_topics_before_the_title() {
    let note = note(
        "tttttttttt",
        &["ooooooo", "ppppppp"],
        "cccccccccccccccccccc",
    );
    let settings = PromptSettings::default();
    let tokenizer = tokenizer(&settings);
    let full = PromptEncoder::new(&settings, Arc::clone(&tokenizer), PromptStyle::Text, 0).unwrap();
    let length = full.encode(&note).unwrap().ids.len();
    let mut seen = Vec::new();
    for less in 0..length {
        let settings = PromptSettings {
            max_tokens: Some(length - less),
            ..settings.clone()
        };
        let encoder = PromptEncoder::new(&settings, Arc::clone(&tokenizer), PromptStyle::Text, 0);
        let Ok(encoder) = encoder else { break };
        let text = tokenizer
            .decode(&encoder.encode(&note).unwrap().ids)
            .unwrap();
        let length = |field: &str| {
            let (_, value) = text.split_once(&format!("\"{field}\":\"")).unwrap();
            value.split_once('"').unwrap().0.len()
        };
        let counts = (length("title"), length("topics"), length("content"));
        assert!(counts.2 == 0 || counts.1 == 16, "{text}");
        assert!(counts.1 == 0 || counts.0 == 10, "{text}");
        assert!([0, 7, 16].contains(&counts.1), "{text}");
        seen.push(counts);
    }
    assert_eq!(seen.first(), Some(&(10, 16, 20)));
    assert_eq!(seen.last(), Some(&(0, 0, 0)));
}

#[test]
fn default_budgets_leave_room_for_the_visual_tokens() {
    let settings = PromptSettings::default();
    assert_eq!(encoder(&settings, PromptStyle::Text, 16).max_tokens(), 140);
    assert_eq!(encoder(&settings, PromptStyle::Basic, 16).max_tokens(), 156);
    let one = PromptSettings {
        max_tokens: Some(1),
        ..settings
    };
    let error = PromptEncoder::new(&one, tokenizer(&one), PromptStyle::Micl, 16).unwrap_err();
    assert!(error.to_string().contains("prompt.max_tokens"), "{error}");
}

const OWN: &str = r#"
sentence_mark = " / "
topic_separator = ";"
[styles]
text = '<|im_start|>{title}|{topics}|{content} {"x"} {} = '
image = '<IMG> = '
basic = '{title}<IMG> = '
micl = '<IMG><IMG_EMB>{content} = '
"#;

#[test]
fn a_template_of_ones_own_works_with_special_tokens_of_the_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.toml");
    std::fs::write(&path, OWN).unwrap();
    let settings = PromptSettings {
        template_file: Some(path),
        ..PromptSettings::default()
    };
    let note = note("<|im_start|>", &["a", "b"], "c\nd");
    let encoder = encoder(&settings, PromptStyle::Text, 0);
    let ids = encoder.encode(&note).unwrap().ids;
    let text = encoder.tokenizer().decode(&ids).unwrap();
    assert_eq!(text, r#"<|im_start|><|im_start|>|a;b|c / d {"x"} {} = "#);
    let start = encoder.tokenizer().token_id("<|im_start|>").unwrap();
    assert_eq!(ids.iter().filter(|&&id| id == start).count(), 1);
    assert_eq!(ids[0], start);
}

#[test]
fn broken_templates_say_what_is_wrong() {
    let cases = [
        ("sentence_mark = \" / \"", "", "sentence_mark"),
        ("topic_separator", "topic_seperator", "topic_seperator"),
        ("image = '<IMG> = '", "", "image"),
        ("{title}|", "{titel}|", "{titel}"),
        ("{title}|", "{content}|", "more than once"),
        ("'<IMG> = '", "'{title}<IMG> = '", "styles.image"),
        ("'<IMG> = '", "'<IMG><IMG> = '", "2 times"),
        ("'<IMG> = '", "' = '", "<IMG>"),
        ("'{title}<IMG> = '", "'<IMG> = '", "styles.basic"),
        ("'{title}<IMG> = '", "'<IMG>{title}'", "end with text"),
        (
            "'{title}<IMG> = '",
            "'{title}<IMG_EMB><IMG> = '",
            "<IMG_EMB>",
        ),
        ("<IMG><IMG_EMB>", "<IMG_EMB><IMG>", "before"),
        ("{title}|{topics}|{content}", "", "at least one"),
        ("[styles]", "[styles", "own.toml"),
    ];
    for (from, to, named) in cases {
        let text = OWN.replacen(from, to, 1);
        assert_ne!(text, OWN, "{from}");
        let error = Template::parse(Path::new("own.toml"), &text, PromptStyle::Text).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains(named) && message.contains("own.toml"),
            "{named}: {message}"
        );
    }
    let unknown = PromptSettings {
        language: "de".into(),
        ..PromptSettings::default()
    };
    let message = Template::load(&unknown, PromptStyle::Text)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("`de`") && message.contains("`zh`"),
        "{message}"
    );
}

#[test]
fn tokens_that_are_missing_or_the_same_are_refused() {
    let texts = || (0..9).map(|i| format!("note {i}"));
    let settings = PromptSettings::default();
    let bare = Arc::new(Tokenizer::train(texts(), 300, &["<IMG>"]).unwrap());
    let error = PromptEncoder::new(&settings, bare, PromptStyle::Micl, 4).unwrap_err();
    assert!(
        error.to_string().contains("prompt.image_emb_token"),
        "{error}"
    );
    let same = PromptSettings {
        image_emb_token: "<IMG>".into(),
        ..settings
    };
    let error = PromptEncoder::new(&same, tokenizer(&same), PromptStyle::Micl, 4).unwrap_err();
    assert!(error.to_string().contains("more than once"), "{error}");
}

#[test]
fn a_tokenizer_comes_from_training_or_from_a_file() {
    let settings = PromptSettings::default();
    let notes: Vec<Note> = (0..30)
        .map(|i| note(&format!("cat {i}"), &["pets"], "sleeps"))
        .collect();
    let trained = TokenizerSettings {
        path: None,
        train_vocab_size: Some(400),
    };
    let open = |tokenizer: &TokenizerSettings, folder: Option<&Path>| {
        open_tokenizer(
            tokenizer,
            &settings,
            PromptStyle::Basic,
            folder,
            notes.iter(),
        )
    };
    let (tokenizer, new) = open(&trained, None).unwrap();
    assert!(new.is_empty() && tokenizer.token_id("<IMG>").is_some());
    // The template's words occur in every prompt: each is one token.
    assert_eq!(tokenizer.encode_text(" compress").unwrap().len(), 1);

    let folder = tempfile::tempdir().unwrap();
    let plain = Tokenizer::train((0..9).map(|i| format!("note {i}")), 300, &[]).unwrap();
    plain.save(folder.path()).unwrap();
    let none = TokenizerSettings::default();
    let (tokenizer, new) = open(&none, Some(folder.path())).unwrap();
    let id = plain.vocabulary_rows() as u32;
    assert_eq!(
        new,
        [NewToken {
            content: "<IMG>".into(),
            id
        }]
    );
    assert_eq!(tokenizer.vocabulary_rows(), plain.vocabulary_rows() + 1);
    let message = open(&none, None).unwrap_err().to_string();
    assert!(message.contains("tokenizer.train_vocab_size"), "{message}");
}
