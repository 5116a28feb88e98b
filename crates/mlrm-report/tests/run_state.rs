//! The fold: pauses, resumed runs, time left, plain progress lines.

mod support;

use mlrm_events::{
    Action, CheckpointSaved, Control, EndReason, Evaluation, Event, RunEnded, RunStarted, Split,
    Stamped, TrainStep, Warning,
};
use mlrm_report::progress::ProgressLine;
use mlrm_report::state::{RunState, Status, normalised};
use support::{START, Shape, run};

fn at(seconds: f64, event: Event) -> Stamped {
    Stamped {
        time_seconds: START + seconds,
        event,
    }
}

fn step(seconds: f64, step: u64) -> Stamped {
    let measured = TrainStep {
        step,
        loss: step as f64,
        loss_multimodal: step as f64,
        temperature_logit: 3.0,
        notes_per_second: 32.0,
        ..TrainStep::default()
    };
    at(seconds, Event::TrainStep(measured))
}

fn started(seconds: f64, resumed_from_step: Option<u64>) -> Stamped {
    let started = RunStarted {
        total_steps: 100,
        resumed_from_step,
        ..RunStarted::default()
    };
    at(seconds, Event::RunStarted(Box::new(started)))
}

fn control(seconds: f64, step: u64, action: Action) -> Stamped {
    at(seconds, Event::Control(Control { step, action }))
}

#[test]
fn time_left_leaves_out_the_warm_up_and_pauses() {
    let mut events = vec![
        started(0.0, None),
        step(50.0, 1),
        step(52.0, 2),
        step(54.0, 3),
    ];
    let state = RunState::from_events(&events);
    assert_eq!(state.seconds_left(), Some(2.0 * 97.0));
    assert_eq!(state.active_seconds(), Some(54.0));

    events.push(control(54.0, 3, Action::Pause));
    assert_eq!(RunState::from_events(&events).status(), Status::Paused);
    events.push(control(1054.0, 3, Action::Resume));
    events.push(step(1056.0, 4));
    let state = RunState::from_events(&events);
    assert_eq!(state.status(), Status::Running);
    assert_eq!(state.active_seconds(), Some(56.0));
    assert_eq!(state.seconds_left(), Some(2.0 * 96.0));
}

#[test]
fn a_resumed_run_forgets_what_was_lost() {
    let mut events = vec![started(0.0, None)];
    events.extend((1..=30).map(|n| step(n as f64, n)));
    let saved = CheckpointSaved {
        step: 20,
        path: "checkpoints/step-20".into(),
        ..Default::default()
    };
    events.push(at(30.5, Event::CheckpointSaved(saved)));
    let ended = RunEnded {
        step: 30,
        reason: EndReason::Failed,
        seconds: 31.0,
        ..RunEnded::default()
    };
    events.push(at(31.0, Event::RunEnded(ended)));
    assert_eq!(
        RunState::from_events(&events).status(),
        Status::Ended(EndReason::Failed)
    );

    events.push(started(1000.0, Some(20)));
    let state = RunState::from_events(&events);
    assert_eq!((state.status(), state.step), (Status::Running, 20));
    assert_eq!(state.train.loss.buckets().last().unwrap().last_step, 20);
    assert_eq!(state.checkpoints.len(), 1);
    events.push(step(1003.0, 21));
    events.push(step(1005.0, 22));
    let state = RunState::from_events(&events);
    let steps: Vec<u64> = state
        .train
        .loss
        .buckets()
        .iter()
        .map(|b| b.first_step)
        .collect();
    assert_eq!(steps, (1..=22).collect::<Vec<_>>());
    assert_eq!(state.seconds_left(), Some(2.0 * 78.0));
    assert_eq!(
        state.log().count(),
        events.len(),
        "the log keeps everything"
    );

    // A new run in the same log starts anew.
    events.push(started(2000.0, None));
    let state = RunState::from_events(&events);
    assert!(state.train.loss.is_empty() && state.checkpoints.is_empty());
}

