//! Every event survives its line; numbers bit for bit; newer versions are read.

use mlrm_events::{
    Action, AttentionMass, CheckpointSaved, Control, EmbeddingProbe, EndReason, Evaluation, Event,
    GateHistogram, KeptFeatures, Metrics, Named, Preflight, RunEnded, RunStarted, Saliency, Slices,
    Split, Stamped, System, TrainStep, Transfers, UnknownEvent, Warning,
};
use proptest::prelude::*;
use serde_json::json;

fn metrics(recall: f64) -> Metrics {
    [
        ("recall@10".to_owned(), recall),
        ("ndcg@10".to_owned(), recall / 3.0),
    ]
    .into()
}

fn slices(recall: f64) -> Slices {
    [
        ("short_query".to_owned(), metrics(recall)),
        ("all".to_owned(), metrics(recall / 7.0)),
    ]
    .into()
}

fn every_event() -> Vec<Event> {
    vec![
        Event::RunStarted(Box::new(RunStarted {
            config: json!({"train": {"learning_rate": 3e-6, "betas": [0.9, 0.999]}, "a": null}),
            device: "flex".into(),
            versions: [("mlrm".to_owned(), "0.1.0".to_owned())].into(),
            total_steps: 100,
            train_pairs: 5000,
            notes: 3000,
            parameters_total: 12_345_678_901,
            parameters_trained: 42,
            resumed_from_step: Some(7),
            feature_cache: Some(KeptFeatures {
                folder: "features/0a".into(),
                pictures: 90,
                missing: 50,
                will_be_kept: 40,
                bytes: 1 << 40,
            }),
        })),
        Event::Preflight(Preflight {
            step: 0,
            memory_bytes: [
                ("weights".to_owned(), 7),
                ("activations".to_owned(), u64::MAX),
            ]
            .into(),
            peak_host_bytes: 1 << 40,
            peak_device_bytes: Some(3),
            memory_limit_bytes: None,
            disk_bytes: 5,
            disk_free_bytes: Some(6),
            feature_cache_bytes: Some(1 << 33),
            batch_notes: Some(118),
            micro_batch_notes: Some(0),
            timed_steps: Some(5),
            seconds_left: Some(0.1),
        }),
        Event::EmbeddingProbe(EmbeddingProbe {
            step: 8,
            notes: 64,
            positive_similarity: 0.7,
            negative_similarity: -1.0 / 3.0,
            effective_rank: 17.25,
            uniformity: f64::NEG_INFINITY,
            alignment: 5e-324,
            picture_share: Some(0.3),
            gate_mean: None,
            temperature_logit: 3.0,
            seconds: 0.01,
        }),
        Event::TrainStep(TrainStep {
            step: 8,
            epoch: 0.1,
            loss: 1.0 / 3.0,
            loss_multimodal: f64::MIN_POSITIVE,
            loss_visual: Some(5e-324),
            learning_rate: 3e-6,
            temperature_logit: 3.0,
            gate_mean: None,
            gradient_norm: f64::INFINITY,
            notes_per_second: 17.25,
            seconds_by_phase: [
                ("vision".to_owned(), 0.1),
                ("backward".to_owned(), 0.3),
                ("data".to_owned(), f64::NEG_INFINITY),
            ]
            .into(),
            pictures_encoded: Some(12),
            transfers: Some(Transfers {
                uploads: 9,
                uploaded_bytes: 65_536,
                reads: 1,
                read_bytes: 28,
            }),
        }),
        Event::GateHistogram(GateHistogram {
            step: 8,
            counts: std::array::from_fn(|i| i as u64),
        }),
        Event::Evaluation(Evaluation {
            step: 8,
            split: Split::Test,
            pool: 100,
            queries: 10,
            slices: slices(0.25),
            baselines: [("bm25".to_owned(), slices(f64::INFINITY))].into(),
            uniformity: Some(-3.5),
            alignment: None,
            figures: [("train Loss".to_owned(), f64::INFINITY)].into(),
        }),
        Event::Saliency(Saliency {
            step: 8,
            formula: "abs_then_sum".into(),
            layers: vec![[1e-9, 2e-9, f64::INFINITY], [0.1, 0.2, 0.3]],
            seconds: 0.5,
        }),
        Event::AttentionMass(AttentionMass {
            step: 8,
            layers: vec![[0.1, 0.2, 0.7]],
            seconds: 0.125,
        }),
        Event::System(System {
            step: 8,
            host_memory_bytes: u64::MAX,
            host_memory_total_bytes: 1,
            host_cpu_percent: 99.5,
            device_memory_bytes: Some(3),
            device_use_percent: None,
        }),
        Event::CheckpointSaved(CheckpointSaved {
            step: 8,
            path: "checkpoints/step-8".into(),
            best: true,
            reason: "interval".into(),
        }),
        Event::Warning(Warning {
            step: None,
            message: "line\nbreak, \"quote\", 小红书".into(),
        }),
        Event::Control(Control {
            step: 8,
            action: Action::Pause,
        }),
        Event::RunEnded(RunEnded {
            step: 8,
            reason: EndReason::Failed,
            seconds: 1.5,
            message: Some("disk full".into()),
            peak_host_bytes: Some(1 << 33),
        }),
        Event::Unknown(UnknownEvent {
            name: "comet".into(),
            fields: json!({"step": 3, "tail": [1.5, null]})
                .as_object()
                .cloned()
                .unwrap(),
        }),
    ]
}

