//! `mlrm similar`: the nearest notes of a note.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use miette::miette;
use mlrm_data::notes::NoteSet;
use mlrm_eval::{Embeddings, Neighbour, read_embeddings, top_k};
use mlrm_events::text::one_line;
use serde::Serialize;

use super::{at_least_one, print_json};

/// Shows the nearest notes of a note by cosine similarity.
///
/// Every note of the file is compared, so the answer is exact; equal similarities are ordered by id. An index
/// (`mlrm index`) looks at few notes, and finds most of the nearest ones.
#[derive(Debug, clap::Args)]
pub struct SimilarArgs {
    /// Embedding file that `mlrm embed` wrote: .parquet, .npy or .safetensors.
    #[arg(value_name = "EMBEDDINGS", required_unless_present = "index")]
    pub embeddings: Option<PathBuf>,
    /// Ask this index, which `mlrm index` wrote, instead of an embedding file.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["embeddings", "visual", "dim"])]
    pub index: Option<PathBuf>,
    /// Id of the note to start from; may be given several times.
    #[arg(long = "id", value_name = "ID", required = true)]
    pub ids: Vec<String>,
    /// Number of notes to show.
    #[arg(short, long, value_name = "N", default_value_t = 10, value_parser = at_least_one)]
    pub k: usize,
    /// Compare the visual embeddings of the file instead of the multimodal ones.
    #[arg(long)]
    pub visual: bool,
    /// Compare their first N dimensions alone, normalised.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub dim: Option<usize>,
    /// Notes file (.jsonl or .parquet) whose titles are shown beside the ids.
    #[arg(long, value_name = "FILE")]
    pub notes: Option<PathBuf>,
    /// Print JSON: a list with one {"id", "title", "neighbours"} for each --id.
    #[arg(long)]
    pub json: bool,
}

/// A note with its nearest ones.
#[derive(Debug, Serialize, PartialEq)]
struct Answer {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    neighbours: Vec<Similar>,
}

