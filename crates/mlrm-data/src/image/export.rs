//! Writing `preprocessor_config.json`, as `CLIPImageProcessor` reads it.

use std::io::Write;
use std::path::Path;

use mlrm_config::ExifOrientation;
use serde_json::{Value, json};

use super::config::{PreprocessorConfig, Resample, Resize};
use super::read_config::ORIENTATION;
use crate::error::Result;
use crate::write::write_file;

impl PreprocessorConfig {
    /// The keys of a `preprocessor_config.json` that means the same.
    pub fn to_json(&self) -> Value {
        let size = |height: u32, width: u32| json!({"height": height, "width": width});
        let mut keys = json!({
            "image_processor_type": "CLIPImageProcessor",
            "do_convert_rgb": true,
            "do_resize": self.resize.is_some(),
            "resample": match self.resample {
                Resample::Lanczos => 1,
                Resample::Bilinear => 2,
                Resample::Bicubic => 3,
                Resample::Box => 4,
                Resample::Hamming => 5,
            },
            "do_center_crop": self.crop.is_some(),
            "do_rescale": true,
            "rescale_factor": self.rescale_factor,
            "do_normalize": true,
            "image_mean": self.mean,
            "image_std": self.std,
        });
        match self.resize {
            Some(Resize::ShortestEdge(side)) => keys["size"] = json!({"shortest_edge": side}),
            Some(Resize::Exact(height, width)) => keys["size"] = size(height, width),
            Some(Resize::Within(range)) => {
                keys["image_processor_type"] = json!("Qwen2VLImageProcessor");
                keys["size"] = json!({"shortest_edge": range.least, "longest_edge": range.most});
                (keys["patch_size"], keys["merge_size"]) = (json!(range.factor), json!(1));
            }
            None => {}
        }
        if let Some((height, width)) = self.crop {
            keys["crop_size"] = size(height, width);
        }
        if self.orientation != ExifOrientation::Ignore {
            keys[ORIENTATION] = json!(self.orientation);
        }
        keys
    }

    /// Writes `preprocessor_config.json` into `folder`; [`Self::load`] reads the same back.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let keys = self.to_json();
        write_file(&folder.join("preprocessor_config.json"), |out| {
            writeln!(out, "{keys:#}")
        })
    }
}

#[cfg(test)]
mod tests {
    use mlrm_config::PictureDefaults;

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let exact = PreprocessorConfig {
            resize: Some(Resize::Exact(30, 40)),
            crop: None,
            resample: Resample::Bilinear,
            orientation: ExifOrientation::Apply,
            ..PreprocessorConfig::clip(48)
        };
        for config in [PreprocessorConfig::clip(48), exact] {
            config.save(folder.path()).expect("writes");
            let read =
                PreprocessorConfig::load(folder.path(), PictureDefaults::Clip).expect("reads");
            assert_eq!(read, Some(config));
        }
    }
}
