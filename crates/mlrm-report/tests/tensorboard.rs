//! Event files are read back: by a reader of our own, and by TensorBoard's where it is installed.

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use mlrm_events::{Event, EventSink, RunStarted, Stamped};
use mlrm_report::tensorboard::TensorBoardWriter;
use support::{Shape, embedding_probe, run, skipped};

/// The fields of a protocol buffer: number → values.
#[derive(Debug, Default)]
struct Fields(BTreeMap<u64, Vec<Field>>);

#[derive(Debug, Clone)]
enum Field {
    Integer(u64),
    Bytes(Vec<u8>),
    Double(f64),
    Float(f32),
}

impl Fields {
    fn parse(mut data: &[u8]) -> Self {
        fn varint(data: &mut &[u8]) -> u64 {
            let mut value = 0;
            for shift in (0..).step_by(7) {
                let byte = data[0];
                *data = &data[1..];
                value |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
            }
            value
        }
        let mut fields = Fields::default();
        while !data.is_empty() {
            let key = varint(&mut data);
            let value = match key & 7 {
                0 => Field::Integer(varint(&mut data)),
                1 => {
                    let (value, rest) = data.split_at(8);
                    data = rest;
                    Field::Double(f64::from_le_bytes(value.try_into().unwrap()))
                }
                2 => {
                    let length = varint(&mut data) as usize;
                    let (value, rest) = data.split_at(length);
                    data = rest;
                    Field::Bytes(value.to_vec())
                }
                5 => {
                    let (value, rest) = data.split_at(4);
                    data = rest;
                    Field::Float(f32::from_le_bytes(value.try_into().unwrap()))
                }
                wire => panic!("wire type {wire}"),
            };
            fields.0.entry(key >> 3).or_default().push(value);
        }
        fields
    }

    fn integer(&self, number: u64) -> u64 {
        match self.0[&number][0] {
            Field::Integer(value) => value,
            ref other => panic!("{other:?}"),
        }
    }

    fn double(&self, number: u64) -> f64 {
        match self.0[&number][0] {
            Field::Double(value) => value,
            ref other => panic!("{other:?}"),
        }
    }

    fn float(&self, number: u64) -> f32 {
        match self.0[&number][0] {
            Field::Float(value) => value,
            ref other => panic!("{other:?}"),
        }
    }

    fn bytes(&self, number: u64) -> &[u8] {
        match &self.0[&number][0] {
            Field::Bytes(value) => value,
            other => panic!("{other:?}"),
        }
    }

    fn messages(&self, number: u64) -> Vec<Fields> {
        let message = |field: &Field| match field {
            Field::Bytes(value) => Fields::parse(value),
            other => panic!("{other:?}"),
        };
        self.0
            .get(&number)
            .map_or(Vec::new(), |fields| fields.iter().map(message).collect())
    }
}

