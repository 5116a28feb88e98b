//! Queries with their pictures, their true partners and what the models found.

use std::fmt::Write;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine};
use image::codecs::jpeg::JpegEncoder;
use image::{ImageReader, Limits};

use crate::examples::{Example, Hit, Note};
use crate::format;
use crate::markup::escaped;
use crate::run::Run;

/// A thumbnail's longer side, in pixels: twice what a phone shows.
const THUMBNAIL_PIXELS: u32 = 192;
const JPEG_QUALITY: u8 = 78;
/// Pictures larger than this are not read.
const MAX_SIDE_PIXELS: u32 = 20_000;
const MAX_DECODED_BYTES: u64 = 512 << 20;
/// Letters of a text that are shown.
const TEXT_LETTERS: usize = 280;

pub(super) fn section(runs: &[Run], count: usize, html: &mut String) {
    for run in runs.iter().filter(|run| !run.examples.is_empty()) {
        let title = if runs.len() > 1 {
            format!(": {}", run.name)
        } else {
            String::new()
        };
        let shown = run.examples.len().min(count);
        let _ = writeln!(
            html,
            "<section>\n<h2>Examples{}</h2>\n<p class=\"muted\">{} of {} queries, the worst failures \
             first. A solid frame and a tick mark a true partner, a dashed frame and a cross \
             anything else.</p>",
            escaped(&title),
            format::count(shown as u64),
            format::count(run.examples.len() as u64)
        );
        for example in run.examples.iter().take(count) {
            write_example(run, example, html);
        }
        html.push_str("</section>\n");
    }
}

fn write_example(run: &Run, example: &Example, html: &mut String) {
    html.push_str("<article class=\"example\">\n<div class=\"query\">");
    picture(run, &example.query, html);
    let _ = writeln!(
        html,
        "<div class=\"words\"><strong>{}</strong> <span class=\"muted\">{}</span><p>{}</p></div></div>",
        escaped(&example.query.title),
        escaped(&example.query.id),
        escaped(&cut(&example.query.text))
    );
    html.push_str("<p class=\"label\">True partners</p>\n<div class=\"row\">\n");
    for partner in &example.partners {
        html.push_str("<div class=\"hit\">");
        picture(run, partner, html);
        let _ = writeln!(html, "{}</div>", escaped(&partner.title));
    }
    html.push_str("</div>\n");
    for model in &example.models {
        let rank = match model.first_right_rank {
            Some(rank) => format!("first true partner at rank {}", format::count(rank)),
            None => "no true partner found".to_owned(),
        };
        let _ = writeln!(
            html,
            "<p class=\"label\"><strong>{}</strong>, {rank}</p>\n<div class=\"row\">",
            escaped(&model.name)
        );
        for hit in &model.results {
            write_hit(run, hit, html);
        }
        html.push_str("</div>\n");
    }
    html.push_str("</article>\n");
}

fn write_hit(run: &Run, hit: &Hit, html: &mut String) {
    let (class, mark, word) = if hit.right {
        ("right", "✓", "right")
    } else {
        ("wrong", "✗", "wrong")
    };
    let _ = write!(html, "<div class=\"hit {class}\">");
    picture(run, &hit.note, html);
    let _ = writeln!(
        html,
        "<span class=\"mark\" title=\"{word}\">{mark}</span> {:.3} {}</div>",
        hit.score,
        escaped(&hit.note.title)
    );
}

/// The text's beginning.
fn cut(text: &str) -> String {
    let mut letters = text.chars();
    let mut shown: String = letters.by_ref().take(TEXT_LETTERS).collect();
    if letters.next().is_some() {
        shown.push('…');
    }
    shown
}

/// The note's picture as an embedded thumbnail, or why there is none.
fn picture(run: &Run, note: &Note, html: &mut String) {
    let Some(image) = &note.image else {
        html.push_str("<span class=\"none\">no picture</span>");
        return;
    };
    match thumbnail(&find(run, image)) {
        Ok(jpeg) => {
            let _ = write!(
                html,
                "<img alt=\"{}\" src=\"data:image/jpeg;base64,{}\">",
                escaped(&note.title),
                BASE64_STANDARD.encode(&jpeg)
            );
        }
        Err(error) => {
            let _ = write!(
                html,
                "<span class=\"none\" title=\"{}\">picture cannot be read</span>",
                escaped(&format!("{}: {error}", image.display()))
            );
        }
    }
}

/// Relative paths are the `report` folder's, else the run folder's.
fn find(run: &Run, image: &Path) -> PathBuf {
    let beside = run.folder.join("report").join(image);
    if beside.exists() {
        beside
    } else {
        run.folder.join(image)
    }
}

fn thumbnail(path: &Path) -> Result<Vec<u8>, image::ImageError> {
    let mut reader = ImageReader::open(path)?.with_guessed_format()?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE_PIXELS);
    limits.max_image_height = Some(MAX_SIDE_PIXELS);
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    reader.limits(limits);
    let small = reader
        .decode()?
        .thumbnail(THUMBNAIL_PIXELS, THUMBNAIL_PIXELS)
        .into_rgba8();
    // JPEG has no transparency: white stands behind the picture.
    let opaque = image::RgbImage::from_fn(small.width(), small.height(), |x, y| {
        let [red, green, blue, alpha] = small.get_pixel(x, y).0.map(u32::from);
        image::Rgb(
            [red, green, blue].map(|value| ((value * alpha + 255 * (255 - alpha)) / 255) as u8),
        )
    });
    let mut jpeg = Cursor::new(Vec::new());
    opaque.write_with_encoder(JpegEncoder::new_with_quality(&mut jpeg, JPEG_QUALITY))?;
    Ok(jpeg.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_letters() {
        assert_eq!(cut("short"), "short");
        let long = "字".repeat(TEXT_LETTERS + 1);
        assert_eq!(cut(&long).chars().count(), TEXT_LETTERS + 1);
        assert!(cut(&long).ends_with('…'));
    }
}
