//! Against Pillow and transformers, by what they wrote.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use ::image::{ImageFormat, RgbImage};
use mlrm_config::{ExifOrientation, PictureDefaults, ResizeMode};
use proptest::prelude::*;
use serde_json::json;

use super::resample::{Axis, resample};
use super::*;
use crate::error::ProblemKind;

/// The JPEG decoder rounds and upsamples colour otherwise than libjpeg: at most this much in the
/// mean, in steps of 1/255. All else is exact.
const JPEG_MEAN: f64 = 0.6;

fn here(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)
}

fn decoded(path: &Path) -> RgbImage {
    decode(&fs::read(path).unwrap(), &DecodeOptions::default())
        .unwrap_or_else(|problem| panic!("{}: {problem:?}", path.display()))
}

fn mean_difference(ours: impl Iterator<Item = f64>, theirs: impl Iterator<Item = f64>) -> f64 {
    let differences: Vec<f64> = ours.zip(theirs).map(|(a, b)| (a - b).abs()).collect();
    differences.iter().sum::<f64>() / differences.len() as f64
}

/// Every folder of `tests/golden/images`: real photographs through `CLIPImageProcessor`.
#[test]
fn pictures_become_what_clip_image_processor_makes_of_them() {
    let golden = here("../../tests/golden/images");
    let mut compared = 0;
    for folder in fs::read_dir(&golden).unwrap() {
        let folder = folder.unwrap().path();
        if !folder.is_dir() {
            continue;
        }
        let config = PreprocessorConfig::load(&folder, PictureDefaults::Clip)
            .unwrap()
            .unwrap();
        let preprocessor = match (config.resize, config.output_size()) {
            (Some(Resize::Within(range)), _) => {
                ImagePreprocessor::of_own_sizes(config.clone(), range)
            }
            (_, size) => {
                let side = size.unwrap().0 as usize;
                ImagePreprocessor::new(config.clone(), side).unwrap()
            }
        };
        for file in fs::read_dir(&folder).unwrap() {
            let file = file.unwrap().path();
            let name = file.file_name().unwrap().to_str().unwrap().to_owned();
            let Some(picture) = name.strip_suffix(".safetensors") else {
                continue;
            };
            let bytes = fs::read(&file).unwrap();
            let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            let tensor = tensors.tensor("pixel_values").unwrap();
            let decoded = decoded(&golden.join(picture));
            let (width, height) = decoded.dimensions();
            let [high, wide] = preprocessor.output_size(height, width);
            assert_eq!(tensor.shape(), [3, high, wide], "{picture}");
            let expected: Vec<f32> = tensor
                .data()
                .chunks_exact(4)
                .map(|value| f32::from_le_bytes(value.try_into().unwrap()))
                .collect();
            let mut values = vec![0.0; expected.len()];
            let pixels = preprocessor.resize_crop(&decoded);
            preprocessor.normalize_into(&pixels, &mut values);
            let place = format!("{}: {picture}", folder.display());
            if picture.ends_with(".png") {
                assert_eq!(values, expected, "{place}");
            }
            let steps = |values: Vec<f32>| {
                let std = config.std;
                let scale = move |index: usize| std[index / (high * wide)] / config.rescale_factor;
                let values = values.into_iter().enumerate();
                values.map(move |(index, value)| f64::from(value) * scale(index))
            };
            let mean = mean_difference(steps(values), steps(expected));
            assert!(mean <= JPEG_MEAN, "{place}: {mean}");
            compared += 1;
        }
    }
    assert!(compared >= 18, "only {compared} pictures compared");
}

/// Compares the pictures of a folder with what Pillow makes of them; how many there are.
fn compare_with_pillow(folder: &str, options: &DecodeOptions) -> usize {
    let mut compared = 0;
    for file in fs::read_dir(here("tests/fixtures/images").join(folder)).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let expected = path.with_file_name(format!("{name}.rgb.png"));
        if !expected.exists() {
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        let ours = decode(&bytes, options).unwrap_or_else(|p| panic!("{name}: {p:?}"));
        check_by_parts(&bytes, options).unwrap_or_else(|p| panic!("{name}: {p:?}"));
        let theirs = decoded(&expected);
        assert_eq!(ours.dimensions(), theirs.dimensions(), "{name}");
        if name.ends_with(".jpg") {
            let bytes = |picture: RgbImage| picture.into_raw().into_iter().map(f64::from);
            let mean = mean_difference(bytes(ours), bytes(theirs));
            assert!(mean <= JPEG_MEAN, "{name}: {mean}");
        } else {
            assert_eq!(ours.as_raw(), theirs.as_raw(), "{name}");
        }
        compared += 1;
    }
    compared
}

