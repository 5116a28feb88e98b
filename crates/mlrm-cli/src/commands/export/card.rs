//! The model card of an exported folder: `README.md` with the metadata that the Hub reads.

use std::fmt::Write;
use std::path::Path;

use mlrm_events::means;
use mlrm_events::text::markdown;
use mlrm_model::embedder::ModelFolder;
use mlrm_report::run::Run;
use mlrm_train::TrainError;

/// The card of the model in `folder`, which was exported from the model or run folder `source`. What a run
/// measured, and its settings, stand in it where `source` is one.
///
/// # Errors
/// A run whose log or settings cannot be read.
pub fn card(folder: &ModelFolder, source: &Path, name: &str) -> Result<String, TrainError> {
    let run = match source.join("events.jsonl").is_file() {
        true => {
            Some(Run::read(source).map_err(|error| TrainError::file(source, error.to_string()))?)
        }
        false => None,
    };
    let mut text = metadata(name, run.as_ref());
    text += &description(folder, name);
    if let Some(run) = &run {
        text += &mlrm_report::markdown::page(std::slice::from_ref(run));
        let path = source.join("config.toml");
        let config = std::fs::read_to_string(&path).map_err(TrainError::io("read", &path))?;
        let _ = write!(
            text,
            "## Training settings\n\n```toml\n{}\n```\n",
            config.trim_end()
        );
    }
    Ok(text)
}

/// The YAML in front. Strings are written as JSON, which YAML contains.
fn metadata(name: &str, run: Option<&Run>) -> String {
    let mut yaml = String::from(
        "---\nlibrary_name: sentence-transformers\npipeline_tag: feature-extraction\n\
         tags: [mlrm, sentence-transformers, feature-extraction, multimodal, custom_code]\n",
    );
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let measured = run.and_then(|run| Some((run, run.evaluation()?.slices.get("all")?)));
    if let Some((run, metrics)) = measured {
        let _ = write!(
            yaml,
            "model-index:\n- name: {}\n  results:\n  - task: {{type: retrieval, name: \"Item-to-item retrieval\"}}\n    \
             dataset: {{type: {1}, name: {1}}}\n    metrics:\n",
            quoted(name),
            quoted(&run.name),
        );
        for (metric, value) in means(metrics).filter(|(_, value)| value.is_finite()) {
            let metric = quoted(metric);
            let _ = writeln!(yaml, "    - {{type: {metric}, value: {value}}}");
        }
    }
    yaml + "---\n\n"
}

fn description(folder: &ModelFolder, name: &str) -> String {
    let config = &folder.config;
    let half = |json: serde_json::Value| json["model_type"].as_str().unwrap_or_default().to_owned();
    let vision = config
        .vision
        .as_ref()
        .map_or("none".to_owned(), |vision| half(vision.to_json()));
    let step = folder
        .provenance
        .step
        .map_or("unknown".to_owned(), |step| step.to_string());
    let image = if config.vision.is_some() {
        ", \"image\": \"pier.jpg\""
    } else {
        ""
    };
    format!(
        "# {}\n\n\
         An embedding model for notes that have a text and a picture, by the method of \
         [NoteLLM-2](https://arxiv.org/abs/2405.16789), trained and exported with mlrm {}. Related notes have \
         embeddings of a high cosine.\n\n\
         | | |\n| --- | --- |\n\
         | variant | `{}` |\n| language model | `{}`, width {} |\n| vision encoder | `{vision}` |\n\
         | visual tokens | {} |\n| embedding size | {} |\n| training step | {step} |\n\n\
         ```python\n\
         from sentence_transformers import SentenceTransformer\n\n\
         model = SentenceTransformer(\"FOLDER\", trust_remote_code=True)\n\
         model.encode([{{\"title\": \"Sunset\", \"topics\": [\"sea\"], \"content\": \"At the pier.\"{image}}}])\n\
         ```\n\n\
         `AutoModel.from_pretrained(\"FOLDER\", trust_remote_code=True).embed(notes)` gives the same. The code is in \
         `modeling_mlrm.py`, which says what a note may hold; mlrm reads the folder too.\n\n",
        markdown(name),
        folder.provenance.mlrm_version,
        config.variant.name(),
        half(config.llm.to_json()),
        config.llm.hidden_size,
        config.visual_tokens(),
        config.embedding_size(),
    )
}
