use std::sync::mpsc::{Sender, channel};

use mlrm_events::{Stamped, TrainStep};
use tempfile::TempDir;

use super::*;
use crate::run_folder::RunOptions;
use crate::small::small_config;

/// What a trainer said.
#[derive(Default)]
struct Heard(Vec<Event>);

impl EventSink for Heard {
    fn emit(&mut self, event: &Stamped) -> std::io::Result<()> {
        self.0.push(event.event.clone());
        Ok(())
    }
}

impl Heard {
    fn steps(&self) -> Vec<&TrainStep> {
        let steps = self.0.iter().filter_map(|event| match event {
            Event::TrainStep(step) => Some(step),
            _ => None,
        });
        steps.collect()
    }

    /// Step and reason of every checkpoint.
    fn saved(&self) -> Vec<(u64, &str)> {
        let saved = self.0.iter().filter_map(|event| match event {
            Event::CheckpointSaved(saved) => Some((saved.step, saved.reason.as_str())),
            _ => None,
        });
        saved.collect()
    }

    fn warnings(&self) -> Vec<&str> {
        let warnings = self.0.iter().filter_map(|event| match event {
            Event::Warning(warning) => Some(warning.message.as_str()),
            _ => None,
        });
        warnings.collect()
    }
}

/// What `act` finds out of a run of four steps in `home`, and of what is asked of it.
fn with_trainer<R>(
    home: &TempDir,
    heard: &mut Heard,
    change: impl FnOnce(&mut RunPlan),
    act: impl FnOnce(&mut Trainer<'_>, Sender<Action>) -> R,
) -> R {
    let mut config = small_config(home.path());
    config.train.max_steps = Some(4);
    config.train.eval_every_steps = 0;
    config.train.save_every_steps = 0;
    config.train.warmup_ratio = 0.5;
    config.train.learning_rate = 1e-3;
    config.data.pairs.validation_fraction = 0.0;
    let mut plan = RunPlan::prepare(config, &|_, _| {}).unwrap();
    change(&mut plan);
    let data = DataRecord::default();
    let (folder, _log) = RunFolder::open(&plan.config, &data, &RunOptions::default()).unwrap();
    let (ask, requests) = channel();
    let mut trainer = Trainer::new(plan, folder, None, heard, requests).unwrap();
    act(&mut trainer, ask)
}

#[test]
fn steps_are_counted_told_and_saved_once() {
    let (home, mut heard) = (TempDir::new().unwrap(), Heard::default());
    let change = |plan: &mut RunPlan| plan.config.train.save_every_steps = 2;
    with_trainer(&home, &mut heard, change, |trainer, _ask| {
        let trained = trainer.run().unwrap();
        assert_eq!((trained.chosen_step, trained.stopped), (4, false));
        let state = &trainer.state;
        assert_eq!((state.step, state.updates), (4, 4));
        let drawn = 4 * trainer.plan.config.train.batch_pairs as u64;
        let pairs = trainer.plan.pairs.pairs.train.len() as u64;
        assert_eq!(state.cursor.epoch * pairs + state.cursor.position, drawn);
        assert_eq!(trainer.optimiser.updates, 4);
    });
    let steps = heard.steps();
    let numbers: Vec<u64> = steps.iter().map(|step| step.step).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    assert!(steps.iter().all(|step| step.loss.is_finite()));
    let rates: Vec<f64> = steps.iter().map(|step| step.learning_rate).collect();
    assert_eq!(rates, [0.0, 5e-4, 1e-3, 5e-4]);
    assert_eq!(heard.saved(), [(2, "interval"), (4, "completed")]);
    assert_eq!(heard.warnings(), [""; 0]);
}

#[test]
fn requests_are_obeyed_between_steps() {
    let (home, mut heard) = (TempDir::new().unwrap(), Heard::default());
    with_trainer(
        &home,
        &mut heard,
        |_| {},
        |trainer, ask| {
            for action in [Action::Pause, Action::Resume, Action::Save, Action::Stop] {
                ask.send(action).unwrap();
            }
            let trained = trainer.run().unwrap();
            assert_eq!((trained.chosen_step, trained.stopped), (1, true));
            // What was asked for after the stop is nobody's.
            assert_eq!(trainer.step(), 1);
        },
    );
    assert_eq!(heard.saved(), [(1, "requested"), (1, "stopped")]);
    let asked = heard.0.iter().filter_map(|event| match event {
        Event::Control(control) => Some(control.action),
        _ => None,
    });
    let asked: Vec<Action> = asked.collect();
    let all = [Action::Pause, Action::Resume, Action::Save, Action::Stop];
    assert_eq!(asked, all);
}

#[test]
fn a_run_that_diverges_goes_back_twice_and_then_gives_up() {
    let (home, mut heard) = (TempDir::new().unwrap(), Heard::default());
    with_trainer(
        &home,
        &mut heard,
        |_| {},
        |trainer, _ask| {
            // Nothing to go back to yet.
            let message = trainer.retreat("it is lost").unwrap_err().to_string();
            assert!(message.contains("no checkpoint from before"), "{message}");
            trainer.in_step = false;
            trainer.run_steps().unwrap();
            trainer.save("interval").unwrap();
            for factor in [0.5, 0.25] {
                for step in 5..5 + MOST_REFUSED_STEPS {
                    assert!(!trainer.retreated);
                    trainer.state.step = step;
                    trainer.refuse_step("refused".into()).unwrap();
                }
                assert!(std::mem::take(&mut trainer.retreated));
                assert_eq!((trainer.state.step, trainer.refused), (4, 0));
                assert_eq!(trainer.state.rate_factor, factor);
            }
            trainer.state.step = 9;
            let message = trainer.retreat("it is lost").unwrap_err().to_string();
            assert!(message.contains("twice before"), "{message}");
        },
    );
    let back = |text: &&&str| text.contains("It goes back to step 4");
    assert_eq!(heard.warnings().iter().filter(back).count(), 2);
}