/// The check of first and last bytes, for heads of several lengths.
fn check_by_parts(bytes: &[u8], options: &DecodeOptions) -> Result<(), crate::error::Problem> {
    for head in [bytes.len(), bytes.len().min(200), 40] {
        let tail = &bytes[bytes.len().saturating_sub(TAIL_BYTES)..];
        let whole = || Ok(bytes.to_vec());
        let head = &bytes[..head.min(bytes.len())];
        check_ends(head, tail, bytes.len() as u64, options, whole)?;
    }
    Ok(())
}

/// Every colour mode and format, against transformers' `convert_to_rgb`.
#[test]
fn every_mode_becomes_the_rgb_of_transformers() {
    assert_eq!(compare_with_pillow("", &DecodeOptions::default()), 18);
}

/// Wrong sizes, bytes behind the picture, missing ends, further pictures, rare colours.
#[test]
fn files_that_are_not_as_their_format_has_it_are_read_as_pillow_reads_them() {
    assert_eq!(compare_with_pillow("odd", &DecodeOptions::default()), 26);
}

#[test]
fn pictures_are_turned_as_pillow_turns_them_where_that_is_asked_for() {
    let apply = DecodeOptions {
        orientation: ExifOrientation::Apply,
        ..DecodeOptions::default()
    };
    assert_eq!(compare_with_pillow("turned", &apply), 8);
    let bytes = fs::read(here("tests/fixtures/images/turned/6.jpg")).unwrap();
    let (stored, traits) = decode_with_traits(&bytes, &DecodeOptions::default()).unwrap();
    assert!(traits.turned);
    let upright = decode(&bytes, &apply).unwrap();
    assert_eq!(stored.dimensions(), (upright.height(), upright.width()));
}

/// Not white: a ramp over the whole range stays a ramp.
#[test]
fn sixteen_bits_keep_their_high_byte() {
    let ramp = ::image::ImageBuffer::from_fn(256, 1, |x, _| ::image::Luma([x as u16 * 257]));
    let mut bytes = Cursor::new(Vec::new());
    ramp.write_to(&mut bytes, ImageFormat::Png).unwrap();
    let (picture, traits) = decode_with_traits(bytes.get_ref(), &DecodeOptions::default()).unwrap();
    assert!(traits.sixteen_bit && !traits.transparent && !traits.turned);
    assert!((0..256).all(|x| picture.get_pixel(x, 0).0 == [x as u8; 3]));
}

#[test]
fn resizing_is_pillows_bit_for_bit() {
    let folder = here("tests/fixtures/images/resize");
    let noise = decoded(&folder.join("noise.png"));
    let filters = [
        ("lanczos", Resample::Lanczos),
        ("bilinear", Resample::Bilinear),
        ("bicubic", Resample::Bicubic),
        ("box", Resample::Box),
        ("hamming", Resample::Hamming),
    ];
    for (name, filter) in filters {
        for (width, height) in [(11, 20), (43, 7), (60, 45), (9, 31)] {
            let expected = decoded(&folder.join(format!("{name}_{width}x{height}.png")));
            let axis = |input, output| Axis {
                input,
                output: u64::from(output),
                from: 0,
                count: output,
            };
            let (rows, columns) = (axis(31, height), axis(43, width));
            let resized = resample(noise.as_raw(), &rows, &columns, filter);
            assert_eq!(&resized, expected.as_raw(), "{name} {width}x{height}");
        }
    }
}

/// transformers' `center_crop` as it is written: pad with zeros, then cut.
fn center_crop(pixels: &[u8], height: usize, width: usize, crop: usize) -> Vec<u8> {
    let (new_height, new_width) = (height.max(crop), width.max(crop));
    let top_pad = (new_height - height).div_ceil(2);
    let left_pad = (new_width - width).div_ceil(2);
    let mut padded = vec![0; new_height * new_width * 3];
    for y in 0..height {
        for x in 0..width * 3 {
            padded[((y + top_pad) * new_width + left_pad) * 3 + x] = pixels[y * width * 3 + x];
        }
    }
    let offset = |length: usize, pad: usize| {
        let start = (length as i64 - crop as i64).div_euclid(2) + pad as i64;
        usize::try_from(start).unwrap()
    };
    let (top, left) = (offset(height, top_pad), offset(width, left_pad));
    let mut cropped = Vec::new();
    for y in top..top + crop {
        cropped.extend(&padded[(y * new_width + left) * 3..][..crop * 3]);
    }
    cropped
}

