//! `mlrm saliency MODEL --notes FILE`: how much each layer reads the picture, the text and the rest.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use miette::{IntoDiagnostic, miette};
use mlrm_data::notes::NoteSet;
use mlrm_model::nn::ProbeSite;
use mlrm_model::saliency::{Formula, HeadReduction, mean_over_notes};
use mlrm_train::corpus::{Modality, Notes, run_pairs};
use mlrm_train::objective::Objective;
use mlrm_train::probe::batch_saliency;
use serde::Serialize;

use super::model_source::ModelSource;

/// Measure how much each layer reads the picture and the text (method §4).
///
/// The pairs are those of the run's data, or of `--set data.…` for a bare model folder: the loss of
/// the formula needs a note's partner.
#[derive(Debug, Args)]
pub struct SaliencyArgs {
    #[command(flatten)]
    pub source: ModelSource,
    /// Override a setting of the run (`data.*`), or give them for a bare model folder.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Notes to average over (pairs of them, held out where there are any).
    #[arg(long, default_value_t = 128)]
    pub notes: usize,
    /// The formula.
    #[arg(long, value_enum, default_value_t = FormulaArg::AbsThenSum)]
    pub formula: FormulaArg,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// The formulas of method §4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormulaArg {
    /// Sum of absolute values over heads (published).
    AbsThenSum,
    /// Absolute value of the sum over heads (released code, Qwen).
    SumThenAbs,
    /// The same before the softmax (released code, Llama and OPT).
    ScoresSumThenAbs,
}

impl FormulaArg {
    fn formula(self) -> Formula {
        let (site, reduction) = match self {
            Self::AbsThenSum => (ProbeSite::Probabilities, HeadReduction::AbsThenSum),
            Self::SumThenAbs => (ProbeSite::Probabilities, HeadReduction::SumThenAbs),
            Self::ScoresSumThenAbs => (ProbeSite::Scores, HeadReduction::SumThenAbs),
        };
        Formula { site, reduction }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    variant: &'static str,
    notes: usize,
    /// Means over notes: `[S_v, S_t, S_o]` of each layer.
    layers: Vec<[f64; 3]>,
    /// The same, each layer divided by its sum.
    shares: Vec<[f64; 3]>,
}

/// Pairs of one backward pass.
const PAIRS_A_BATCH: usize = 8;

/// Runs the command.
pub fn run(args: SaliencyArgs) -> miette::Result<ExitCode> {
    let config = args.source.run_config(&args.set)?;
    let model = args.source.open(&config)?;
    let variant = model.embedder.config.variant;
    let notes = Notes::open(&config.data, model.embedder.reads_pictures())?;
    let pairs = run_pairs(&config.data, &notes.set, config.run.seed)?.pairs;
    let held = [pairs.test, pairs.validation, pairs.train];
    let pairs = held.into_iter().find(|pairs| !pairs.is_empty()).unwrap_or_default();
    let encoder = model.encoding.encoder(&notes, variant, Modality::Both)?;
    let objective = Objective::from_settings(&config.objective);
    let mut scores = Vec::new();
    for chunk in pairs[..pairs.len().min(args.notes / 2)].chunks(PAIRS_A_BATCH) {
        let queries = chunk.iter().map(|pair| pair.query);
        let rows: Vec<u32> = queries.chain(chunk.iter().map(|pair| pair.target)).collect();
        if rows.len() < 4 {
            continue;
        }
        let batch = encoder.encode_rows(&rows).map_err(mlrm_train::TrainError::from)?;
        let formula = args.formula.formula();
        scores.extend(batch_saliency(&model.embedder, &objective, batch, formula)?);
    }
    if scores.is_empty() {
        let count = NoteSet::len(&notes.set);
        return Err(miette!("too few pairs for a measurement ({count} notes)"));
    }
    let layers = mean_over_notes(&scores);
    let share = |layer: &[f64; 3]| layer.map(|value| value / layer.iter().sum::<f64>());
    let report = Report {
        variant: variant.name(),
        notes: scores.len(),
        shares: layers.iter().map(share).collect(),
        layers,
    };
    print(&report, args.json)?;
    Ok(ExitCode::SUCCESS)
}

fn print(report: &Report, json: bool) -> miette::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(report).into_diagnostic()?);
        return Ok(());
    }
    println!("saliency of `{}`, mean over {} notes, shares of each layer", report.variant, report.notes);
    println!("{:<6} {:>9} {:>9} {:>9}", "layer", "visual", "text", "other");
    for (index, [visual, text, other]) in report.shares.iter().enumerate() {
        println!(
            "{index:<6} {:>8.1}% {:>8.1}% {:>8.1}%",
            100.0 * visual,
            100.0 * text,
            100.0 * other
        );
    }
    Ok(())
}
