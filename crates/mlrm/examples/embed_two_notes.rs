//! A model opened, two notes embedded, and their cosine.
//!
//!     cargo run --release --example embed_two_notes
//!
//! The model has random weights, so that nothing is downloaded; one that `mlrm train` wrote is opened in the same way.

use std::path::Path;

use mlrm::{Embedder, Error, Note, RunConfig};

fn main() -> Result<(), Error> {
    run(Path::new("runs/embed_two_notes"))
}

/// Writes model and pictures below `home`.
pub fn run(home: &Path) -> Result<(), Error> {
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/tiny.toml");
    let photos = home.join("photos");
    let config = RunConfig::load(tiny, &[format!("data.root={}", photos.display())])?;
    Embedder::from_config(config)?.save_pretrained(home.join("model"))?;

    let embedder = Embedder::from_pretrained(home.join("model"), "flex")?;
    let note = |id: &str, title: &str, image: &str| Note {
        id: id.into(),
        title: title.into(),
        image: Some(image.into()),
        ..Note::default()
    };
    let notes = vec![
        note("mug", "A red mug", "images/n00001.png"),
        note("tea", "Green tea from Uji", "images/n00002.png"),
    ];
    let embeddings = embedder.embed(notes, photos)?;

    let (mug, tea) = (embeddings.row(0), embeddings.row(1));
    let cosine: f32 = mug.iter().zip(tea).map(|(a, b)| a * b).sum();
    println!("{} numbers each, cosine {cosine:.3}", embedder.dim());
    Ok(())
}