proptest! {
    /// Computing only what the crop keeps, against resizing all of it and cropping then.
    #[test]
    fn the_crop_is_that_of_the_whole_resized_picture(
        (width, height) in (1u32..40, 1u32..40),
        (new_width, new_height) in (1u32..40, 1u32..40),
        crop in 1u32..40,
        seed: u8,
    ) {
        let noise = |i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8 ^ seed;
        let pixels: Vec<u8> = (0..width * height * 3).map(noise).collect();
        let config = PreprocessorConfig {
            resize: Some(Resize::Exact(new_height, new_width)),
            crop: Some((crop, crop)),
            ..PreprocessorConfig::clip(crop)
        };
        let preprocessor = ImagePreprocessor::new(config, crop as usize).unwrap();
        let picture = RgbImage::from_raw(width, height, pixels.clone()).unwrap();
        let axis = |input, output: u32| Axis { input, output: output.into(), from: 0, count: output };
        let resized = resample(
            &pixels,
            &axis(height, new_height),
            &axis(width, new_width),
            Resample::Bicubic,
        );
        let expected = center_crop(&resized, new_height as usize, new_width as usize, crop as usize);
        prop_assert_eq!(preprocessor.resize_crop(&picture), expected);
    }
}

#[test]
fn a_very_long_picture_needs_no_memory_for_what_the_crop_drops() {
    // Resized whole, it would have 224 × 13,440,000 pixels.
    let picture = RgbImage::from_pixel(1, 60_000, ::image::Rgb([9, 8, 7]));
    let preprocessor = ImagePreprocessor::new(PreprocessorConfig::clip(224), 224).unwrap();
    let pixels = preprocessor.resize_crop(&picture);
    assert_eq!(pixels.len(), 224 * 224 * 3);
    assert!(pixels.chunks_exact(3).all(|pixel| pixel == [9, 8, 7]));
}

const FORMATS: [ImageFormat; 5] = [
    ImageFormat::Jpeg,
    ImageFormat::Png,
    ImageFormat::WebP,
    ImageFormat::Gif,
    ImageFormat::Bmp,
];

