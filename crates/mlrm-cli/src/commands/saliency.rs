//! `mlrm saliency MODEL…`: how much each layer reads the picture, the text and the rest.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use miette::{IntoDiagnostic, WrapErr, miette};
use mlrm_data::split::Pair;
use mlrm_model::nn::ProbeSite;
use mlrm_model::saliency::{Formula, HeadReduction, mean_over_notes};
use mlrm_report::saliency_plot::{Curve, svg};
use mlrm_report::state::normalised;
use mlrm_train::corpus::{Modality, Notes, run_pairs};
use mlrm_train::objective::Objective;
use mlrm_train::probe::{batch_attention_mass, batch_saliency, both_show_pictures};
use serde::Serialize;

use super::model_source::{ModelSource, picture_progress};
use super::{check_place, write};

/// Measure how much each layer reads the picture and the text (method §4), of one model or of
/// several side by side.
///
/// All models are measured on the same notes: pairs of the first run's data, or of `--set data.…`
/// for a bare model folder, for the loss of the formula needs a note's partner.
#[derive(Debug, Args)]
pub struct SaliencyArgs {
    /// Model folders, or run folders (their `model/`).
    #[arg(required = true, value_name = "MODEL")]
    pub models: Vec<PathBuf>,
    /// Where to compute; see `mlrm devices`.
    #[arg(long, default_value = "flex")]
    pub device: String,
    /// Take weights that are NaN or infinite as they are (`model.allow_nan`).
    #[arg(long)]
    pub allow_nan: bool,
    /// Override a setting of the run (`data.*`), or give them for a bare model folder.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Notes to average over (pairs of them, held out where there are any).
    #[arg(
        long,
        visible_alias = "notes-count",
        default_value_t = 128,
        value_name = "N"
    )]
    pub notes: usize,
    /// The formula.
    #[arg(long, value_enum, default_value_t = FormulaArg::AbsThenSum)]
    pub formula: FormulaArg,
    /// Print JSON instead of the table.
    #[arg(long)]
    pub json: bool,
    /// Write the JSON to this file as well.
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Draw the shares over the layers into this SVG file, the models side by side.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// The formulas of method §4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FormulaArg {
    /// Sum of absolute values over heads (published).
    AbsThenSum,
    /// Absolute value of the sum over heads (released code, Qwen).
    SumThenAbs,
    /// The same before the softmax (released code, Llama and OPT).
    ScoresSumThenAbs,
    /// Attention without its gradient: cheaper, and no saliency.
    AttentionMass,
}

impl FormulaArg {
    /// Where it taps the attention; `None` for attention mass, which has no gradient.
    fn formula(self) -> Option<Formula> {
        let (site, reduction) = match self {
            Self::AbsThenSum => (ProbeSite::Probabilities, HeadReduction::AbsThenSum),
            Self::SumThenAbs => (ProbeSite::Probabilities, HeadReduction::SumThenAbs),
            Self::ScoresSumThenAbs => (ProbeSite::Scores, HeadReduction::SumThenAbs),
            Self::AttentionMass => return None,
        };
        Some(Formula { site, reduction })
    }

    fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// One model's measurement.
#[derive(Debug, Serialize)]
struct Report {
    model: PathBuf,
    variant: &'static str,
    formula: FormulaArg,
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
    for file in [&args.out, &args.svg].into_iter().flatten() {
        check_place(file)?;
    }
    let sources = args.models.iter().map(|model| ModelSource {
        model: model.clone(),
        device: args.device.clone(),
        allow_nan: args.allow_nan,
    });
    let sources: Vec<ModelSource> = sources.collect();
    // A path that is no model is said before the others are measured.
    for source in &sources {
        source.folder()?;
    }
    let config = sources[0].run_config(&args.set)?;
    let notes = Notes::open(&config.data, true, &picture_progress())?;
    let pairs = run_pairs(&config.data, &notes.set, config.run.seed)?.pairs;
    let held = [pairs.test, pairs.validation, pairs.train];
    let mut pairs = held
        .into_iter()
        .find(|pairs| !pairs.is_empty())
        .unwrap_or_default();
    pairs.truncate(args.notes / 2);
    if pairs.len() < 2 {
        return Err(miette!(
            help = "give --notes 4 or more, and data with pairs",
            "too few pairs for a measurement: {} of {} notes",
            pairs.len(),
            notes.set.len()
        ));
    }
    let reports = sources
        .iter()
        .map(|source| {
            measure(source, &args, &notes, &pairs)
                .wrap_err_with(|| format!("{} cannot be measured", source.model.display()))
        })
        .collect::<miette::Result<Vec<Report>>>()?;
    let json = match &reports[..] {
        [report] => serde_json::to_string_pretty(report),
        reports => serde_json::to_string_pretty(reports),
    }
    .into_diagnostic()?;
    if args.json {
        println!("{json}");
    } else {
        print!("{}", table(&reports));
    }
    if let Some(out) = &args.out {
        write(out, &(json + "\n"))?;
    }
    if let Some(out) = &args.svg {
        write(out, &svg(&curves(&reports)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(
    source: &ModelSource,
    args: &SaliencyArgs,
    notes: &Notes,
    pairs: &[Pair],
) -> miette::Result<Report> {
    let config = source.run_config(&args.set)?;
    let mut model = source.open(&config)?;
    source.keep_features(&mut model, notes, &config)?;
    let variant = model.embedder.config.variant;
    let encoder = model
        .encoding
        .encoder(notes, &model.embedder, Modality::Both)?;
    let objective = Objective::from_settings(&config.objective);
    let mut scores = Vec::new();
    let shown: Vec<Pair> = pairs
        .iter()
        .filter(|pair| both_show_pictures(&encoder, pair))
        .copied()
        .collect();
    if shown.len() < 2 {
        return Err(miette!(
            "too few pairs of which both notes have a picture: {} of {}",
            shown.len(),
            pairs.len()
        ));
    }
    // A pair alone has no negatives, and its loss no gradient.
    for chunk in shown.chunks(PAIRS_A_BATCH).filter(|chunk| chunk.len() > 1) {
        let queries = chunk.iter().map(|pair| pair.query);
        let rows: Vec<u32> = queries
            .chain(chunk.iter().map(|pair| pair.target))
            .collect();
        let batch = encoder
            .encode_rows(&rows)
            .map_err(mlrm_train::TrainError::from)?;
        scores.extend(match args.formula.formula() {
            Some(formula) => batch_saliency(&model.embedder, &objective, batch, formula)?,
            None => batch_attention_mass(&model.embedder, batch)?,
        });
    }
    let layers = mean_over_notes(&scores);
    Ok(Report {
        model: source.model.clone(),
        variant: variant.name(),
        formula: args.formula,
        notes: scores.len(),
        shares: layers.iter().copied().map(normalised).collect(),
        layers,
    })
}

/// The variant, with the path where another model has the same one.
fn name(report: &Report, reports: &[Report]) -> String {
    let same = reports
        .iter()
        .filter(|other| other.variant == report.variant);
    if same.count() > 1 {
        format!("{} ({})", report.variant, report.model.display())
    } else {
        report.variant.to_owned()
    }
}

fn curves(reports: &[Report]) -> Vec<Curve> {
    let curve = |report: &Report| Curve {
        name: name(report, reports),
        note: format!(
            "{}, mean over {} notes",
            report.formula.name(),
            report.notes
        ),
        layers: report.layers.clone(),
    };
    reports.iter().map(curve).collect()
}

/// The shares in percent, the models side by side.
fn table(reports: &[Report]) -> String {
    let mut text = String::new();
    for report in reports {
        text += &format!(
            "{} of `{}`, mean over {} notes, shares of each layer\n",
            report.formula.name(),
            name(report, reports),
            report.notes
        );
    }
    if reports.len() > 1 {
        text += &" ".repeat("layer ".len());
        for report in reports {
            text += &format!(" {:>29}", report.variant);
        }
        text += "\n";
    }
    text += "layer ";
    for _ in reports {
        text += &format!(" {:>9} {:>9} {:>9}", "visual", "text", "other");
    }
    let layers = reports.iter().map(|report| report.shares.len()).max();
    for layer in 0..layers.unwrap_or(0) {
        text += &format!("\n{:<6}", layer + 1);
        for report in reports {
            for part in 0..3 {
                let share = report.shares.get(layer);
                let cell = share.map(|share| format!("{:.1}%", 100.0 * share[part]));
                text += &format!(" {:>9}", cell.unwrap_or_default());
            }
        }
    }
    text + "\n"
}