/// A note near another.
#[derive(Debug, Serialize, PartialEq)]
struct Similar {
    id: String,
    /// Cosine similarity.
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// If a file cannot be read or an id is not among the embeddings.
pub fn run(args: SimilarArgs) -> miette::Result<ExitCode> {
    let titles = args.notes.as_deref().map(titles_of).transpose()?;
    let titles = titles.as_ref();
    let (file, answers) = match (&args.embeddings, &args.index) {
        (Some(file), _) => {
            let embeddings = embeddings_of(file, args.visual, args.dim)?;
            let nearest = |rows: &[u32]| top_k(&embeddings, rows, args.k);
            (file, answer(embeddings.ids(), &args.ids, nearest, titles))
        }
        (None, Some(file)) => (file, from_index(file, &args, titles)?),
        (None, None) => return Err(miette!("name an embedding file, or an index by --index")),
    };
    let answers = answers.map_err(|problem| miette!("{}: {problem}", file.display()))?;
    if args.json {
        return print_json(&answers);
    }
    print!("{}", text(&answers));
    Ok(ExitCode::SUCCESS)
}

/// What an index answers.
#[cfg(feature = "index")]
fn from_index(file: &Path, args: &SimilarArgs, titles: Titles<'_>) -> miette::Result<Answers> {
    let index = mlrm_eval::Index::open(file).map_err(|error| miette!("{error}"))?;
    let nearest = |rows: &[u32]| {
        let rows = rows.iter().map(|&row| index.nearest(row as usize, args.k));
        rows.collect::<Result<Vec<_>, mlrm_eval::Error>>()
    };
    Ok(answer(index.ids(), &args.ids, nearest, titles))
}

/// What an index answers.
#[cfg(not(feature = "index"))]
fn from_index(_: &Path, _: &SimilarArgs, _: Titles<'_>) -> miette::Result<Answers> {
    Err(super::index::not_built())
}

/// Embeddings of length 1 from a file.
pub(super) fn embeddings_of(
    path: &Path,
    visual: bool,
    dim: Option<usize>,
) -> miette::Result<Embeddings> {
    let set = read_embeddings(path).map_err(|error| miette!("{error}"))?;
    let embeddings = match set.into_parts() {
        (multimodal, _) if !visual => multimodal,
        (_, Some(visual)) => visual,
        (_, None) => {
            return Err(miette!(
                help = "export them with `mlrm embed --visual`, or leave --visual out",
                "{}: no visual embeddings in it",
                path.display()
            ));
        }
    };
    let embeddings = match dim {
        Some(dim) => embeddings
            .cut_to(dim)
            .map_err(|error| miette!("--dim: {error}"))?,
        None => embeddings,
    };
    if embeddings.is_normalised() {
        return Ok(embeddings);
    }
    let normalised = embeddings.into_normalised();
    normalised.map_err(|error| miette!("{}: {error}", path.display()))
}

/// Title of each note id.
fn titles_of(path: &Path) -> miette::Result<HashMap<String, String>> {
    let notes = NoteSet::read(path).map_err(|error| miette!("{error}"))?;
    let titles = notes
        .rows()
        .iter()
        .map(|note| (note.id.clone(), note.title.clone()));
    Ok(titles.collect())
}

/// Title of each id, where titles are to be shown.
type Titles<'a> = Option<&'a HashMap<String, String>>;

/// An answer for each id, or what is wrong with one.
type Answers = Result<Vec<Answer>, String>;

/// What `nearest` gives for the rows of `ids` among the `known` ids.
fn answer(
    known: &[String],
    ids: &[String],
    nearest: impl FnOnce(&[u32]) -> Result<Vec<Vec<Neighbour>>, mlrm_eval::Error>,
    titles: Titles<'_>,
) -> Answers {
    let title = |id: &str| titles.and_then(|titles| titles.get(id)).cloned();
    // One look at each id of the file, however many are asked for.
    let wanted: HashSet<&str> = ids.iter().map(String::as_str).collect();
    let found = known.iter().map(String::as_str).zip(0..);
    let found: HashMap<&str, u32> = found.filter(|(id, _)| wanted.contains(id)).collect();
    let row = |id: &String| {
        found
            .get(id.as_str())
            .copied()
            .ok_or_else(|| unknown(id, known))
    };
    let rows = ids.iter().map(row).collect::<Result<Vec<u32>, String>>()?;
    let best = nearest(&rows).map_err(|error| error.to_string())?;
    let answer = |(id, neighbours): (&String, Vec<Neighbour>)| {
        let neighbours = neighbours.into_iter().map(|neighbour| {
            let id = known[neighbour.row as usize].clone();
            Similar {
                title: title(&id),
                score: neighbour.score,
                id,
            }
        });
        Answer {
            id: id.clone(),
            title: title(id),
            neighbours: neighbours.collect(),
        }
    };
    Ok(ids.iter().zip(best).map(answer).collect())
}

/// Message for an id without an embedding, with an example of what ids look like here.
fn unknown(id: &str, known: &[String]) -> String {
    let example = match known.first() {
        Some(first) => format!("it holds {} notes, the first is {first:?}", known.len()),
        None => "it holds no notes".into(),
    };
    format!("no note has the id {id:?}; {example}")
}

fn text(answers: &[Answer]) -> String {
    let mut text = String::new();
    for (at, answer) in answers.iter().enumerate() {
        if at > 0 {
            text.push('\n');
        }
        text += &line(&answer.id, answer.title.as_deref());
        text.push('\n');
        let ids = answer
            .neighbours
            .iter()
            .map(|similar| one_line(&similar.id).chars().count());
        let width = ids.max().unwrap_or(0);
        for (rank, similar) in (1..).zip(&answer.neighbours) {
            let id = format!("{:width$}", one_line(&similar.id));
            let note = line(&id, similar.title.as_deref());
            text += &format!("{rank:5}  {:7.4}  {note}\n", similar.score);
        }
    }
    text
}

/// Id and title of a note on one line.
fn line(id: &str, title: Option<&str>) -> String {
    let text = format!("{}  {}", one_line(id), one_line(title.unwrap_or_default()));
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embeddings() -> Embeddings {
        let ids = ["9", "10", "11", "200"].map(str::to_owned).to_vec();
        let values = vec![1.0, 0.0, 0.6, 0.8, 0.6, 0.8, 0.0, -1.0];
        Embeddings::new(ids, 2, values).unwrap()
    }

    /// The exact answer.
    fn answer_of(ids: &[&str], k: usize, titles: Titles<'_>) -> Answers {
        let embeddings = embeddings();
        let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        let nearest = |rows: &[u32]| top_k(&embeddings, rows, k);
        answer(embeddings.ids(), &ids, nearest, titles)
    }

    #[test]
    fn shows_the_nearest_notes_ties_by_id() {
        let titles = [("9", "Heat"), ("200", "A\u{1b}[31mlien\n")];
        let titles = titles
            .map(|(id, title)| (id.to_owned(), title.to_owned()))
            .into();
        let answers = answer_of(&["9"], 3, Some(&titles)).unwrap();
        let expected = "\
9  Heat
    1   0.6000  10
    2   0.6000  11
    3   0.0000  200  A\\u001b[31mlien
";
        assert_eq!(text(&answers), expected);
    }

    #[test]
    fn json_is_a_list_with_one_entry_for_each_id() {
        let answers = answer_of(&["200", "9"], 1, None).unwrap();
        let found = serde_json::to_value(&answers).unwrap();
        let expected = serde_json::json!([
            {"id": "200", "neighbours": [{"id": "9", "score": 0.0}]},
            {"id": "9", "neighbours": [{"id": "10", "score": 0.6_f32}]},
        ]);
        assert_eq!(found, expected);
    }

    #[test]
    fn an_unknown_id_is_named_with_an_example() {
        let problem = answer_of(&["7"], 3, None).unwrap_err();
        assert_eq!(
            problem,
            "no note has the id \"7\"; it holds 4 notes, the first is \"9\""
        );
    }
}