fn encoded(format: ImageFormat) -> Vec<u8> {
    let picture = RgbImage::from_fn(37, 23, |x, y| {
        ::image::Rgb([(x * 7) as u8, (y * 11) as u8, (x * y) as u8])
    });
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn kind(bytes: &[u8], limits: &DecodeOptions) -> Option<ProblemKind> {
    let kind = decode(bytes, limits).err().map(|problem| problem.kind);
    let by_parts = check_by_parts(bytes, limits)
        .err()
        .map(|problem| problem.kind);
    assert_eq!(by_parts, kind, "by the first and last bytes");
    kind
}

#[test]
fn whole_pictures_pass_and_cut_ones_are_called_cut() {
    let limits = DecodeOptions::default();
    for format in FORMATS {
        let whole = encoded(format);
        assert_eq!(kind(&whole, &limits), None, "{format:?}");
        let trailing = [whole.as_slice(), b"trailing"].concat();
        assert_eq!(kind(&trailing, &limits), None, "{format:?}");
        for share in [0.5, 0.8, 0.97] {
            let cut = &whole[..(whole.len() as f64 * share) as usize];
            let found = kind(cut, &limits);
            assert_eq!(
                found,
                Some(ProblemKind::TruncatedImage),
                "{format:?} {share}"
            );
        }
    }
}

#[test]
fn a_thumbnail_does_not_hide_a_cut() {
    let limits = DecodeOptions::default();
    let whole = encoded(ImageFormat::Jpeg);
    let size = (whole.len() + 2) as u16;
    let mut with_thumbnail = vec![0xff, 0xd8, 0xff, 0xe1];
    with_thumbnail.extend(size.to_be_bytes());
    with_thumbnail.extend(&whole);
    with_thumbnail.extend(&whole[2..]);
    assert_eq!(kind(&with_thumbnail, &limits), None);
    with_thumbnail.truncate(with_thumbnail.len() - 40);
    assert_eq!(
        kind(&with_thumbnail, &limits),
        Some(ProblemKind::TruncatedImage)
    );
}

#[test]
fn size_and_content_are_judged_before_pixels_are_made() {
    let few_pixels = DecodeOptions {
        pixels: 37 * 23 - 1,
        ..DecodeOptions::default()
    };
    for format in FORMATS {
        let whole = encoded(format);
        assert_eq!(
            kind(&whole, &few_pixels),
            Some(ProblemKind::OversizedImage),
            "{format:?}"
        );
        let few_bytes = DecodeOptions {
            file_bytes: whole.len() as u64 - 1,
            ..DecodeOptions::default()
        };
        assert_eq!(
            kind(&whole, &few_bytes),
            Some(ProblemKind::OversizedImage),
            "{format:?}"
        );
    }
    for bytes in [b"".as_slice(), b"no picture", b"<svg/>"] {
        assert_eq!(
            kind(bytes, &few_pixels),
            Some(ProblemKind::UndecodableImage)
        );
    }
    // A decompression bomb is judged by its header.
    let mut bomb = encoded(ImageFormat::Bmp);
    bomb[18..26].copy_from_slice(&[0xff, 0xff, 0, 0, 0xff, 0xff, 0, 0]);
    assert_eq!(
        kind(&bomb, &DecodeOptions::default()),
        Some(ProblemKind::OversizedImage)
    );
}

#[test]
fn no_bytes_make_decoding_panic() {
    let whole = FORMATS.map(encoded);
    let limits = DecodeOptions {
        pixels: 1 << 20,
        ..DecodeOptions::default()
    };
    let change = (any::<prop::sample::Index>(), any::<u8>());
    proptest!(ProptestConfig::with_cases(300), |(
        format in 0..FORMATS.len(),
        changes in prop::collection::vec(change, 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    )| {
        let mut bytes = whole[format].clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let _ = decode(&bytes, &limits);
    });
}

fn loaded(config: &serde_json::Value, image_size: usize) -> Result<ImagePreprocessor, String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("preprocessor_config.json"),
        config.to_string(),
    )
    .unwrap();
    let config = PreprocessorConfig::load(folder.path(), PictureDefaults::Clip);
    let preprocessor =
        config.and_then(|config| ImagePreprocessor::new(config.unwrap(), image_size));
    preprocessor.map_err(|error| error.to_string())
}

#[test]
fn all_forms_of_a_config_are_read() {
    let clip = PreprocessorConfig::clip(224);
    let full = json!({
        "crop_size": {"height": 224, "width": 224}, "do_center_crop": true, "do_convert_rgb": true,
        "do_normalize": true, "do_rescale": true, "do_resize": true,
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_processor_type": "CLIPImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3,
        "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": 224},
        "do_pad": null, "do_flip_channel_order": false, "data_format": "channels_first",
    });
    assert_eq!(loaded(&full, 224).unwrap().config(), &clip);
    let old =
        json!({"crop_size": 224, "size": 224, "feature_extractor_type": "CLIPFeatureExtractor"});
    assert_eq!(loaded(&old, 224).unwrap().config(), &clip);
    assert_eq!(loaded(&json!({}), 224).unwrap().config(), &clip);
    let plain = json!({
        "do_resize": false, "do_rescale": false, "do_normalize": false, "crop_size": 8,
        "resample": 2, "image_std": 0.5, "size": {"height": 9, "width": 7},
    });
    let plain = loaded(&plain, 8).unwrap().config().clone();
    let expected = PreprocessorConfig {
        resize: None,
        resample: Resample::Bilinear,
        crop: Some((8, 8)),
        rescale_factor: 1.0,
        mean: [0.0; 3],
        std: [1.0; 3],
        orientation: ExifOrientation::Ignore,
    };
    assert_eq!(plain, expected);
    let empty = tempfile::tempdir().unwrap();
    let default = PreprocessorConfig::load(empty.path(), PictureDefaults::Clip).unwrap();
    assert_eq!(default, None);
}

