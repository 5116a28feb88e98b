//! `mlrm export --python`: the folder, its model card, and the embeddings that Python computes from it. The
//! latter runs where Python with torch, transformers and sentence-transformers is: `python3`, or what the
//! environment variable `MLRM_PYTHON` names.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::{Home, python_with};

/// A model for each variant, over other decoders, vision encoders and connectors: its name, and how its config
/// differs from the common one. Layouts, gates, budgets, adapters and a missing head are each in one of them.
const MODELS: [(&str, &str); 9] = [
    ("text", "model.llm.family=llama prompt.language=zh"),
    (
        "image",
        "model.llm.family=qwen3 model.vision.family=siglip_vision_model",
    ),
    (
        "basic",
        "model.llm.family=opt model.vision.family=dinov2 model.connector.kind=mlp \
            model.connector.projector=linear",
    ),
    (
        "micl",
        "model.llm.family=gemma2 model.vision.family=vit prompt.layout=after",
    ),
    (
        "latefusion",
        "model.llm.family=phi3 model.vision.family=siglip_vision_model \
            model.vision.post_layernorm=true prompt.title_keep=end",
    ),
    (
        "lateearly",
        "model.llm.family=mistral model.vision.family=dinov2_with_registers \
            model.vision.select_feature=patch model.connector.kind=resampler \
            model.connector.queries=4 model.fusion.kind=scalar",
    ),
    (
        "notellm2",
        "model.llm.family=qwen2 model.vision.select_layer=-2 prompt.max_tokens=62 \
            model.fusion.initial_weight=0.8",
    ),
    (
        "latefusion",
        "model.llm.family=llama model.vision.family=dinov3_vit \
            model.vision.post_layernorm=true",
    ),
    (
        "notellm2",
        "model.llm.family=gemma3_text model.llm.tune=lora \
            model.vision.family=blip_2_vision_model model.head.dim=0 \
            data.exif_orientation=apply",
    ),
];

/// Texts that a tokenizer, a template or a budget could stumble over, each with the kind of its picture.
fn odd_notes() -> Vec<Value> {
    let long = "A rather long sentence about nothing that goes on. ".repeat(20);
    let marks = format!("e{} end", "\u{301}".repeat(300));
    let family = "👩\u{200d}👩\u{200d}👧".repeat(30);
    vec![
        json!({"title": "", "content": "", "image": "rgb.png"}),
        json!({"title": "plain", "topics": ["a", "b"], "content": "text", "image": "rgba.png"}),
        json!({"title": long, "topics": [long, "", "x", "y", "z"], "content": long, "image": "grey.png"}),
        json!({"title": "no picture", "content": "read by its text"}),
        json!({"title": "<IMG> </s> <|endoftext|>", "content": "<IMG_EMB>\u{1}token\u{1}", "image": "palette.png"}),
        json!({"title": "line\nbreaks.\r\n\tand\u{0}nul", "content": "a\u{2028}b\u{85}", "image": "palette.gif"}),
        json!({"title": "日本語のタイトルです", "topics": ["東京", "雨"], "content": "東京の夜、雨が降っていた。".repeat(9), "image": "grey16.png"}),
        json!({"title": family, "content": marks, "image": "grey_alpha.png"}),
        json!({"title": "  blanks  ", "topics": ["#one", "two\nlines"], "content": "{title} {x}", "image": "one_bit.png"}),
        json!({"title": "مرحبا بالعالم", "content": "Привет, мир! Как дела?", "image": "rgb.bmp"}),
        json!({"title": "\"quotes\"", "content": long, "image": "palette_transparent.png"}),
        json!({"title": "end", "content": "🙂🇩🇪 naïve café", "image": "rgba_lossless.webp"}),
    ]
}

/// The odd notes in `odd/`, their pictures beside them.
fn write_odd_notes(home: &Home) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mlrm-data/tests/fixtures/images");
    let mut lines = String::new();
    for (number, mut note) in odd_notes().into_iter().enumerate() {
        note["id"] = json!(number.to_string());
        if let Some(image) = note["image"].as_str() {
            let bytes = fs::read(fixtures.join(image)).expect("a picture");
            home.write(&format!("odd/{image}"), bytes);
        }
        lines += &format!("{note}\n");
    }
    home.write("odd/notes.jsonl", lines);
}

