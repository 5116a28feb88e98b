//! Everything that a golden case expects, computed by the real model.

use burn::tensor::{DType, Tensor};
use mlrm_model::ModelError;
use mlrm_model::embedder::{EmbedderTrace, Embeddings, normalise};
use mlrm_model::nn::ProbeSite;
use mlrm_model::saliency::{Formula, HeadReduction, saliency};
use mlrm_model::vision::VisionFeatures;
use mlrm_model::weights::{ExportedTensor, export_gradients};

use super::case::GoldenCase;
use mlrm_train::objective::{Exclusions, Losses};

/// The saliency formulas of a case: name, formula.
const FORMULAS: [(&str, Formula); 3] = [
    ("saliency", Formula::PUBLISHED),
    (
        "saliency_probs_sum_then_abs",
        Formula {
            site: ProbeSite::Probabilities,
            reduction: HeadReduction::SumThenAbs,
        },
    ),
    (
        "saliency_scores_sum_then_abs",
        Formula {
            site: ProbeSite::Scores,
            reduction: HeadReduction::SumThenAbs,
        },
    ),
];

/// Tensors collected under the names of `expected.safetensors`.
#[derive(Default)]
struct Collected {
    tensors: Vec<ExportedTensor>,
}

impl Collected {
    fn put<const D: usize>(&mut self, name: &str, tensor: Tensor<D>) -> Result<(), ModelError> {
        let shape = tensor.dims().to_vec();
        let values = tensor.inner().cast(DType::F32).try_into_vec_as::<f32>();
        let values = values.map_err(|e| ModelError::unreadable(format!("`{name}`"), e))?;
        self.tensors.push((name.to_owned(), shape, values));
        Ok(())
    }

    fn put_positions(&mut self, name: &str, shape: &[usize], positions: Vec<usize>) {
        let values = positions.into_iter().map(|p| p as f32).collect();
        self.tensors.push((name.to_owned(), shape.to_vec(), values));
    }
}

/// Computes every tensor that the case's `expected.safetensors` may hold.
///
/// Intermediate tensors come from a traced pass; embeddings, losses and gradients from the pass
/// that training uses, so that its shortcuts are checked too.
///
/// # Errors
/// Inputs that the model does not take; a device that cannot be read.
pub fn compute(case: &GoldenCase) -> Result<Vec<ExportedTensor>, ModelError> {
    let mut all = Collected::default();
    let features = vision_tensors(case, &mut all)?;
    traced_tensors(case, features.clone(), &mut all)?;
    training_tensors(case, features.clone(), &mut all)?;
    if case.tokens.image_index.is_some() {
        saliency_tensors(case, features, &mut all)?;
    }
    Ok(all.tensors)
}

fn vision_tensors(
    case: &GoldenCase,
    all: &mut Collected,
) -> Result<Option<VisionFeatures>, ModelError> {
    let Some(vision) = &case.embedder.vision else {
        return Ok(None);
    };
    let own = case.own_pictures.as_slice();
    let pictures = case.pixels.as_slice().iter().chain(own);
    // Of each picture, or of all where they have one size.
    let mut states: Vec<Vec<Tensor<3>>> = Vec::new();
    for pixels in pictures {
        let mut every = Vec::new();
        vision.forward(
            pixels.clone(),
            case.embedder.config.features,
            Some(&mut every),
        );
        states.resize_with(every.len(), Vec::new);
        for (all, state) in states.iter_mut().zip(every) {
            all.push(state);
        }
    }
    for (index, state) in states.into_iter().enumerate() {
        all.put(&format!("vision.hidden.{index}"), Tensor::cat(state, 1))?;
    }
    let features = match &case.pixels {
        Some(pixels) => case.embedder.encode_vision(pixels.clone()),
        None => {
            let pictures = own.iter().cloned();
            let parts = pictures.filter_map(|pixels| case.embedder.encode_own(pixels));
            VisionFeatures::cat(parts.collect())
        }
    };
    if let Some(features) = &features {
        all.put("vision.features", features.positions.clone())?;
        all.put("vision.summary", features.summary.clone())?;
    }
    Ok(features)
}

