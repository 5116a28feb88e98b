//! Model folders from the Hugging Face Hub, by `hf:owner/name@revision`.
//!
//! Files lie where `huggingface_hub` for Python keeps them, in the same layout, so that both share one
//! cache: `models--owner--name/{blobs, refs, snapshots}`. The layout and the addresses are those of the
//! `hf-hub` crate. Its download is not used: it takes a file of any length for whole, appends to a part
//! what a server sends from the start, and knows neither `HF_TOKEN`, `HF_HUB_CACHE` nor
//! `HF_HUB_OFFLINE`.
//!
//! In the order of reading: [`Hub`] brings a folder; `environment` says where from and where to; `needs`
//! which files; `client` asks for lists and files, `download` fetches one and `digest` checks it; `cache` is
//! the layout on disk; `outline` reads the headers of weights alone.

mod cache;
mod client;
mod digest;
mod download;
mod environment;
mod error;
mod hub;
mod needs;
mod outline;

pub use environment::Environment;
pub use error::HubError;
pub use hub::{Hub, Snapshot};
pub use needs::Needs;

/// Who is told how a download goes on.
pub trait Watch {
    /// Weights that are not there yet are about to be fetched: so many files, so many bytes in all.
    fn weights(&mut self, files: usize, bytes: u64);
    /// A file begins, of which `held` of its `bytes` are there from an interrupted download.
    fn begin(&mut self, file: &str, held: u64, bytes: u64);
    /// Bytes of it that are there now.
    fn at(&mut self, held: u64);
    /// The file is whole.
    fn end(&mut self);
    /// Something that the user should know.
    fn say(&mut self, text: &str);
}
