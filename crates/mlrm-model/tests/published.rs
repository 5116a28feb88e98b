//! The published checkpoints in miniature under `tests/golden/published`: each folder is read as users
//! bring it, and every hidden state equals the one that transformers computed.

use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use mlrm_config::SelectFeature;
use mlrm_model::decoder::DecoderTrace;
use mlrm_model::source::{Loaded, ModelSource};
use mlrm_model::vision::FeatureSelection;
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

/// All hidden states that a folder's model computes from the stored input, row-major.
fn hidden_states(loaded: &Loaded, expected: &Checkpoint, device: &Device) -> Vec<Vec<f32>> {
    let states = match loaded {
        Loaded::Llm(decoder) => {
            let ids = expected
                .get_i64("input_ids")
                .expect("readable")
                .expect("ids");
            let ids = TensorData::new(ids.1, [ids.0[0], ids.0[1]]);
            let embedded = decoder.embed(Tensor::<2, Int>::from_data(ids, device));
            let mut trace = DecoderTrace::default();
            decoder.forward(embedded, Some(&mut trace));
            trace.hidden_states
        }
        Loaded::Vision(tower) => {
            let pixels = expected
                .get("pixel_values")
                .expect("readable")
                .expect("pixels");
            let shape: [usize; 4] = pixels.shape.try_into().expect("four sides");
            let pixels = Tensor::from_data(TensorData::new(pixels.values, shape), device);
            let selection = FeatureSelection {
                layer: -1,
                positions: SelectFeature::ClsPatch,
                post_layernorm: false,
            };
            let mut every = Vec::new();
            tower.forward(pixels, selection, Some(&mut every));
            every
        }
        Loaded::Model(_) | Loaded::System(..) => panic!("neither a decoder nor a tower"),
    };
    let read = |state: Tensor<3>| state.try_into_vec_as::<f32>().expect("values");
    states.into_iter().map(read).collect()
}

#[test]
fn every_published_checkpoint_loads_and_equals_transformers() {
    let device = Device::default();
    let folders = folders();
    assert_eq!(folders.len(), 35);
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
        let states = hidden_states(&loaded, &expected, &device);
        let wanted = expected
            .get("hidden_states")
            .expect("readable")
            .expect("states");
        assert_eq!(states.len(), wanted.shape[0], "{name}");
        let size = wanted.values.len() / states.len();
        for (layer, (state, wanted)) in states.iter().zip(wanted.values.chunks(size)).enumerate() {
            assert_eq!(state.len(), wanted.len(), "{name}, state {layer}");
            let largest = wanted.iter().fold(0.0f32, |most, v| most.max(v.abs()));
            let pairs = state.iter().zip(wanted);
            let error = pairs.fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
            assert!(
                error <= TOLERANCE * largest,
                "{name}, state {layer}: {error} of {largest}"
            );
        }
    }
}
