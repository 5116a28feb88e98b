//! A run so small that its steps take milliseconds.

use std::path::Path;

use mlrm_config::{DataSource, RunConfig};

/// A NoteLLM-2 of three layers that learns whole, and 60 drawn notes of 16 pixels in `root`.
pub fn small_config(root: &Path) -> RunConfig {
    let mut config = RunConfig::default();
    config.run.dir = root.join("run");
    config.data.source = DataSource::Synth;
    config.data.root = root.to_path_buf();
    config.data.synth.notes = 60;
    config.data.synth.users = 150;
    config.data.synth.image_pixels = 16;
    config.data.pairs.min_users = 1;
    config.data.loader_threads = 1;
    config.data.prefetch_batches = 0;
    config.tokenizer.train_vocab_size = Some(400);
    config.model.head.dim = 16;
    let llm = &mut config.model.llm;
    (llm.hidden_size, llm.intermediate_size) = (32, 64);
    (llm.num_hidden_layers, llm.num_attention_heads) = (3, 4);
    llm.num_key_value_heads = Some(2);
    (llm.lora.rank, llm.lora.dropout) = (4, 0.3);
    let vision = &mut config.model.vision;
    (vision.hidden_size, vision.intermediate_size) = (24, 48);
    (vision.num_hidden_layers, vision.num_attention_heads) = (2, 3);
    (vision.image_size, vision.patch_size) = (16, 8);
    let connector = &mut config.model.connector;
    (connector.queries, connector.layers, connector.hidden_size) = (3, 1, 24);
    (connector.num_attention_heads, connector.intermediate_size) = (3, 48);
    connector.query_init_std = 0.02;
    config.train.batch_pairs = 9;
    config
}
