//! Events as lines of text, for the log view and for terminals without a dashboard.

use mlrm_events::text::one_line;
use mlrm_events::{
    Action, EndReason, Evaluation, Event, Preflight, RunStarted, Split, TrainStep, means,
};

use crate::format;

/// One line that says what happened, without time and step. Paths and messages may hold anything:
/// what steers a terminal is written out.
pub fn describe(event: &Event) -> String {
    one_line(&words(event))
}

fn words(event: &Event) -> String {
    match event {
        Event::RunStarted(started) => run_started(started),
        Event::TrainStep(step) => train_step(step),
        Event::GateHistogram(gate) => {
            let values: u64 = gate.counts.iter().sum();
            format!("gate histogram of {} values", format::count(values))
        }
        Event::Evaluation(evaluation) => evaluation_line(evaluation),
        Event::Saliency(saliency) => format!(
            "saliency of {} layers ({}) in {}",
            saliency.layers.len(),
            saliency.formula,
            format::duration(saliency.seconds)
        ),
        Event::AttentionMass(mass) => format!("attention mass of {} layers", mass.layers.len()),
        Event::EmbeddingProbe(probe) => {
            let picture = probe.picture_share.map_or(String::new(), |share| {
                format!(", picture share {}", format::percent(share))
            });
            format!(
                "embeddings of {} notes: partners {}, others {}, effective rank {}{picture}",
                format::count(probe.notes),
                format::number(probe.positive_similarity),
                format::number(probe.negative_similarity),
                format::number(probe.effective_rank)
            )
        }
        Event::System(system) => format!(
            "host {} of {}, processor {:.0} %",
            format::bytes(system.host_memory_bytes),
            format::bytes(system.host_memory_total_bytes),
            system.host_cpu_percent
        ),
        Event::Preflight(preflight) => preflight_line(preflight),
        Event::CheckpointSaved(saved) => {
            let best = if saved.best { ", the best so far" } else { "" };
            format!(
                "checkpoint saved to {} ({}{best})",
                saved.path, saved.reason
            )
        }
        Event::Warning(warning) => format!("warning: {}", warning.message),
        Event::Control(control) => action(control.action).into(),
        Event::RunEnded(ended) => {
            let message = ended
                .message
                .as_deref()
                .map_or(String::new(), |text| format!(": {text}"));
            format!(
                "training {} after {}{message}",
                end_reason(ended.reason),
                format::duration(ended.seconds)
            )
        }
        Event::Unknown(unknown) => format!(
            "{} (an event of a newer version): {}",
            unknown.name,
            serde_json::Value::Object(unknown.fields.clone())
        ),
    }
}

fn run_started(started: &RunStarted) -> String {
    let resumed = match started.resumed_from_step {
        Some(step) => format!(", resumed from step {}", format::count(step)),
        None => String::new(),
    };
    let notes = match started.notes {
        // Not of mlrm's own trainer.
        0 => format!("{} items", format::count(started.train_pairs)),
        notes => format!(
            "{} pairs of {} notes",
            format::count(started.train_pairs),
            format::count(notes)
        ),
    };
    format!(
        "training on {}: {} steps, {notes}, {} of {} parameters{resumed}",
        started.device,
        format::count(started.total_steps),
        format::large(started.parameters_trained),
        format::large(started.parameters_total),
    )
}

fn preflight_line(preflight: &Preflight) -> String {
    if let (Some(steps), Some(seconds)) = (preflight.timed_steps, preflight.seconds_left) {
        return format!(
            "about {} to the end, evaluations included, at the speed of {} timed steps",
            format::duration(seconds),
            format::count(steps)
        );
    }
    let limit = preflight.memory_limit_bytes.map_or(String::new(), |limit| {
        format!(" of {}", format::bytes(limit))
    });
    let host = format::bytes(preflight.peak_host_bytes);
    let memory = match preflight.peak_device_bytes {
        Some(device) => format!(
            "{}{limit} on the device, {host} on the host",
            format::bytes(device)
        ),
        None => format!("{host}{limit}"),
    };
    let free = preflight.disk_free_bytes.map_or(String::new(), |free| {
        format!(" of {} free", format::bytes(free))
    });
    format!(
        "predicted: memory {memory}; disk {}{free}",
        format::bytes(preflight.disk_bytes)
    )
}

/// Loss with its parts, temperature, gate, throughput.
pub fn train_step(step: &TrainStep) -> String {
    let parts = match step.loss_visual {
        Some(visual) => format!(
            " (multimodal {}, visual {})",
            format::number(step.loss_multimodal),
            format::number(visual)
        ),
        None => String::new(),
    };
    let gate = match step.gate_mean {
        Some(gate) => format!(", gate {}", format::number(gate)),
        None => String::new(),
    };
    let temperature = match is_known(step, step.temperature_logit) {
        true => format!(
            ", temperature {}",
            format::number((-step.temperature_logit).exp())
        ),
        false => String::new(),
    };
    format!(
        "loss {}{parts}{temperature}{gate}, {} notes/s",
        format::number(step.loss),
        format::number(step.notes_per_second)
    )
}

/// Whether a number of a step is there: a training that is not mlrm's own tells neither temperature nor
/// gradient norm. In a run that diverged NaN is their value.
pub(crate) fn is_known(step: &TrainStep, value: f64) -> bool {
    !value.is_nan() || !step.loss.is_finite()
}

fn evaluation_line(evaluation: &Evaluation) -> String {
    let slices = &evaluation.slices;
    let slice = slices.get("all").or_else(|| slices.values().next());
    let measured = slice.into_iter().flat_map(means);
    let mut metrics: Vec<String> = measured
        .map(|(name, value)| {
            let (title, value) = (format::metric_title(name), format::percent(value));
            format!("{title} {value}")
        })
        .collect();
    let figures = evaluation.figures.iter();
    metrics.extend(figures.map(|(name, value)| format!("{name} {}", format::number(*value))));
    let metrics = match metrics.is_empty() {
        true => "no metrics".into(),
        false => metrics.join(", "),
    };
    let of = match evaluation.queries {
        0 => String::new(),
        queries => format!(
            " of {} queries in {} notes",
            format::count(queries),
            format::count(evaluation.pool)
        ),
    };
    format!("{}{of}: {metrics}", split(evaluation.split))
}

/// The split's name.
pub fn split(split: Split) -> &'static str {
    match split {
        Split::Validation => "validation",
        Split::Test => "test",
        Split::Other => "evaluation",
    }
}

/// How a run ended, as a participle.
pub fn end_reason(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Completed => "completed",
        EndReason::Stopped => "stopped",
        EndReason::Failed => "failed",
        EndReason::Other => "ended",
    }
}

/// What was asked of the trainer.
fn action(action: Action) -> &'static str {
    match action {
        Action::Pause => "paused on request",
        Action::Resume => "resumed on request",
        Action::Save => "checkpoint requested",
        Action::Stop => "stop requested",
        Action::Other => "a request of a newer version",
    }
}
