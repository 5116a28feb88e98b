//! What people read when a config is wrong.

use std::path::{Path, PathBuf};

use mlrm_config::RunConfig;

/// The message for a config file of this text, as named by a user who stands beside it.
fn message(text: &str, overrides: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.toml");
    std::fs::write(&path, text).unwrap();
    let overrides: Vec<String> = overrides.iter().map(|o| o.to_string()).collect();
    let error = RunConfig::load(&path, &overrides).expect_err("the config is wrong");
    let shown = error.to_string();
    let prefix = format!("{}{}", folder.path().display(), std::path::MAIN_SEPARATOR);
    shown.replace(&prefix, "")
}

/// A config in which nothing is wrong, to add something wrong to.
const GOOD: &str = "[tokenizer]\ntrain_vocab_size = 2000\n";

fn bad(text: &str) -> String {
    message(&format!("{GOOD}{text}"), &[])
}

#[test]
fn unknown_keys() {
    insta::assert_snapshot!(bad("[train]\nlearning_rat = 1e-3 # too fast?\nlr = 3"), @r###"
    error: unknown key `train.learning_rat`
      --> bad.toml:4:1
         |
       4 | learning_rat = 1e-3 # too fast?
         | ^^^^^^^^^^^^
      help: did you mean `train.learning_rate`?

    error: unknown key `train.lr`
      --> bad.toml:5:1
         |
       5 | lr = 3
         | ^^
      help: did you mean `train.learning_rate`?

    2 errors in the config
    "###);
}

#[test]
fn keys_of_other_sections() {
    insta::assert_snapshot!(bad("[train]\ntemperature = 0.05\nqueries = 4\n[run]\nbatch_pairs = 2"), @r###"
    error: unknown key `train.temperature`
      --> bad.toml:4:1
         |
       4 | temperature = 0.05
         | ^^^^^^^^^^^
      help: did you mean `objective.temperature`?

    error: unknown key `train.queries`
      --> bad.toml:5:1
         |
       5 | queries = 4
         | ^^^^^^^
      help: did you mean `model.connector.queries`?

    error: unknown key `run.batch_pairs`
      --> bad.toml:7:1
         |
       7 | batch_pairs = 2
         | ^^^^^^^^^^^
      help: did you mean `train.batch_pairs`?

    3 errors in the config
    "###);
}

#[test]
fn unlike_any_key() {
    insta::assert_snapshot!(bad("[model.head]\nxyzzy = 1"), @r###"
    error: unknown key `model.head.xyzzy`
      --> bad.toml:4:1
         |
       4 | xyzzy = 1
         | ^^^^^
      help: the nearest valid key is `model.head.dim`; keys of [model.head]: `dim`
    "###);
}

#[test]
fn unknown_sections() {
    insta::assert_snapshot!(bad("[trian]\nlearning_rate = 1\n[model.lm]\nhidden_size = 7\n[model.llm.xyzzy]\nrank = 4"), @r###"
    error: unknown section `trian`
      --> bad.toml:3:2
         |
       3 | [trian]
         |  ^^^^^
      help: did you mean `train`?

    error: unknown section `model.lm`
      --> bad.toml:5:8
         |
       5 | [model.lm]
         |        ^^
      help: did you mean `model.llm`?

    error: unknown section `model.llm.xyzzy`
      --> bad.toml:7:12
         |
       7 | [model.llm.xyzzy]
         |            ^^^^^
      help: the nearest valid key is `model.llm.family`; keys of [model.llm]: `path`, `accept_keys`, `keep_layers`, `family`, `vocab_size`, `hidden_size`, `num_hidden_layers`, `num_attention_heads`, `num_key_value_heads`, `head_dim`, `intermediate_size`, `max_position_embeddings`, `rope_theta`, `rms_norm_eps`, `initializer_range`, `tune`, `quantisation`, `lora`

    3 errors in the config
    "###);
}

#[test]
fn wrong_types() {
    insta::assert_snapshot!(bad(
        "[run]\nseed = \"7\"\n[train]\nbatch_pairs = 2.0\nlearning_rate = \"fast\"\nbetas = [0.9]\ntensorboard = 1\n\
         [eval]\nk = 10\n[data]\npairs = \"pairs.csv\"\n[dashboard]\nenabled = true\n[data.root]\nx = 1"
    ), @r###"
    error: `run.seed` is the string "7", but takes an integer ≥ 0
      --> bad.toml:4:8
         |
       4 | seed = "7"
         |        ^^^
      help: write it without quotes: seed = 7

    error: `train.batch_pairs` is the number 2.0, but takes an integer ≥ 2
      --> bad.toml:6:15
         |
       6 | batch_pairs = 2.0
         |               ^^^
      help: write it without a fraction: batch_pairs = 2

    error: `train.learning_rate` is the string "fast", but takes a number > 0
      --> bad.toml:7:17
         |
       7 | learning_rate = "fast"
         |                 ^^^^^^
      help: `mlrm config explain train.learning_rate` says more

    error: `train.betas` is a list of 1, but takes a list of 2 numbers
      --> bad.toml:8:9
         |
       8 | betas = [0.9]
         |         ^^^^^
      help: `mlrm config explain train.betas` says more

    error: `train.tensorboard` is the integer 1, but takes a boolean (true or false)
      --> bad.toml:9:15
         |
       9 | tensorboard = 1
         |               ^
      help: `mlrm config explain train.tensorboard` says more

    error: `eval.k` is the integer 10, but takes a list of integers ≥ 1
      --> bad.toml:11:5
          |
       11 | k = 10
          |     ^^
      help: put square brackets around it

    error: `data.pairs` is the string "pairs.csv", but takes a table
      --> bad.toml:13:9
          |
       13 | pairs = "pairs.csv"
          |         ^^^^^^^^^^^
      help: it is a section; its keys are `window_days`, `ties`, `weight`, `min_users`, `lower`, `upper`, `top_k`, `train_top_k`, `max_events_per_user`, `split`, `test_fraction`, `validation_fraction` and `test_targets`

    error: `dashboard.enabled` is the boolean true, but takes one of "auto", "on", "off"
      --> bad.toml:15:11
          |
       15 | enabled = true
          |           ^^^^
      help: `mlrm config explain dashboard.enabled` says more

    error: `data.root` is a table, but takes a string
      --> bad.toml:16:1
          |
       16 | [data.root]
          | ^^^^^^^^^^^
      help: it is a key, not a section: root = …

    9 errors in the config
    "###);
}

#[test]
fn a_number_or_a_word() {
    insta::assert_snapshot!(bad("[train]\nmicro_batch_notes = \"all\""), @r###"
    error: `train.micro_batch_notes` is the string "all", but takes an integer ≥ 0 or "auto"
      --> bad.toml:4:21
         |
       4 | micro_batch_notes = "all"
         |                     ^^^^^
      help: `mlrm config explain train.micro_batch_notes` says more
    "###);
    insta::assert_snapshot!(bad("[train]\nmicro_batch_notes = \"32\""), @r###"
    error: `train.micro_batch_notes` is the string "32", but takes an integer ≥ 0 or "auto"
      --> bad.toml:4:21
         |
       4 | micro_batch_notes = "32"
         |                     ^^^^
      help: write it without quotes: micro_batch_notes = 32
    "###);
    insta::assert_snapshot!(bad("[train]\nmicro_batch_notes = -1"), @r###"
    error: `train.micro_batch_notes` is out of range: -1
      --> bad.toml:4:21
         |
       4 | micro_batch_notes = -1
         |                     ^^
      help: it takes an integer ≥ 0
    "###);
}

#[test]
fn wrong_choices() {
    insta::assert_snapshot!(bad(
        "[backend]\ndtype = \"bf-16\"\n[model]\nvariant = \"clip\"\n[eval]\nbaselines = [\"bm25\", \"rand\"]"
    ), @r###"
    error: `backend.dtype` cannot be the string "bf-16"
      --> bad.toml:4:9
         |
       4 | dtype = "bf-16"
         |         ^^^^^^^
      help: did you mean "bf16"? allowed: "f32", "bf16", "f16"

    error: `model.variant` cannot be the string "clip"
      --> bad.toml:6:11
         |
       6 | variant = "clip"
         |           ^^^^^^
      help: allowed: "text", "image", "basic", "micl", "latefusion", "lateearly", "notellm2"

    error: `eval.baselines[1]` cannot be the string "rand"
      --> bad.toml:8:22
         |
       8 | baselines = ["bm25", "rand"]
         |                      ^^^^^^
      help: did you mean "random"? allowed: "bm25", "popularity", "random", "text_only", "image_only", "zero_shot", "int8", "cosine"

    3 errors in the config
    "###);
}

#[test]
fn out_of_range() {
    insta::assert_snapshot!(bad(
        "[train]\nbatch_pairs = 1\nlearning_rate = 0\nwarmup_ratio = 1.5\nbetas = [0.9, 1.0]\nepsilon = nan\n\
         weight_decay = inf\nmax_steps = -1\n[eval]\nk = []\n[data.pairs]\ntest_fraction = 1\nmin_users = 5_000_000_000\n\
         [run]\ndir = \"\"\nseed = 99999999999999999999"
    ), @r###"
    error: `train.batch_pairs` is out of range: 1
      --> bad.toml:4:15
         |
       4 | batch_pairs = 1
         |               ^
      help: it takes an integer ≥ 2

    error: `train.learning_rate` is out of range: 0
      --> bad.toml:5:17
         |
       5 | learning_rate = 0
         |                 ^
      help: it takes a number > 0

    error: `train.warmup_ratio` is out of range: 1.5
      --> bad.toml:6:16
         |
       6 | warmup_ratio = 1.5
         |                ^^^
      help: it takes a number in [0, 1]

    error: `train.betas[1]` is out of range: 1
      --> bad.toml:7:15
         |
       7 | betas = [0.9, 1.0]
         |               ^^^
      help: averaging factors are in [0, 1); AdamW's usual ones are [0.9, 0.999]

    error: `train.epsilon` is not a finite number
      --> bad.toml:8:11
         |
       8 | epsilon = nan
         |           ^^^
      help: give a number > 0

    error: `train.weight_decay` is not a finite number
      --> bad.toml:9:16
         |
       9 | weight_decay = inf
         |                ^^^
      help: give a number ≥ 0

    error: `train.max_steps` is out of range: -1
      --> bad.toml:10:13
          |
       10 | max_steps = -1
          |             ^^
      help: it takes an integer ≥ 0

    error: `eval.k` is an empty list
      --> bad.toml:12:5
          |
       12 | k = []
          |     ^^
      help: give at least one; it takes a list of integers ≥ 1

    error: `data.pairs.test_fraction` is out of range: 1
      --> bad.toml:14:17
          |
       14 | test_fraction = 1
          |                 ^
      help: it takes a number in [0, 1)

    error: `data.pairs.min_users` is out of range: 5000000000
      --> bad.toml:15:13
          |
       15 | min_users = 5_000_000_000
          |             ^^^^^^^^^^^^^
      help: it takes an integer ≥ 1, at most 4294967295

    error: `run.dir` is empty
      --> bad.toml:17:7
          |
       17 | dir = ""
          |       ^^
      help: give it a value, or leave the key out to have its default

    error: `run.seed` is the integer 99999999999999999999, which does not fit in 64 bits
      --> bad.toml:18:8
          |
       18 | seed = 99999999999999999999
          |        ^^^^^^^^^^^^^^^^^^^^
      help: it takes an integer ≥ 0

    12 errors in the config
    "###);
}

#[test]
fn model_sizes_that_do_not_fit() {
    insta::assert_snapshot!(bad(
        "[model.llm]\nhidden_size = 90\nnum_key_value_heads = 3\n[model.vision]\nimage_size = 65\nselect_layer = 3\n\
         [model.connector]\nnum_attention_heads = 5\nprojector = \"mlp\""
    ), @r###"
    error: a width of 90 (`model.llm.hidden_size`) does not split into 4 heads
      --> bad.toml:4:1
         |
       4 | hidden_size = 90
         | ^^^^^^^^^^^
      help: set `model.llm.hidden_size` to a multiple of 4: 88 or 92; or `model.llm.num_attention_heads` to a divisor of 90: 3 or 5

    error: 4 query heads (`num_attention_heads`) cannot share 3 key/value heads evenly
      --> bad.toml:5:1
         |
       5 | num_key_value_heads = 3
         | ^^^^^^^^^^^^^^^^^^^
      help: set `model.llm.num_key_value_heads` to a divisor of 4: 2 or 4

    error: a picture of 65 pixels does not split into patches of 16
      --> bad.toml:7:1
         |
       7 | image_size = 65
         | ^^^^^^^^^^
      help: set `model.vision.image_size` to a multiple of 16: 64 or 80

    error: there is no hidden state 3 in an encoder of 2 layers
      --> bad.toml:8:1
         |
       8 | select_layer = 3
         | ^^^^^^^^^^^^
      help: it takes -3 to 2; -1 is the last layer's output

    error: a width of 768 (`model.connector.hidden_size`) does not split into 5 heads
      --> bad.toml:10:1
          |
       10 | num_attention_heads = 5
          | ^^^^^^^^^^^^^^^^^^^
      help: set `model.connector.hidden_size` to a multiple of 5: 765 or 770; or `model.connector.num_attention_heads` to a divisor of 768: 4 or 6

    error: there is no projector "mlp"
      --> bad.toml:11:1
          |
       11 | projector = "mlp"
          | ^^^^^^^^^
      help: allowed: "linear", or "mlp2x_gelu" with 1 to 8 in place of 2

    6 errors in the config
    "###);
    insta::assert_snapshot!(bad("[model.llm]\nhidden_size = 60\nnum_attention_heads = 4"), @r###"
    error: a head is 15 wide, but rotary positions turn channels in pairs: the width has to be even
      --> bad.toml:4:1
         |
       4 | hidden_size = 60
         | ^^^^^^^^^^^
      help: set `model.llm.head_dim` to 14 or 16
    "###);
}

#[test]
fn a_resampler_has_squares() {
    insta::assert_snapshot!(bad(
        "[model.llm]\nhidden_size = 90\nnum_attention_heads = 9\nnum_key_value_heads = 9\n\
         [model.connector]\nkind = \"resampler\"\nqueries = 5\nnum_attention_heads = 6\n\
         [model.vision]\nfamily = \"qwen_vl_visual\"\npost_layernorm = true"
    ), @r###"
    error: a width of 90 is not a multiple of 4, and the positions of a resampler (`model.connector.kind`) need one
      --> bad.toml:4:1
         |
       4 | hidden_size = 90
         | ^^^^^^^^^^^
      help: set `model.llm.hidden_size` to 88 or 92

    error: the queries of a resampler stand in a square: 5 do not
      --> bad.toml:9:1
         |
       9 | queries = 5
         | ^^^^^^^
      help: set `model.connector.queries` to a square number: 4 or 9

    error: the family qwen_vl_visual has no norm after its layers
      --> bad.toml:13:1
          |
       13 | post_layernorm = true
          | ^^^^^^^^^^^^^^
      help: set `model.vision.post_layernorm` to false

    3 errors in the config
    "###);
}

#[test]
fn an_inner_width_that_a_family_cannot_write_down() {
    insta::assert_snapshot!(bad(
        "[model.vision]\nfamily = \"dinov2\"\nhidden_size = 20\nnum_attention_heads = 4\n\
         intermediate_size = 50"
    ), @r###"
    error: `dinov2` has a feed-forward network a whole number of times as wide as its states: 50 is no multiple of 20
      --> bad.toml:7:1
         |
       7 | intermediate_size = 50
         | ^^^^^^^^^^^^^^^^^
      help: set `model.vision.intermediate_size` to 40 or 60
    "###);
}

#[test]
fn a_head_that_rotary_positions_do_not_fill() {
    insta::assert_snapshot!(bad(
        "[model.vision]\nfamily = \"dinov3_vit\"\nhidden_size = 20\nnum_attention_heads = 2"
    ), @r###"
    error: `dinov3_vit` turns the channels of a head by fours: 20 / 2 is no multiple of 4
      --> bad.toml:5:1
         |
       5 | hidden_size = 20
         | ^^^^^^^^^^^
      help: set `model.vision.hidden_size` to 16 or 24
    "###);
}

#[test]
fn settings_that_exclude_each_other() {
    insta::assert_snapshot!(bad(
        "path = \"tokenizer.json\"\n[objective]\ntemperature = 0.05\ntemperature_logit = 3.0\n\
         [train]\nepochs = 0\n[data]\nsource = \"synth\"\n[data.pairs]\nlower = 3\nupper = 2"
    ), @r###"
    error: `tokenizer.path` and `tokenizer.train_vocab_size` are both set
      --> bad.toml:2:1
         |
       2 | train_vocab_size = 2000
         | ^^^^^^^^^^^^^^^^
      help: keep one: a tokenizer is either read or trained

    error: `objective.temperature` and `objective.temperature_logit` are both set
      --> bad.toml:5:1
         |
       5 | temperature = 0.05
         | ^^^^^^^^^^^
      help: keep one: they are the same number, temperature = exp(-temperature_logit); temperature = 0.05 is temperature_logit = 2.9957

    error: training would stop before its first step
      --> bad.toml:8:1
         |
       8 | epochs = 0
         | ^^^^^^
      help: set `train.max_steps`, or `train.epochs` above 0

    error: the sample set would be drawn into the current folder
      --> bad.toml:10:1
          |
       10 | source = "synth"
          | ^^^^^^
      help: give it a folder of its own: root = "runs/sample"

    error: no score is at least 3 (`lower`) and at most 2 (`upper`)
      --> bad.toml:12:1
          |
       12 | lower = 3
          | ^^^^^
      help: swap the two, or leave one out

    5 errors in the config
    "###);
    insta::assert_snapshot!(message("[data]\ninteractions = \"\"", &[]), @r###"
    error: there is neither a behaviour log nor a pairs file to learn from
      --> bad.toml:2:1
         |
       2 | interactions = ""
         | ^^^^^^^^^^^^
      help: set `data.interactions` (a log) or `data.pairs_file` (ready-made pairs)

    error: there is no tokenizer
      help: set `tokenizer.train_vocab_size` (train one on the notes, say 8000), `tokenizer.path` (a tokenizer.json), or `model.llm.path` or `model.checkpoint` (a folder that holds one)

    2 errors in the config
    "###);
}

#[test]
fn quantised_weights_are_held_on_devices_of_one_kind() {
    let tuned = "[model.llm]\ntune = \"lora\"\nquantisation = \"q4\"\n[backend]\ndevice =";
    let shown = bad(&format!("{tuned} [\"flex\", \"flex\", \"cuda\"]"));
    assert!(shown.contains("devices of different kinds"), "{shown}");
    assert!(
        shown.contains("model.llm.quantisation = \"none\""),
        "{shown}"
    );
    let shown = bad(&format!("{tuned} [\"cuda:1\", \"cuda:1\"]"));
    assert!(
        shown.contains("listed twice") && !shown.contains("kinds"),
        "{shown}"
    );
}

#[test]
fn devices_slices_prompts() {
    insta::assert_snapshot!(bad(
        "[backend]\ndevice = [\"cuda\", \"cuda:0\", \"cpu\"]\n[prompt]\nlanguage = \"fr\"\nimage_emb_token = \"<IMG>\"\n\
         max_tokens = 16\n[eval]\nk = [10, 10]\n[[eval.slices]]\nname = \"all\"\nfield = \"category\"\nvalue = \"x\"\n\
         [[eval.slices]]\nname = \"y\"\nvalue = 3\n"
    ), @r###"
    error: the device `cuda:0` is listed twice
      --> bad.toml:4:19
         |
       4 | device = ["cuda", "cuda:0", "cpu"]
         |                   ^^^^^^^^
      help: list each device once; only `flex` may be listed several times

    error: `cpu` is not a device name: there is no backend `cpu`
      --> bad.toml:4:29
         |
       4 | device = ["cuda", "cuda:0", "cpu"]
         |                             ^^^^^
      help: did you mean "flex"? allowed: flex, vulkan[:i], wgpu[:i], metal, cuda[:i], rocm[:i]

    error: there is no prompt template for the language "fr"
      --> bad.toml:6:1
         |
       6 | language = "fr"
         | ^^^^^^^^
      help: allowed: "en", "zh"; for others, write a template and set `prompt.template_file`

    error: `prompt.image_emb_token` and `prompt.image_token` are both "<IMG>"
      --> bad.toml:7:1
         |
       7 | image_emb_token = "<IMG>"
         | ^^^^^^^^^^^^^^^
      help: give each special token a spelling of its own

    error: 16 visual tokens leave no room in a prompt of 16
      --> bad.toml:8:1
         |
       8 | max_tokens = 16
         | ^^^^^^^^^^
      help: the paper has 140 tokens of text beside them: max_tokens = 156

    error: the cut-off 10 is listed twice
      --> bad.toml:10:10
          |
       10 | k = [10, 10]
          |          ^^
      help: list each cut-off once

    error: `eval.slices[1].field` is missing
      --> bad.toml:15:1
          |
       15 | [[eval.slices]]
          | ^^^^^^^^^^^^^^^
      help: add `field = …`: A field of the note: `category`, `topics`, or any further field of the notes file.

    error: `eval.slices[1].value` is the integer 3, but takes a string
      --> bad.toml:17:9
          |
       17 | value = 3
          |         ^
      help: `mlrm config explain eval.slices[1].value` says more

    8 errors in the config
    "###);
}

#[test]
fn slices_of_one_name() {
    let slice = "[[eval.slices]]\nname = \"y\"\nfield = \"category\"\nvalue = \"x\"\n";
    insta::assert_snapshot!(bad(&format!("{slice}{slice}")), @r###"
    error: two slices are named "y"
      --> bad.toml:8:1
         |
       8 | name = "y"
         | ^^^^
      help: results are stored by name: give each slice its own
    "###);
}

#[test]
fn syntax() {
    insta::assert_snapshot!(bad("[train\nbatch_pairs = = 2\n[run]\nseed = 1\nseed = 2"), @r###"
    error: not valid TOML: unclosed table, expected `]`
      --> bad.toml:3:7
         |
       3 | [train
         |       ^

    error: not valid TOML: extra `=`, expected nothing
      --> bad.toml:4:15
         |
       4 | batch_pairs = = 2
         |               ^

    error: not valid TOML: unexpected key or value, expected newline, `#`
      --> bad.toml:4:17
         |
       4 | batch_pairs = = 2
         |                 ^

    error: not valid TOML: duplicate key
      --> bad.toml:7:1
         |
       7 | seed = 2
         | ^^^^

    4 errors in the config
    "###);
}

#[test]
fn overrides() {
    insta::assert_snapshot!(message(GOOD, &[
        "train.batch_pair=4",
        "train.batch_pairs=1",
        "train.betas.first=1",
        "backend.dtype=f64",
        "backend.device=cuda:x",
        "model.llm={hiden_size = 3}",
        "nonsense",
        "=3",
        "lr=1e-3",
        "trian.x=",
    ]), @r###"
    error: the override `nonsense` has no `=`
      --> --set nonsense
      help: write it as section.key=value: --set train.batch_pairs=32

    error: the override `=3` names no key
      --> --set =3
      help: write it as section.key=value: --set train.batch_pairs=32

    error: unknown key `train.batch_pair`
      --> --set train.batch_pair=4
      help: did you mean `train.batch_pairs`?

    error: `train.batch_pairs` is out of range: 1
      --> --set train.batch_pairs=1
      help: it takes an integer ≥ 2

    error: `train.betas` is a table, but takes a list of 2 numbers
      --> --set train.betas.first=1
      help: it is a key, not a section: betas = …

    error: `backend.dtype` cannot be the string "f64"
      --> --set backend.dtype=f64
      help: allowed: "f32", "bf16", "f16"

    error: unknown key `model.llm.hiden_size`
      --> --set model.llm={hiden_size = 3}
      help: did you mean `model.llm.hidden_size`?

    error: unknown key `lr`
      --> --set lr=1e-3
      help: did you mean `train.learning_rate`?

    error: unknown section `trian`
      --> --set trian.x=
      help: did you mean `train`?

    error: `cuda:x` is not a device name: `x` is not an index (0, 1, …)
      --> --set backend.device=cuda:x
      help: did you mean "cuda:0"? allowed: flex, vulkan[:i], wgpu[:i], metal, cuda[:i], rocm[:i]

    10 errors in the config
    "###);
}

#[test]
fn files_that_cannot_be_read() {
    let missing = RunConfig::load("no/such.toml", &[]).unwrap_err();
    insta::assert_snapshot!(missing, @r###"
    error: cannot read the config no/such.toml: No such file or directory (os error 2)
      help: give the path of a TOML file, seen from the current folder; `configs/` holds examples
    "###);
    let folder = tempfile::tempdir().unwrap();
    let shown = |path: &Path| RunConfig::load(path, &[]).unwrap_err().to_string();
    assert!(
        shown(folder.path()).contains("folder"),
        "{}",
        shown(folder.path())
    );
    let path: PathBuf = folder.path().join("latin1.toml");
    std::fs::write(&path, b"# caf\xe9\n").unwrap();
    assert!(shown(&path).contains("UTF-8"), "{}", shown(&path));
}

/// Nothing that a file can hold makes the reader panic.
#[test]
fn any_damage_is_an_error_or_a_config() {
    let good = include_str!("../../../configs/demo.toml");
    for cut in (0..good.len()).filter(|cut| good.is_char_boundary(*cut)) {
        let _ = RunConfig::from_toml_str(&good[..cut]);
    }
    for (index, byte) in good.char_indices().step_by(7) {
        for replacement in ["[", "\"", "=", "é", "\u{0}", "9", "\n"] {
            let end = index + byte.len_utf8();
            let damaged = format!("{}{replacement}{}", &good[..index], &good[end..]);
            let _ = RunConfig::from_toml_str(&damaged).map_err(|error| error.to_string());
        }
    }
}

#[test]
fn an_embedding_table_without_room_for_the_tokens() {
    let shown = bad("[model.llm]\nvocab_size = 1000");
    for part in [
        "an embedding table of 1000 rows has no room for 2000 tokens",
        "bad.toml:4:1",
        "set `model.llm.vocab_size` to 2000 or more",
    ] {
        assert!(shown.contains(part), "{shown}");
    }
}
