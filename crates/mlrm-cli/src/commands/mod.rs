//! One file a subcommand: arguments, and what they do.

pub mod bench;
pub mod config;
pub mod data;
pub mod devices;
pub mod embed;
pub mod eval;
pub mod export;
mod formats;
pub mod inspect;
mod model_source;
pub mod report;
pub mod saliency;
pub mod similar;
pub mod train;
pub mod verify;
pub mod watch;
