//! The published checkpoints in miniature under `tests/golden/published`: each folder is read as users
//! bring it, and every hidden state equals the one that transformers computed (of Qwen 1 and Qwen-VL, which it
//! lacks, the reference in `tests/golden/oracle`).

use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use mlrm_config::SelectFeature;
use mlrm_model::decoder::{Decoder, DecoderTrace};
use mlrm_model::source::{Loaded, ModelSource};
use mlrm_model::vision::{FeatureSelection, VisionTower};
use mlrm_model::weights::{Checkpoint, LoadOptions};

/// Of the largest value of a state.
const TOLERANCE: f32 = 1e-5;

fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/published");
    let entries = std::fs::read_dir(&root).expect("tests/golden/published");
    let mut folders: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders
}

/// A part's hidden states, row-major, and the name of those that transformers computed.
type States = (&'static str, Vec<Vec<f32>>);

/// All hidden states that a folder's models compute from the stored inputs, and what stands at the image
/// positions where it has a connector.
fn hidden_states(
    source: &ModelSource,
    loaded: &Loaded,
    expected: &Checkpoint,
    device: &Device,
) -> Vec<States> {
    let words = |decoder: &Decoder| {
        let ids = expected
            .get_i64("input_ids")
            .expect("readable")
            .expect("ids");
        let ids = TensorData::new(ids.1, [ids.0[0], ids.0[1]]);
        let embedded = decoder.embed(Tensor::<2, Int>::from_data(ids, device));
        let mut trace = DecoderTrace::default();
        decoder.forward(embedded, Some(&mut trace));
        let mut states = read(trace.hidden_states);
        if !expected.contains("last_hidden_state") {
            return vec![("hidden_states", states)];
        }
        let last = states.split_off(states.len() - 1);
        vec![("hidden_states", states), ("last_hidden_state", last)]
    };
    let pixels = || {
        let pixels = expected.get("pixel_values").expect("readable");
        let pixels = pixels.expect("pixels");
        let shape: [usize; 4] = pixels.shape.try_into().expect("four sides");
        Tensor::from_data(TensorData::new(pixels.values, shape), device)
    };
    let seen = |tower: &VisionTower| {
        let selection = FeatureSelection {
            layer: -1,
            positions: SelectFeature::ClsPatch,
            post_layernorm: false,
        };
        let mut every = Vec::new();
        tower.forward(pixels(), selection, Some(&mut every));
        read(every)
    };
    match loaded {
        Loaded::Llm(decoder) => words(decoder),
        Loaded::Vision(tower) => vec![("hidden_states", seen(tower))],
        Loaded::System(decoder, tower, connector) => {
            let ModelSource::System { whole, .. } = source else {
                panic!("a whole model");
            };
            let tower = tower.as_ref().expect("a vision encoder");
            let connector = connector.as_ref().expect("a connector");
            let read_features = whole.features().expect("what its connector reads");
            let features = tower.forward(pixels(), read_features, None).positions;
            let tokens = connector.forward(features).visual_tokens;
            let mut states = words(decoder);
            states.push(("vision_hidden_states", seen(tower)));
            states.push(("visual_tokens", read(vec![tokens])));
            states
        }
        Loaded::Model(_) => panic!("not as others publish it"),
    }
}

fn read(states: Vec<Tensor<3>>) -> Vec<Vec<f32>> {
    let values = |state: Tensor<3>| state.try_into_vec_as::<f32>().expect("values");
    states.into_iter().map(values).collect()
}

#[test]
fn every_published_checkpoint_loads_and_equals_transformers() {
    let device = Device::default();
    let folders = folders();
    assert_eq!(folders.len(), 58);
    for folder in folders {
        let name = folder
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let source = ModelSource::open(&folder, &[]).unwrap_or_else(|e| panic!("{name}: {e}"));
        let parts = source.parts().unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(
            parts.iter().all(|part| part.mismatches.is_empty()),
            "{name}: {parts:?}"
        );
        let loaded = source.load(&device, &LoadOptions::new(DType::F32));
        let loaded = loaded.unwrap_or_else(|e| panic!("{name}: {e}"));

        let expected = Checkpoint::open(&folder.join("expected.safetensors")).expect("expected");
        for (of, states) in hidden_states(&source, &loaded, &expected, &device) {
            let wanted = expected.get(of).expect("readable").expect("states");
            assert_eq!(states.len(), wanted.shape[0], "{name}");
            let size = wanted.values.len() / states.len();
            for (layer, (state, wanted)) in
                states.iter().zip(wanted.values.chunks(size)).enumerate()
            {
                assert_eq!(state.len(), wanted.len(), "{name}, {of}, state {layer}");
                let largest = wanted.iter().fold(0.0f32, |most, v| most.max(v.abs()));
                let pairs = state.iter().zip(wanted);
                let error = pairs.fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
                assert!(
                    error <= TOLERANCE * largest,
                    "{name}, {of}, state {layer}: {error} of {largest}"
                );
            }
        }
    }
}
