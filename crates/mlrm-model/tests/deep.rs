//! What is added to the outputs of a decoder's first layers, and angles of each item's own: the pass that runs layers
//! again has the gradients of the one that keeps them.

use burn::module::Module;
use burn::tensor::{DType, Device, Distribution, Tensor};
use mlrm_model::decoder::{Decoder, DecoderCheckpoints, DecoderConfig, DecoderInput};
use mlrm_model::nn::Place;
use mlrm_model::weights::{InitRule, Tensors, fill, initial_values};

const CONFIG: &str = r#"{
    "model_type": "qwen3_vl_text", "head_dim": 8, "hidden_size": 12, "intermediate_size": 20,
    "max_position_embeddings": 64, "num_attention_heads": 2, "num_hidden_layers": 3, "num_key_value_heads": 1,
    "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "vocab_size": 11,
    "rope_scaling": {"mrope_interleaved": true, "mrope_section": [2, 1, 1], "rope_type": "default"}
}"#;

fn decoder(device: &Device) -> Decoder {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config.json");
    std::fs::write(&path, CONFIG).expect("config.json");
    let config = DecoderConfig::read(&path).expect("a config");
    let rename = config.family().names.rename;
    let mut value = |tensor: &_| Some(initial_values(tensor, InitRule::Normal(0.5), 3, "llm"));
    fill(
        Decoder::new(&config, device),
        Tensors::Base,
        rename,
        DType::F32,
        &mut value,
    )
}

#[test]
fn layers_that_are_run_again_give_deep_features_their_gradients() {
    let device = Device::default();
    let decoder = decoder(&device.clone().autodiff());
    let frozen = decoder.valid();
    let drawn = || Tensor::<3>::random([2, 5, 12], Distribution::Normal(0.0, 1.0), &device);
    let leaf = |values: Tensor<3>| values.autodiff().require_grad();
    let (embeds, deep) = (leaf(drawn()), [leaf(drawn()), leaf(drawn())]);
    // A square of four in the middle, one position later in the second item.
    let row = |start: usize| -> Vec<Place> {
        let place = |position: usize| match position.checked_sub(start) {
            None => [position; 3],
            Some(at) if at < 4 => [start, start + at / 2, start + at % 2],
            Some(at) => [start + at - 2; 3],
        };
        (0..5).map(place).collect()
    };
    let input = || DecoderInput {
        embeds: embeds.clone(),
        places: Some([row(0), row(1)].concat().into()),
        deep: deep.to_vec(),
    };
    let wanted = [4, 3];
    let weights = Tensor::<3>::random([2, 1, 12], Distribution::Normal(0.0, 1.0), &device);
    let number = |states: Tensor<3>| (states * weights.clone().autodiff()).sum();
    let kept = decoder.forward_pooled(input(), &wanted);
    let all = decoder.forward(input(), None);
    let first = |x: &Tensor<3>, row: usize, at: usize| -> Vec<f32> {
        let state = x.clone().inner().narrow(0, row, 1).narrow(1, at, 1);
        state.try_into_vec_as().expect("values")
    };
    for (row, &at) in wanted.iter().enumerate() {
        close(&first(&kept, row, 0), &first(&all, row, at));
    }
    let mut gradients = number(kept).backward();
    let mut again = DecoderCheckpoints::new(&decoder, &frozen, input(), &wanted)
        .backward(&decoder, number, &mut |_| {})
        .expect("inputs learn")
        .backward();
    for leaf in [&embeds, &deep[0], &deep[1]] {
        let values = |found: Option<Tensor<3>>| -> Vec<f32> {
            found
                .expect("a gradient")
                .try_into_vec_as()
                .expect("values")
        };
        let expected = values(leaf.grad_remove(&mut gradients));
        assert!(expected.iter().any(|value| value.abs() > 1e-3));
        close(&values(leaf.grad_remove(&mut again)), &expected);
    }
}

fn close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    let largest = expected
        .iter()
        .fold(0.0f32, |most, value| most.max(value.abs()));
    for (found, expected) in found.iter().zip(expected) {
        let error = (found - expected).abs();
        assert!(
            error <= 1e-5 * largest,
            "{found} is not {expected}, of {largest}"
        );
    }
}
