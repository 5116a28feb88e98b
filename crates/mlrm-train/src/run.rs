//! A whole run, from its settings to the final table.

use std::io;
use std::sync::mpsc::Receiver;

use mlrm_config::{Baseline, MatmulPrecision, ReduceDType, RunConfig};
use mlrm_eval::EvalReport;
use mlrm_events::{Action, EndReason, Evaluation, Event, EventLog, EventSink};
use mlrm_events::{RunEnded, Split, Stamped, Warning};
use mlrm_model::ops;

use crate::corpus::PictureProgress;
use crate::data_record::DataRecord;
use crate::encode::Inference;
use crate::error::TrainError;
use crate::evaluate::{BaselineSources, Measured, Retrieval, full_report};
use crate::examples::write_examples;
use crate::features::told;
use crate::folders::write_beside;
use crate::group::Group;
use crate::memory;
use crate::plan::RunPlan;
use crate::preflight::Preflight;
use crate::run_folder::{Existing, RunFolder, RunOptions, earlier_config};
use crate::trainer::{Trained, Trainer, event_slices};
use crate::watch::ignored_in_test;

/// A run that is about to train: everything is checked and opened, and the run folder is its own.
pub struct Run {
    plan: RunPlan,
    folder: RunFolder,
    log: EventLog,
    data: DataRecord,
    preflight: Preflight,
    /// The model before training, where it is a baseline of the final table.
    untrained: Option<Inference>,
    /// The workers in other processes, where there are any.
    group: Option<Box<dyn Group>>,
}

/// How a run ended.
pub struct Finished {
    /// The plan, with the weights that the run chose (the best, or the last without validation).
    pub plan: RunPlan,
    /// The run folder.
    pub folder: RunFolder,
    /// The step whose weights were chosen.
    pub chosen_step: usize,
    /// The last step taken.
    pub last_step: usize,
    /// Whether it was stopped before its end.
    pub stopped: bool,
    /// The final table; absent for a run that was stopped or holds no test pairs out.
    pub report: Option<EvalReport>,
}

/// Trains what `config` describes, and measures the chosen model on the test pairs beside its
/// baselines. Everything that happens is an event: in the run's own log, and in `sink`. `requests`
/// may stop, pause and save.
///
/// # Errors
/// As [`Run::open`] and [`Run::train`].
pub fn run(
    config: RunConfig,
    options: &RunOptions,
    sink: &mut dyn EventSink,
    requests: Receiver<Action>,
) -> Result<Finished, TrainError> {
    Run::open(config, options, &|_, _| {})?.train(sink, requests)
}

impl Run {
    /// Checks and opens data, model and run folder; `progress` hears of the pictures that are looked at.
    ///
    /// # Errors
    /// Settings, data, models or devices that cannot train, or a folder that holds a run already.
    /// Nothing is written then but a drawn sample set.
    pub fn open(
        config: RunConfig,
        options: &RunOptions,
        progress: PictureProgress<'_>,
    ) -> Result<Self, TrainError> {
        RunFolder::check(&config, options)?;
        let mut plan = RunPlan::prepare_on(config, &options.computes, progress)?;
        let held = match options.existing {
            Existing::Resume => earlier_config(&plan.config.run.dir)?
                .and_then(|earlier| earlier.train.micro_batch_notes.set()),
            Existing::Refuse | Existing::Overwrite => None,
        };
        let preflight = Preflight::of(&mut plan, held)?;
        let earlier = DataRecord::read(&plan.config.run.dir)?;
        // It has read all pictures: which features are there is known then.
        let data = DataRecord::of(&plan.config, &plan.notes, earlier.as_ref())?;
        plan.keep_features()?;
        let zero_shot = plan.config.eval.baselines.contains(&Baseline::ZeroShot);
        let untrained = zero_shot.then(|| Inference::new(&plan.embedder));
        let (folder, log) = RunFolder::open(&plan.config, &data, options)?;
        plan.encoding.keep_template(&folder.root)?;
        Ok(Self {
            plan,
            folder,
            log,
            data,
            preflight,
            untrained,
            group: None,
        })
    }

    /// Has the run lead these workers, which are in other processes.
    pub fn lead(&mut self, group: Box<dyn Group>) {
        self.group = Some(group);
    }

    /// What the run is predicted to take.
    pub fn preflight(&self) -> &Preflight {
        &self.preflight
    }

    /// What the user should know of how the data was read, one line each.
    pub fn notices(&self) -> Vec<String> {
        let data = &self.plan.config.data;
        let path = data.place(&data.notes);
        let notes = self.plan.notes.set.notices().iter();
        let notes = notes.map(|notice| format!("{}: {notice}", path.display()));
        let pairs = &self.plan.pairs;
        let few = pairs
            .losses
            .map(|losses| format!("few training pairs ({}): {losses}", pairs.pairs.train.len()));
        let wanted = self.plan.config.backend.matmul_precision == MatmulPrecision::Bf16;
        let products = (wanted && !ops::has_bf16_products()).then(|| {
            "backend.matmul_precision = \"bf16\" has no effect: this processor multiplies bf16 no faster \
             than f32 (it has neither AMX nor, from AMD, AVX512-BF16)"
                .to_owned()
        });
        let one_process = self.plan.workers == 1 + self.plan.others.len();
        let reduced = self.plan.config.backend.reduce_dtype != ReduceDType::F32;
        let reduction = (reduced && one_process).then(|| {
            "backend.reduce_dtype has no effect: the run has one process, whose gradients do not travel"
                .to_owned()
        });
        let features = self.plan.kept_features.as_ref().map(told);
        notes
            .chain(products)
            .chain(reduction)
            .chain(pairs.notices.iter().cloned())
            .chain(few)
            .chain(features)
            .collect()
    }

