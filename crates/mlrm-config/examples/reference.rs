//! Writes the generated page of the guide, the configuration reference.
//!
//! `cargo run --release --workspace --example reference`

use std::path::Path;

fn main() -> std::io::Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src");
    let path = docs.join("configuration.md");
    std::fs::write(&path, mlrm_config::reference_markdown())?;
    println!("wrote {}", path.display());
    Ok(())
}