fn traced_tensors(
    case: &GoldenCase,
    features: Option<VisionFeatures>,
    all: &mut Collected,
) -> Result<(), ModelError> {
    let (config, tokens) = (&case.embedder.config, &case.tokens);
    let mut trace = EmbedderTrace::default();
    let core = &case.embedder.core;
    let layout = config.layout(tokens, features.as_ref())?;
    core.forward(config, tokens, features, Some(&mut trace))?;
    for (name, tensor) in [
        ("qformer.output", trace.qformer_output),
        ("visual_tokens", trace.visual_tokens),
        ("inputs_embeds", trace.inputs_embeds),
    ] {
        if let Some(tensor) = tensor {
            all.put(name, tensor)?;
        }
    }
    if let Some(picture) = trace.cls_projected {
        all.put("vision.cls_projected", picture)?;
    }
    let states = trace.decoder.hidden_states;
    if let Some(last) = states.last() {
        all.put("llm.final", last.clone())?;
    }
    for (index, state) in states.into_iter().enumerate() {
        all.put(&format!("llm.hidden.{index}"), state)?;
    }
    for (place, stages) in ["final", "visual"].into_iter().zip(trace.stages) {
        let embedding = normalise(stages.projected.clone());
        let similarity = embedding.clone().matmul(embedding.transpose());
        all.put(&format!("{place}.pooled"), stages.pooled)?;
        all.put(&format!("{place}.fused"), stages.fused)?;
        all.put(&format!("{place}.projected"), stages.projected)?;
        all.put(&format!("{place}.similarity"), similarity)?;
        if let Some(z) = stages.gate_z {
            all.put(&format!("{place}.gate_z"), z)?;
        }
    }
    let notes = tokens.notes();
    let seq = layout.seq;
    if let Some(places) = layout.places() {
        let real = |at: usize| at % seq < layout.lengths[at / seq];
        let places = places.into_iter().enumerate();
        let places = places.flat_map(|(at, place)| place.map(|of| if real(at) { of } else { 0 }));
        all.put_positions("position.places", &[notes, seq, 3], places.collect());
    }
    let valid = |&length: &usize| (0..seq).map(move |p| usize::from(p < length));
    let mask = layout.lengths.iter().flat_map(valid).collect();
    all.put_positions("valid_mask", &[notes, layout.seq], mask);
    all.put_positions("position.final", &[notes], layout.final_position);
    if let Some(visual) = layout.visual_position {
        all.put_positions("position.visual", &[notes], visual);
    }
    Ok(())
}

/// Embeddings and losses of the pass that training uses.
///
/// # Errors
/// Inputs that the model does not take.
pub fn training_losses(
    case: &GoldenCase,
    features: Option<VisionFeatures>,
) -> Result<(Embeddings, Losses), ModelError> {
    let core = &case.embedder.core;
    let embeddings = core.forward(&case.embedder.config, &case.tokens, features, None)?;
    let temperature = core.head.temperature.val();
    let exclusions = Exclusions::diagonal(case.tokens.notes());
    let losses = case.objective.losses(&embeddings, temperature, &exclusions);
    Ok((embeddings, losses))
}

fn training_tensors(
    case: &GoldenCase,
    features: Option<VisionFeatures>,
    all: &mut Collected,
) -> Result<(), ModelError> {
    let (embeddings, losses) = training_losses(case, features)?;
    all.put("final.embedding", embeddings.multimodal)?;
    if let Some(visual) = embeddings.visual {
        all.put("visual.embedding", visual)?;
    }
    let gradients = losses.total.backward();
    let mut scalar = |name: &str, loss: Tensor<1>| -> Result<(), ModelError> {
        all.put(name, loss)?;
        if let Some((_, shape, _)) = all.tensors.last_mut() {
            shape.clear();
        }
        Ok(())
    };
    scalar("loss", losses.total)?;
    scalar("loss.multimodal", losses.multimodal)?;
    if let Some(visual) = losses.visual {
        scalar("loss.visual", visual)?;
    }
    let core = &case.embedder.core;
    let names = case.embedder.config.head_names().rename;
    let head = export_gradients(&core.head, &gradients, "grad.", names)?;
    let prefix = format!("grad.llm.{}", case.llm_prefix);
    let names = case.embedder.config.llm.family().names.rename;
    let llm = export_gradients(&core.llm, &gradients, &prefix, names)?;
    all.tensors.extend(head.into_iter().chain(llm));
    Ok(())
}

fn saliency_tensors(
    case: &GoldenCase,
    features: Option<VisionFeatures>,
    all: &mut Collected,
) -> Result<(), ModelError> {
    let embedder = &case.embedder;
    let notes = case.tokens.notes();
    let layout = embedder.config.layout(&case.tokens, features.as_ref())?;
    let spans = layout.image_spans()?;
    let range = |s: &mlrm_model::embedder::ImageSpan| [s.start, s.end, s.final_position];
    all.put_positions(
        "saliency.range",
        &[notes, 3],
        spans.iter().flat_map(range).collect(),
    );
    for (name, formula) in FORMULAS {
        let temperature = embedder.core.head.temperature.val();
        let objective = case.objective.clone();
        let result = saliency(
            &embedder.core,
            &embedder.config,
            &case.tokens,
            features.clone(),
            formula,
            |multimodal| objective.alone(multimodal, temperature),
        )?;
        let layers = result.maps.len();
        let scores = result.scores.into_iter().flatten().flatten();
        let scores = scores.map(|s| s as f32).collect();
        let shape = vec![notes, layers, 3];
        all.tensors.push((format!("{name}.S"), shape, scores));
        if formula == Formula::PUBLISHED {
            for (layer, map) in result.maps.into_iter().enumerate() {
                let shape = vec![notes, map.seq, map.seq];
                all.tensors
                    .push((format!("saliency.I.{layer}"), shape, map.values));
            }
        }
    }
    Ok(())
}
