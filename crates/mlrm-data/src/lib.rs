//! From files to batches: behaviour logs and notes, co-occurrence pairs and their splits, prompts,
//! tokens, pictures, seeded order and padded host batches.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`files`] | the files of a table that is a folder or a pattern |
//! | [`table`] | rows of named columns from JSON Lines, CSV and its kin, and Parquet |
//! | [`notes`] | notes and the store that their pictures are read from |
//! | [`interactions`] | the behaviour log |
//! | [`pairs`] | log → scored pairs of related notes (method §5), and files of pairs |
//! | [`pair_sql`] | the same as a SQL query, for logs that an engine holds |
//! | [`store`] | objects in S3, Google Cloud, Azure and behind HTTP, with a cache on disk |
//! | [`split`] | training, validation and test pairs without leakage |
//! | [`import`] | any tables → notes, log and pictures, as a spec or a preset says |
//! | [`check`] | every problem of a data set, by file and row, and the clean rest |
//! | [`clean`] | note text as one clean line, cut between graphemes |
//! | [`tokenizer`] | ids from a `tokenizer.json` or from a byte-level BPE trained on the notes |
//! | [`prompt`] | a note → the ids of its prompt (method §1) |
//! | [`image`] | the bytes of a picture → what `CLIPImageProcessor` makes of it |
//! | [`order`] | the seeded, resumable order of training pairs |
//! | [`batch`] | padded host batches |
//! | [`loader`] | batches made by worker threads ahead of the step |
//!
//! Nothing here knows Burn: all values are plain host memory. Nothing panics on what a file holds.

pub mod batch;
pub mod check;
pub mod clean;
pub mod error;
pub mod files;
pub mod image;
pub mod import;
pub mod interactions;
mod interner;
pub mod loader;
pub mod notes;
pub mod order;
pub mod pair_sql;
pub mod pairs;
pub mod prompt;
pub mod split;
pub mod store;
pub mod table;
mod time;
pub mod tokenizer;
mod write;

#[cfg(test)]
#[path = "../../../tests/web.rs"]
mod web;

pub use error::{DataError, Result};
pub use write::{write_file, write_folder};