#[test]
fn every_event_survives_its_line() {
    for event in every_event() {
        let stamped = Stamped {
            time_seconds: 1_700_000_000.123_456,
            event,
        };
        let line = stamped.to_line();
        let start = format!(
            "{{\"event\":\"{}\",\"time_seconds\":17000",
            stamped.event.name()
        );
        assert!(line.starts_with(&start), "{line}");
        assert!(!line.contains('\n'));
        let read = Stamped::from_line(&line).unwrap();
        assert_eq!(read, stamped);
        assert_eq!(read.to_line(), line, "order of keys is kept");
    }
}

#[test]
fn a_line_is_what_the_docs_say() {
    let event = Event::TrainStep(TrainStep {
        step: 1,
        loss: f64::NAN,
        gradient_norm: f64::NEG_INFINITY,
        seconds_by_phase: [("vision".to_owned(), 0.5)].into(),
        ..TrainStep::default()
    });
    assert_eq!(
        Stamped {
            time_seconds: 2.5,
            event
        }
        .to_line(),
        r#"{"event":"train_step","time_seconds":2.5,"step":1,"epoch":0.0,"loss":"NaN","loss_multimodal":0.0,"loss_visual":null,"learning_rate":0.0,"temperature_logit":0.0,"gate_mean":null,"gradient_norm":"-Infinity","notes_per_second":0.0,"seconds_by_phase":{"vision":0.5}}"#
    );
}

#[test]
fn null_is_nan_where_a_number_must_stand() {
    let line =
        r#"{"event":"run_ended","time_seconds":1,"step":1,"reason":"stopped","seconds":null}"#;
    let Event::RunEnded(ended) = Stamped::from_line(line).unwrap().event else {
        panic!("another event")
    };
    assert!(ended.seconds.is_nan());
    assert_eq!(ended.message, None);
}

#[test]
fn newer_versions_are_read() {
    let line = r#"{"event":"control","time_seconds":1,"step":1,"action":"rewind","by":"me"}"#;
    let Event::Control(control) = Stamped::from_line(line).unwrap().event else {
        panic!("another event")
    };
    assert_eq!(control.action, Action::Other);

    let line = r#"{"event":"comet","time_seconds":1,"step":9}"#;
    let read = Stamped::from_line(line).unwrap();
    assert_eq!((read.event.name(), read.event.step()), ("comet", Some(9)));
}

#[test]
fn lines_of_other_writers_are_read() {
    let ours = r#"{"event":"control","time_seconds":12.5,"step":1,"action":"save"}"#;
    for line in [
        r#" { "event" : "control", "time_seconds": 12.5, "step": 1, "action": "save" } "#,
        r#"{"step":1,"action":"save","time_seconds":12.5,"event":"control"}"#,
        r#"{"event":"control","time_seconds":12.5 ,"action":"save","step":1}"#,
        r#"{"event":"\u0063ontrol","time_seconds":1.25e1,"action":"save","step":1}"#,
    ] {
        assert_eq!(
            Stamped::from_line(line).unwrap(),
            Stamped::from_line(ours).unwrap(),
            "{line}"
        );
    }
    let line = r#"{"event":"comet","time_seconds":1}"#;
    assert_eq!(
        Stamped::from_line(line).unwrap().to_line(),
        r#"{"event":"comet","time_seconds":1.0}"#
    );
}

#[test]
fn wrong_lines_say_what_is_wrong() {
    for (line, expected) in [
        ("{", "EOF"),
        ("[1]", "invalid"),
        (r#"{"time_seconds":1}"#, "missing field `event`"),
        (r#"{"event":"warning"}"#, "missing field `time_seconds`"),
        (
            r#"{"event":"warning","time_seconds":1}"#,
            "missing field `message`",
        ),
        (
            r#"{"event":"run_ended","time_seconds":1,"step":1,"reason":"stopped","seconds":"soon"}"#,
            "\"NaN\"",
        ),
    ] {
        let error = Stamped::from_line(line).unwrap_err().to_string();
        assert!(error.contains(expected), "{line}: {error}");
    }
}

proptest! {
    #[test]
    fn numbers_survive_bit_for_bit(bits in any::<u64>(), other in any::<u64>()) {
        let (loss, visual) = (f64::from_bits(bits), f64::from_bits(other));
        let phases: Named<f64> = [("vision".to_owned(), loss)].into();
        let event = Event::TrainStep(TrainStep {
            loss, loss_visual: Some(visual), seconds_by_phase: phases, ..TrainStep::default()
        });
        let line = Stamped { time_seconds: 1.0, event }.to_line();
        let Event::TrainStep(read) = Stamped::from_line(&line).unwrap().event else {
            panic!("another event")
        };
        let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
        prop_assert!(same(read.loss, loss));
        prop_assert!(same(read.loss_visual.unwrap(), visual));
        prop_assert!(same(read.seconds_by_phase["vision"], loss));
    }
}