/// Sizes of each picture's own, as `smart_resize` of transformers 5.24 gives them, and the one size that stands for them.
#[test]
fn sizes_within_a_range_of_pixels() {
    let range = PixelRange {
        least: 56 * 56,
        most: 28 * 28 * 1280,
        factor: 28,
    };
    for ((height, width), fitted) in [
        ((480, 640), (476, 644)),
        ((42, 70), (56, 56)),
        ((14, 14), (56, 56)),
        ((3, 500), (28, 728)),
        ((3000, 2000), (1204, 812)),
        ((70, 98), (56, 112)),
    ] {
        assert_eq!(range.fit(height, width), fitted, "{height} by {width}");
    }
    assert_eq!(range.square(448), 448);
    assert_eq!(range.square(460), 448);
    assert_eq!(range.square(5000), 980);
    assert_eq!(range.square(3), 28);
    let keys = json!({
        "image_processor_type": "Qwen2VLImageProcessorFast", "patch_size": 16, "merge_size": 2,
        "temporal_patch_size": 2, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
        "size": {"longest_edge": 16_777_216, "shortest_edge": 65_536}, "processor_class": "Qwen3VLProcessor",
    });
    let folder = tempfile::tempdir().unwrap();
    let read = |keys: &serde_json::Value| {
        let path = folder.path().join("preprocessor_config.json");
        std::fs::write(path, keys.to_string()).unwrap();
        PreprocessorConfig::load(folder.path(), PictureDefaults::Clip)
    };
    let config = read(&keys).unwrap().unwrap();
    assert_eq!(config.mean, [0.5; 3]);
    assert_eq!(config.resample, Resample::Bicubic);
    let range = PixelRange {
        least: 65_536,
        most: 16_777_216,
        factor: 32,
    };
    assert_eq!(config.resize, Some(Resize::Within(range)));
    assert_eq!(config.output_size(), None);
    assert_eq!(read(&config.to_json()).unwrap().unwrap(), config);
    assert_eq!(config.squared(448).output_size(), Some((448, 448)));
    let mut old = keys.clone();
    (old["min_pixels"], old["max_pixels"]) = (json!(4), json!(40_000));
    let config = read(&old).unwrap().unwrap();
    assert_eq!(config.squared(448).output_size(), Some((192, 192)));
    for (key, value) in [
        ("max_pixels", json!(-3)),
        ("min_pixels", json!(50_000)),
        ("patch_size", json!(0)),
        ("do_center_crop", json!(true)),
    ] {
        let mut wrong = old.clone();
        wrong[key] = value;
        assert!(read(&wrong).is_err(), "{key}");
    }
}

/// What `smart_resize` of transformers gives 600 sizes, small and large, long and halfway between two multiples.
#[test]
fn sizes_are_those_of_smart_resize() {
    let table = fs::read(here("../../tests/golden/images/smart_resize.json")).unwrap();
    let table: Vec<[u32; 7]> = serde_json::from_slice(&table).unwrap();
    assert_eq!(table.len(), 600);
    let mut refused = 0;
    for row in table {
        let [height, width, factor, least, most, high, wide] = row;
        let range = PixelRange {
            least,
            most,
            factor,
        };
        let preprocessor = ImagePreprocessor::of_own_sizes(PreprocessorConfig::clip(8), range);
        if high == 0 {
            let picture = RgbImage::new(width, height);
            let problem = preprocessor.check(&picture).unwrap_err();
            assert!(problem.message.contains("200 times"), "{problem:?}");
            refused += 1;
            continue;
        }
        let size = [high, wide].map(|side| side as usize);
        assert_eq!(preprocessor.output_size(height, width), size, "{row:?}");
    }
    assert!(refused > 5, "{refused}");
}

/// A picture one side of which is 200 times the other is the last that is read.
#[test]
fn pictures_may_be_long_but_not_too_long() {
    let range = PixelRange::usual(8);
    let preprocessor = ImagePreprocessor::of_own_sizes(PreprocessorConfig::clip(8), range);
    let check = |width, height| preprocessor.check(&RgbImage::new(width, height));
    assert!(check(600, 3).is_ok() && check(3, 600).is_ok());
    for (width, height) in [(601, 3), (3, 601)] {
        let problem = check(width, height).unwrap_err();
        assert!(problem.mend.contains("model.vision.grid"), "{problem:?}");
    }
    assert_eq!(preprocessor.blank_size(), [8, 8]);
    assert_eq!(range.most_squares(), 1280);
    assert_eq!(range.at_most(200).least, 200);
}