/// CRC-32C bit by bit: the naive oracle of the writer's table.
fn masked_crc32c(data: &[u8]) -> u32 {
    let mut checksum = !0_u32;
    for byte in data {
        checksum ^= u32::from(*byte);
        for _ in 0..8 {
            checksum = (checksum >> 1) ^ (0x82f6_3b78 & 0_u32.wrapping_sub(checksum & 1));
        }
    }
    (!checksum).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The events of a file, checksums checked.
fn read(path: &Path) -> Vec<Fields> {
    let bytes = std::fs::read(path).unwrap();
    let mut rest = bytes.as_slice();
    let mut events = Vec::new();
    while !rest.is_empty() {
        let (length, after) = rest.split_at(8);
        let (checksum, after) = after.split_at(4);
        assert_eq!(checksum, masked_crc32c(length).to_le_bytes());
        let (data, after) = after.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
        let (checksum, after) = after.split_at(4);
        assert_eq!(checksum, masked_crc32c(data).to_le_bytes());
        events.push(Fields::parse(data));
        rest = after;
    }
    events
}

fn written(folder: &Path) -> (Vec<Stamped>, std::path::PathBuf) {
    let shape = Shape {
        steps: 60,
        total_steps: 100,
        every: 20,
        ..Shape::default()
    };
    let mut events = run(shape);
    events.extend([20, 40].map(embedding_probe));
    let mut writer = TensorBoardWriter::create(folder).unwrap();
    events.iter().for_each(|event| writer.emit(event).unwrap());
    (events, writer.path().to_owned())
}

#[test]
fn files_are_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let (events, path) = written(folder.path());
    let read = read(&path);
    assert_eq!(read[0].bytes(3), b"brain.Event:2");

    let mut scalars: BTreeMap<(String, u64), f32> = BTreeMap::new();
    let (mut histograms, mut pictures) = (Vec::new(), Vec::new());
    for event in &read[1..] {
        let step = event.integer(2);
        for summary in event.messages(5) {
            for value in summary.messages(1) {
                let tag = String::from_utf8(value.bytes(1).to_vec()).unwrap();
                if value.0.contains_key(&2) {
                    scalars.insert((tag, step), value.float(2));
                } else if value.0.contains_key(&5) {
                    histograms.push((step, value.messages(5).remove(0)));
                } else {
                    pictures.push((step, value.messages(4).remove(0)));
                }
            }
        }
    }
    for stamped in &events {
        match &stamped.event {
            Event::TrainStep(step) => {
                let of = |tag: &str| scalars[&(tag.to_owned(), step.step)];
                assert_eq!(of("train/loss"), step.loss as f32);
                assert_eq!(of("train/loss_visual"), step.loss_visual.unwrap() as f32);
                assert_eq!(of("seconds/backward"), 0.52);
            }
            Event::Evaluation(evaluation) => {
                let of = |tag: &str| scalars[&(tag.to_owned(), evaluation.step)];
                let recall = evaluation.slices["short_query"]["recall@10"];
                assert_eq!(of("validation_short_query/recall@10"), recall as f32);
                assert_eq!(of("validation_baseline_bm25/recall@10"), 0.0253);
            }
            Event::EmbeddingProbe(probe) => {
                let of = |tag: &str| scalars[&(tag.to_owned(), probe.step)];
                assert_eq!(of("probe/effective_rank"), probe.effective_rank as f32);
                assert_eq!(
                    of("probe/picture_share"),
                    probe.picture_share.unwrap() as f32
                );
            }
            Event::GateHistogram(gate) => {
                let (_, histogram) = histograms
                    .iter()
                    .find(|(step, _)| *step == gate.step)
                    .unwrap();
                let total: u64 = gate.counts.iter().sum();
                assert_eq!(histogram.double(3), total as f64);
                let doubles = |bytes: &[u8]| -> Vec<f64> {
                    bytes
                        .chunks(8)
                        .map(|b| f64::from_le_bytes(b.try_into().unwrap()))
                        .collect()
                };
                let counts: Vec<u64> = doubles(histogram.bytes(7))
                    .iter()
                    .map(|count| *count as u64)
                    .collect();
                assert_eq!(counts, gate.counts);
                assert_eq!(doubles(histogram.bytes(6)).last(), Some(&1.0));
            }
            Event::Saliency(saliency) => {
                let (_, picture) = pictures
                    .iter()
                    .find(|(step, _)| *step == saliency.step)
                    .unwrap();
                let image = image::load_from_memory(picture.bytes(4)).unwrap();
                assert_eq!(u64::from(image.height()), picture.integer(1));
                assert_eq!(u64::from(image.width()), picture.integer(2));
                assert_eq!(image.width(), 24 * saliency.layers.len() as u32);
            }
            _ => {}
        }
    }
    assert_eq!((histograms.len(), pictures.len()), (3, 3));
    assert!(
        !scalars.keys().any(|(tag, _)| tag.contains(":low")),
        "bounds are no curves"
    );
}

/// Prints what TensorBoard's own reader finds, one `tag step value` a line.
const PYTHON: &str = r#"
import sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0, "images": 0, "histograms": 0})
events.Reload()
tags = events.Tags()
for tag in tags["scalars"]:
    for event in events.Scalars(tag):
        print("scalar", tag, event.step, repr(event.value))
for tag in tags["histograms"]:
    for event in events.Histograms(tag):
        print("histogram", tag, event.step, sum(event.histogram_value.bucket))
for tag in tags["images"]:
    for event in events.Images(tag):
        print("image", tag, event.step, f"{event.width}x{event.height}")
"#;

#[test]
fn tensorboard_reads_them() {
    let python = std::env::var("MLRM_PYTHON").unwrap_or_else(|_| "python3".into());
    let has_tensorboard = Command::new(&python)
        .args(["-c", "import tensorboard"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !has_tensorboard {
        let why =
            format!("{python} has no tensorboard package (MLRM_PYTHON names another interpreter)");
        skipped("tensorboard_reads_them", "tensorboard", &why);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (events, _) = written(folder.path());
    let output = Command::new(&python)
        .args(["-c", PYTHON])
        .arg(folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let Event::TrainStep(first) = &events[1].event else {
        panic!("no step")
    };
    let loss = text
        .lines()
        .find_map(|line| line.strip_prefix("scalar train/loss 1 "))
        .and_then(|value| value.parse::<f64>().ok());
    assert_eq!(loss.map(|loss| loss as f32), Some(first.loss as f32));
    let count = |kind: &str| text.lines().filter(|line| line.starts_with(kind)).count();
    assert_eq!(
        (
            count("histogram gate"),
            count("image saliency/abs_then_sum")
        ),
        (3, 3)
    );
    assert!(text.contains("288x72"), "{text}");
}

#[test]
fn a_resumed_run_voids_what_was_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = TensorBoardWriter::create(folder.path()).unwrap();
    let resumed = RunStarted {
        resumed_from_step: Some(200),
        ..RunStarted::default()
    };
    writer
        .emit_now(Event::RunStarted(Box::new(resumed)))
        .unwrap();
    let events = read(writer.path());
    assert_eq!(
        events[1].integer(2),
        201,
        "void from the step after the checkpoint"
    );
    assert_eq!(events[1].messages(7)[0].integer(1), 1, "SessionLog.START");
}