#[test]
fn a_loss_that_is_not_finite_is_shown_as_it_is() {
    let mut events = vec![started(0.0, None), step(1.0, 1)];
    let lost = TrainStep {
        step: 2,
        loss: f64::NAN,
        ..TrainStep::default()
    };
    events.push(at(2.0, Event::TrainStep(lost)));
    let state = RunState::from_events(&events);
    assert_eq!(state.train.loss.not_finite(), 1);
    let text = state.log().next().unwrap().text().into_owned();
    assert!(text.starts_with("loss NaN"), "{text}");
}

#[test]
fn layers_are_normalised_for_display() {
    assert_eq!(normalised([1.0, 2.0, 1.0]), [0.25, 0.5, 0.25]);
    assert_eq!(normalised([0.0; 3]), [0.0; 3]);
    assert_eq!(normalised([f64::NAN, 1.0, 1.0]), [0.0; 3]);
}

#[test]
fn the_log_is_the_newest_first_and_bounded() {
    let mut events = vec![started(0.0, None)];
    for number in 1..=5000 {
        events.push(step(number as f64, number));
        let message = format!("number {number}");
        let warning = Warning {
            step: Some(number),
            message,
        };
        events.push(at(number as f64, Event::Warning(warning)));
    }
    let state = RunState::from_events(&events);
    let numbers: Vec<u64> = state.log().map(|entry| entry.number).collect();
    assert!(numbers.is_sorted_by(|a, b| a > b));
    assert_eq!(numbers.len(), 2500);
    assert_eq!(state.warnings, 5000);
    assert_eq!(
        state.newest_warnings().next().unwrap().text(),
        "warning: number 5000"
    );
}

#[test]
fn plain_lines_are_few_and_hold_everything() {
    let mut progress = ProgressLine::new();
    let shape = Shape {
        steps: 100,
        total_steps: 100,
        every: 50,
        ended: true,
        seed: 1,
    };
    let lines: Vec<String> = run(shape)
        .iter()
        .filter_map(|event| progress.plain(event))
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn the_status_line_follows_every_step() {
    let mut progress = ProgressLine::new();
    assert_eq!(progress.terminal(&step(0.0, 1)), None);
    assert_eq!(
        progress.status(),
        "step 1: loss 1.000, temperature 0.0498, 32.00 notes/s"
    );
    let mut progress = ProgressLine::new();
    assert!(progress.terminal(&started(0.0, None)).is_some());
    progress.terminal(&step(1.0, 1));
    progress.terminal(&step(3.0, 2));
    assert!(
        progress.status().ends_with(", 3 m 16 s left"),
        "{}",
        progress.status()
    );
    assert!(progress.terminal(&control(4.0, 2, Action::Pause)).is_some());
    assert!(progress.status().ends_with(", paused"));
}

fn evaluation(at_step: u64, split: Split, metrics: &[(&str, f64)]) -> Stamped {
    let metrics = metrics
        .iter()
        .map(|&(name, value)| (name.to_owned(), value));
    let event = Evaluation {
        step: at_step,
        split,
        slices: [("all".to_owned(), metrics.collect())].into(),
        ..Evaluation::default()
    };
    at(at_step as f64, Event::Evaluation(event))
}

#[test]
fn the_best_evaluation_is_one_of_the_newest_ones_split_and_has_a_number() {
    let of = |step, split, value| evaluation(step, split, &[("recall@10", value)]);
    let events = [
        of(1, Split::Validation, 0.2),
        of(2, Split::Validation, 0.4),
        of(3, Split::Validation, 0.4),
        of(4, Split::Test, 0.9),
        of(5, Split::Validation, f64::NAN),
        of(6, Split::Validation, 0.3),
    ];
    let best = |count: usize| {
        let state = RunState::from_events(&events[..count]);
        state.best_evaluation("recall@10").map(|best| best.step)
    };
    assert_eq!(best(3), Some(2));
    assert_eq!(best(4), Some(4));
    assert_eq!(best(6), Some(2));
    assert_eq!(RunState::from_events(&events).best_evaluation("mrr"), None);
}