    /// Trains, and measures the chosen model. The last event is the run's [`RunEnded`], whatever
    /// happened.
    ///
    /// # Errors
    /// Data, device or files that failed, or a run that diverged.
    pub fn train(
        self,
        sink: &mut dyn EventSink,
        requests: Receiver<Action>,
    ) -> Result<Finished, TrainError> {
        let log = self.log;
        let mut sink = Logged { log, sink };
        let mut trainer = Trainer::new(self.plan, self.folder, self.group, &mut sink, requests)?;
        trainer.announce(self.preflight);
        trainer.record(&self.data)?;
        let trained = trainer.run();
        let (step, seconds) = (trainer.step(), trainer.seconds());
        let (plan, folder) = trainer.into_parts();
        let measured = trained.and_then(|trained| {
            let untrained = self.untrained.as_ref();
            let report = match trained.stopped {
                true => None,
                false => measure(&plan, &folder, trained, untrained, &mut sink)?,
            };
            Ok((trained, report))
        });
        let ended = sink.emit_now(Event::RunEnded(RunEnded {
            step: step as u64,
            reason: match &measured {
                Ok((trained, _)) if trained.stopped => EndReason::Stopped,
                Ok(_) => EndReason::Completed,
                Err(_) => EndReason::Failed,
            },
            seconds,
            message: measured.as_ref().err().map(ToString::to_string),
            peak_host_bytes: memory::peak_resident_bytes(),
        }));
        // The error of the run goes before that of its log.
        let (trained, report) = measured?;
        ended.map_err(TrainError::Event)?;
        Ok(Finished {
            plan,
            folder,
            chosen_step: trained.chosen_step,
            last_step: step,
            stopped: trained.stopped,
            report,
        })
    }
}

/// The run's log, and whoever else listens.
struct Logged<'a> {
    log: EventLog,
    sink: &'a mut dyn EventSink,
}

impl EventSink for Logged<'_> {
    fn emit(&mut self, event: &Stamped) -> io::Result<()> {
        self.log.emit(event)?;
        self.sink.emit(event)
    }

    fn say(&mut self, line: &str) {
        self.sink.say(line);
    }
}

/// Measures the chosen model on the test pairs; `None` where there are none.
fn measure(
    plan: &RunPlan,
    folder: &RunFolder,
    trained: Trained,
    untrained: Option<&Inference>,
    sink: &mut dyn EventSink,
) -> Result<Option<EvalReport>, TrainError> {
    let test = &plan.pairs.pairs.test;
    if test.is_empty() {
        return Ok(None);
    }
    let eval = &plan.config.eval;
    let retrieval = Retrieval::new(&plan.notes.set, &plan.pairs, test, eval)?;
    let model = Inference::new(&plan.embedder);
    let sources = BaselineSources {
        note_users: &plan.pairs.note_users,
        untrained: untrained.ok_or("it is not among `eval.baselines`"),
    };
    sink.say("measuring retrieval on the held-out notes");
    let Measured {
        report,
        embeddings,
        queries,
    } = full_report(
        &retrieval,
        &model,
        &plan.notes,
        &plan.encoding,
        &plan.config,
        &sources,
    )?;
    for message in plan.news() {
        let step = Some(trained.chosen_step as u64);
        let warning = Event::Warning(Warning { step, message });
        sink.emit_now(warning).map_err(TrainError::Event)?;
    }
    let (_, own) = &embeddings[0];
    let geometry = retrieval.geometry(own)?;
    let baselines = report.baselines.iter();
    let evaluation = Evaluation {
        step: trained.chosen_step as u64,
        split: Split::Test,
        pool: report.pool as u64,
        queries: report.queries as u64,
        slices: event_slices(&report.slices),
        baselines: baselines
            .map(|(k, v)| (k.clone(), event_slices(v)))
            .collect(),
        uniformity: Some(geometry.uniformity),
        alignment: Some(geometry.alignment),
        ..Evaluation::default()
    };
    let ignored = ignored_in_test(&evaluation, &eval.k);
    let events = std::iter::once(Event::Evaluation(evaluation)).chain(ignored.map(|message| {
        let step = Some(trained.chosen_step as u64);
        Event::Warning(Warning { step, message })
    }));
    for event in events {
        sink.emit_now(event).map_err(TrainError::Event)?;
    }
    // The table last: where it is, the run is whole.
    for (name, json) in [
        ("queries.json", serde_json::to_string(&queries)),
        ("eval.json", serde_json::to_string_pretty(&report)),
    ] {
        let path = folder.root.join(name);
        let json = json.map_err(|e| TrainError::io("write", &path)(e.into()))?;
        write_beside(&path, format!("{json}\n"))?;
    }
    let models: Vec<_> = embeddings.iter().map(|(name, all)| (*name, all)).collect();
    let images = plan.config.data.place(&plan.config.data.images);
    let seed = plan.config.run.seed;
    let task = retrieval.task();
    write_examples(&folder.root, &plan.notes, &images, task, &models, seed)?;
    Ok(Some(report))
}
