//! What the loss of a batch and its gradient take, without a model: `loss_memory NOTES [ROWS]` prints memory
//! and time of random embeddings of 64 numbers, the logits of ROWS notes held at a time (default: as
//! training holds them).

use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};
use mlrm_config::ObjectiveSettings;
use mlrm_model::embedder::Embeddings;
use mlrm_train::memory::peak_resident_bytes;
use mlrm_train::objective::{Exclusions, Objective, rows_at_a_time};

fn main() -> Result<(), String> {
    let number = |text: String| text.parse::<usize>().map_err(|e| format!("{text}: {e}"));
    let mut arguments = std::env::args().skip(1).map(number);
    let notes = arguments.next().ok_or("how many notes?")??;
    let rows = arguments.next().transpose()?;
    let rows = rows.unwrap_or_else(|| rows_at_a_time(notes));
    let device = Device::flex();
    let random = Tensor::<2>::random([notes, 64], Distribution::Normal(0.0, 0.125), &device);
    let embeddings = Embeddings {
        multimodal: random,
        visual: None,
        gate: None,
    };
    let temperature = Tensor::<1>::from_floats([3.0], &device).autodiff();
    let objective = Objective::from_settings(&ObjectiveSettings::default());
    let exclusions = Exclusions::diagonal(notes);
    let mebibytes = || peak_resident_bytes().unwrap_or(0) as f64 / f64::from(1 << 20);
    let (before, begin) = (mebibytes(), Instant::now());
    let temperature = temperature.require_grad();
    let (losses, gradients) =
        objective.backward(&embeddings, temperature, &exclusions, rows, &mut |_| {});
    let loss = losses.total.try_into_vec_as::<f32>();
    let largest = gradients.multimodal.abs().max().try_into_vec_as::<f32>();
    println!(
        "{notes} notes, {rows} rows at a time: loss {:?}, largest gradient {:?}, {:.0} MiB more than the {:.0} \
         before, {:.1} s",
        loss.map_err(|e| format!("{e:?}"))?,
        largest.map_err(|e| format!("{e:?}"))?,
        mebibytes() - before,
        before,
        begin.elapsed().as_secs_f64()
    );
    Ok(())
}