/// Trains one step, and gives the run's name.
fn train(home: &Home, number: usize, variant: &str, sets: &str) -> String {
    let name = format!("{variant}-{number}");
    let sets = format!(
        "model.variant={variant} train.max_steps=1 train.eval_every_steps=0 \
        train.saliency_every_steps=0 eval.baselines=[] {sets}"
    );
    home.train(&name, sets).done();
    name
}

#[test]
fn python_computes_the_same_embeddings() {
    let test = "python_computes_the_same_embeddings";
    let packages = "sentence_transformers, torch, transformers";
    let Some(python) = python_with(test, "sentence-transformers", packages) else {
        return;
    };
    let home = Home::with_config();
    home.write(
        "tiny.toml",
        support::TINY.replace("num_key_value_heads = 1\n", ""),
    );
    write_odd_notes(&home);
    let mut arguments = vec!["odd/notes.jsonl".to_owned()];
    for (number, (variant, sets)) in MODELS.into_iter().enumerate() {
        let name = train(&home, number, variant, sets);
        let (out, folder) = (format!("{name}.npy"), format!("{name}-python"));
        let visual = match variant {
            "micl" | "notellm2" => "--visual",
            _ => "",
        };
        home.mlrm(format!(
            "embed {name} --notes odd/notes.jsonl --out {out} \
            --set data.on_missing_image=text {visual}"
        ))
        .done();
        home.mlrm(format!("export {name} --python {folder}")).done();
        arguments.extend([folder, out]);
    }
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/transformers/check_python.py");
    let output = Command::new(python)
        .arg(script)
        .args(&arguments)
        .current_dir(home.path(""))
        .env("HF_MODULES_CACHE", home.path("modules"))
        .env("HF_HUB_OFFLINE", "1")
        .env("OMP_NUM_THREADS", "1")
        .output()
        .expect("Python runs");
    let shown = String::from_utf8_lossy(&output.stdout);
    eprintln!("{shown}");
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}\n{problem}");
    let same = shown.lines().filter(|line| line.starts_with("same "));
    assert_eq!(same.count(), MODELS.len(), "{shown}");
}

#[test]
fn the_folder_is_a_model_folder_with_a_card() {
    let home = Home::with_config();
    home.train("run", "train.max_steps=2").done();
    let ran = home.mlrm("export run --python shop");
    ran.done().shows(&["trust_remote_code=True"]);
    let config = home.json("shop/config.json");
    assert_eq!(config["auto_map"]["AutoModel"], "modeling_mlrm.MlrmModel");
    assert_eq!(config["prompts"]["styles"]["picture"]["added_positions"], 1);
    let card = home.read("shop/README.md");
    let recall = &support::events(&home, "run")
        .into_iter()
        .rfind(|event| event["event"] == "evaluation" && event["split"] == "test")
        .expect("a table")["slices"]["all"]["recall@10"];
    for words in [
        "---\nlibrary_name: sentence-transformers\n",
        "- name: \"shop\"",
        &format!("{{type: \"recall@10\", value: {recall}}}"),
        "| embedding size | 16 |",
        "## Retrieval",
        "## Training settings\n\n```toml\n",
        "batch_pairs = 8",
    ] {
        assert!(card.contains(words), "no `{words}` in {card}");
    }
    // mlrm reads it as it reads the run; a model folder has no measurements to tell of.
    assert!(home.embed("run", "a.npy") == home.embed("shop", "b.npy"));
    home.mlrm("export shop --python again").done();
    assert!(!home.read("again/README.md").contains("## Retrieval"));
}

#[test]
fn what_python_has_no_class_for_is_refused_by_name() {
    let home = Home::with_config();
    home.write(
        "tiny.toml",
        support::TINY.replace("num_key_value_heads = 1\n", ""),
    );
    let name = train(&home, 0, "notellm2", "model.llm.family=qwen");
    let python = |model: &str, says: &[&str]| {
        home.refused(format!("export {model} --python x"), says);
    };
    python(&name, &["no class for the language model `qwen`", "--out"]);
    python(&format!("{name}/model/vision"), &["no whole model of mlrm"]);
    python("data", &["neither a model folder"]);
    home.refused(
        format!("export {name} --python data"),
        &["--python: data is there already"],
    );
    let both = home.mlrm(format!("export {name} --python x --out y"));
    both.failed_with(2, &["cannot be used with"]);
}