/// A file that names no processor means its model's; one that does is believed.
#[test]
fn a_file_without_a_processor_means_that_of_its_model() {
    let read = |config: serde_json::Value, family| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("preprocessor_config.json");
        fs::write(path, config.to_string()).unwrap();
        PreprocessorConfig::load(folder.path(), family)
            .unwrap()
            .unwrap()
    };
    let plain = json!({"size": 48});
    let squeezed = Some(Resize::Exact(48, 48));
    assert_eq!(read(plain.clone(), PictureDefaults::Vit).resize, squeezed);
    assert_eq!(read(plain.clone(), PictureDefaults::Blip).resize, squeezed);
    let edge = Some(Resize::ShortestEdge(48));
    assert_eq!(read(plain.clone(), PictureDefaults::Dinov2).resize, edge);
    assert_eq!(read(plain, PictureDefaults::Clip).resize, edge);
    let named = json!({"size": 48, "image_processor_type": "ViTImageProcessor"});
    assert_eq!(read(named, PictureDefaults::Clip).resize, squeezed);
    // From scratch, DINOv2's pictures keep the proportions of its own, 256 to 224.
    let usual = PreprocessorConfig::usual(PictureDefaults::Dinov2, 56);
    assert_eq!(usual.resize, Some(Resize::ShortestEdge(64)));
    assert_eq!(usual.crop, Some((56, 56)));
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let cases = [
        (json!({"resample": 0}), "resample"),
        (json!({"resample": "bicubic"}), "resample"),
        (json!({"do_pad": true}), "do_pad"),
        (json!({"do_convert_rgb": false}), "do_convert_rgb"),
        (json!({"do_thumbnail": true}), "do_thumbnail"),
        (json!({"crop_pct": 0.9}), "crop_pct"),
        (
            json!({"size": {"shortest_edge": 224, "longest_edge": 300}}),
            "longest_edge",
        ),
        (json!({"size": 0}), "size"),
        (json!({"crop_size": {"height": 224}}), "crop_size"),
        (
            json!({"image_processor_type": "LevitImageProcessor"}),
            "LevitImageProcessor",
        ),
        (json!({"image_mean": [0.5, 0.5]}), "image_mean"),
        (json!({"image_std": [0.5, 0.0, 0.5]}), "image_std"),
        (json!({"do_resize": 1}), "do_resize"),
        (json!({"data_format": "channels_last"}), "data_format"),
        // The vision encoder reads 224 × 224.
        (json!({"crop_size": 336}), "336"),
        (json!({"crop_size": {"height": 224, "width": 200}}), "200"),
        (json!({"do_center_crop": false}), "any size"),
        (json!([]), "object"),
    ];
    for (config, named) in cases {
        let message = loaded(&config, 224).unwrap_err();
        assert!(message.contains(named), "{config}: {message}");
    }
}

#[test]
fn squares_of_other_sides_keep_the_margin_and_the_mode() {
    use ResizeMode::{Shortest, Squash};
    let dinov2 = PreprocessorConfig::usual(PictureDefaults::Dinov2, 224);
    let siglip = PreprocessorConfig::usual(PictureDefaults::Siglip, 224);
    let (edge, exact) = (Resize::ShortestEdge, |side| Resize::Exact(side, side));
    for (config, side, mode, resize, crop) in [
        (&dinov2, None, None, edge(256), Some(224)),
        (&dinov2, Some(112), None, edge(128), Some(112)),
        (&dinov2, Some(112), Some(Shortest), edge(128), Some(112)),
        (&dinov2, None, Some(Squash), exact(224), None),
        (&dinov2, Some(112), Some(Squash), exact(112), None),
        (&siglip, Some(112), None, exact(112), None),
        (&siglip, None, Some(Shortest), edge(224), Some(224)),
        (&siglip, Some(448), Some(Shortest), edge(448), Some(448)),
    ] {
        let resized = config.clone().resized(side, mode);
        assert_eq!(resized.resize, Some(resize), "{config:?} {side:?} {mode:?}");
        let square = crop.map(|side| (side, side));
        assert_eq!(resized.crop, square, "{config:?} {side:?} {mode:?}");
    }
    let cut_only = PreprocessorConfig {
        resize: None,
        ..PreprocessorConfig::clip(8)
    };
    let smaller = cut_only.clone().resized(Some(4), None);
    assert_eq!((smaller.resize, smaller.crop), (None, Some((4, 4))));
}
