//! The parts of `tensorflow.Event` (tensorboard/compat/proto: event.proto, summary.proto) that are
//! written, in protocol buffer encoding.

/// A value of a summary.
pub(super) enum Value {
    Scalar { tag: String, value: f32 },
    Histogram { tag: String, histogram: Histogram },
    Picture { tag: String, picture: Picture },
}

/// `HistogramProto`.
pub(super) struct Histogram {
    min: f64,
    max: f64,
    num: f64,
    sum: f64,
    sum_squares: f64,
    /// Right edges of the buckets.
    limits: Vec<f64>,
    buckets: Vec<f64>,
}

/// `Summary.Image`, as PNG.
pub(super) struct Picture {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) png: Vec<u8>,
}

impl Histogram {
    /// Equal bins over [0, 1]; sums take each value at its bin's middle.
    pub(super) fn over_unit_interval(counts: &[u64]) -> Self {
        let width = 1.0 / counts.len() as f64;
        let buckets: Vec<f64> = counts.iter().map(|&count| count as f64).collect();
        let middles = (0..counts.len()).map(|bin| (bin as f64 + 0.5) * width);
        let moment = |power: i32| {
            middles
                .clone()
                .zip(&buckets)
                .map(|(middle, count)| middle.powi(power) * count)
                .sum()
        };
        let first = counts.iter().position(|&count| count > 0).unwrap_or(0);
        let last = counts
            .iter()
            .rposition(|&count| count > 0)
            .unwrap_or(counts.len() - 1);
        Self {
            min: first as f64 * width,
            max: (last + 1) as f64 * width,
            num: moment(0),
            sum: moment(1),
            sum_squares: moment(2),
            limits: (1..=counts.len()).map(|edge| edge as f64 * width).collect(),
            buckets,
        }
    }
}

/// The first event of a file.
pub(super) fn file_version(wall_time: f64) -> Vec<u8> {
    let mut event = Message::default();
    event.double(1, wall_time);
    event.bytes(3, b"brain.Event:2");
    event.0
}

/// `SessionLog.START`: what was written for `step` and later is void.
pub(super) fn session_start(wall_time: f64, step: u64) -> Vec<u8> {
    let mut session = Message::default();
    session.integer(1, 1);
    let mut event = Message::default();
    event.double(1, wall_time);
    event.integer(2, step);
    event.bytes(7, &session.0);
    event.0
}

/// Values of one step.
pub(super) fn summary(wall_time: f64, step: u64, values: &[Value]) -> Vec<u8> {
    let mut summary = Message::default();
    for value in values {
        summary.bytes(1, &encoded(value));
    }
    let mut event = Message::default();
    event.double(1, wall_time);
    event.integer(2, step);
    event.bytes(5, &summary.0);
    event.0
}

fn encoded(value: &Value) -> Vec<u8> {
    let mut message = Message::default();
    match value {
        Value::Scalar { tag, value } => {
            message.bytes(1, tag.as_bytes());
            message.float(2, *value);
        }
        Value::Picture { tag, picture } => {
            let mut image = Message::default();
            image.integer(1, u64::from(picture.height));
            image.integer(2, u64::from(picture.width));
            // Colour space: RGB.
            image.integer(3, 3);
            image.bytes(4, &picture.png);
            message.bytes(1, tag.as_bytes());
            message.bytes(4, &image.0);
        }
        Value::Histogram { tag, histogram } => {
            let mut inner = Message::default();
            inner.double(1, histogram.min);
            inner.double(2, histogram.max);
            inner.double(3, histogram.num);
            inner.double(4, histogram.sum);
            inner.double(5, histogram.sum_squares);
            inner.doubles(6, &histogram.limits);
            inner.doubles(7, &histogram.buckets);
            message.bytes(1, tag.as_bytes());
            message.bytes(5, &inner.0);
        }
    }
    message.0
}

/// A protocol buffer under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    const VARINT: u64 = 0;
    const FIXED64: u64 = 1;
    const LENGTH: u64 = 2;
    const FIXED32: u64 = 5;

    fn key(&mut self, field: u64, wire: u64) {
        self.varint(field << 3 | wire);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn integer(&mut self, field: u64, value: u64) {
        self.key(field, Self::VARINT);
        self.varint(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.key(field, Self::FIXED64);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn float(&mut self, field: u64, value: f32) {
        self.key(field, Self::FIXED32);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.key(field, Self::LENGTH);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    fn doubles(&mut self, field: u64, values: &[f64]) {
        let packed: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.bytes(field, &packed);
    }
}
