//! Values between number formats, layouts and tables of words.

use super::*;

/// `values` as stored bytes, and what they are when read back.
fn stored(values: &[f32], dtype: Dtype) -> (Vec<u8>, Vec<f32>) {
    match dtype {
        Dtype::F32 => {
            let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            (bytes, values.to_vec())
        }
        Dtype::F64 => {
            let bytes = values.iter().flat_map(|&v| f64::from(v).to_le_bytes());
            (bytes.collect(), values.to_vec())
        }
        Dtype::BF16 => {
            let halves: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
            let bytes = halves.iter().flat_map(|v| v.to_le_bytes()).collect();
            (bytes, halves.iter().map(|v| v.to_f32()).collect())
        }
        _ => {
            let halves: Vec<f16> = values.iter().map(|&v| f16::from_f32(v)).collect();
            let bytes = halves.iter().flat_map(|v| v.to_le_bytes()).collect();
            (bytes, halves.iter().map(|v| v.to_f32()).collect())
        }
    }
}

fn rounded(value: f32, dtype: DType) -> f32 {
    match dtype {
        DType::BF16 => bf16::from_f32(value).to_f32(),
        DType::F16 => f16::from_f32(value).to_f32(),
        _ => value,
    }
}

fn read_f32(data: TensorData) -> Vec<f32> {
    let data = data.try_cast_as::<f32>().expect("floats");
    data.try_into_vec().expect("f32")
}

#[test]
fn conversion_agrees_with_a_naive_one() {
    let shapes = [
        [1, 1],
        [1, 7],
        [9, 1],
        [64, 64],
        [63, 65],
        [130, 200],
        [0, 3],
        [3, 0],
    ];
    for [rows, columns] in shapes {
        let count = rows * columns;
        for from in [Dtype::F32, Dtype::F64, Dtype::BF16, Dtype::F16] {
            let (bytes, read) = stored(&values(count), from);
            for dtype in [DType::F32, DType::BF16, DType::F16] {
                for transposed in [false, true] {
                    let released = Mutex::new(0);
                    let source = Source {
                        bytes: &bytes,
                        dtype: from,
                        shape: &[rows, columns],
                        release: &|part| *released.lock().expect("a lock") += part.len(),
                    };
                    let wanted = Wanted {
                        dtype,
                        transposed,
                        new_rows: None,
                    };
                    let converted = convert(&source, &wanted).expect("floats");
                    let shape = if transposed {
                        [columns, rows]
                    } else {
                        [rows, columns]
                    };
                    assert_eq!(converted.data.shape().to_vec(), shape);
                    assert_eq!(converted.data.dtype(), dtype);
                    assert_eq!(converted.not_finite, 0);
                    assert_eq!(*released.lock().expect("a lock"), bytes.len());
                    let expected: Vec<f32> = (0..count)
                        .map(|i| match transposed {
                            true => read[(i % rows) * columns + i / rows],
                            false => read[i],
                        })
                        .map(|value| rounded(value, dtype))
                        .collect();
                    assert_eq!(read_f32(converted.data), expected, "{from:?} {dtype:?}");
                }
            }
        }
    }
}

#[test]
fn equal_formats_keep_every_bit_and_damage_is_counted() {
    // A signalling NaN with a payload, infinity, a denormal.
    let patterns: [u16; 4] = [0x7f91, 0xff80, 0x0001, 0x3f80];
    let bytes: Vec<u8> = patterns.iter().flat_map(|p| p.to_le_bytes()).collect();
    let source = Source {
        bytes: &bytes,
        dtype: Dtype::BF16,
        shape: &[4],
        release: &|_| {},
    };
    let plain = |dtype| Wanted {
        dtype,
        transposed: false,
        new_rows: None,
    };
    let same = convert(&source, &plain(DType::BF16)).expect("floats");
    assert_eq!(same.data.bytes().to_vec(), bytes);
    assert_eq!(same.not_finite, 2);

    let bytes: Vec<u8> = [1.0f32, 70_000.0]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    let source = Source {
        bytes: &bytes,
        dtype: Dtype::F32,
        shape: &[2],
        release: &|_| {},
    };
    assert_eq!(
        convert(&source, &plain(DType::F32))
            .expect("floats")
            .not_finite,
        0
    );
    // Beyond the range of f16.
    assert_eq!(
        convert(&source, &plain(DType::F16))
            .expect("floats")
            .not_finite,
        1
    );

    let source = Source {
        bytes: &[0; 8],
        dtype: Dtype::I64,
        shape: &[1],
        release: &|_| {},
    };
    assert!(convert(&source, &plain(DType::F32)).is_none());
}

#[test]
fn new_rows_are_the_mean_of_the_known_ones() {
    let (rows, width) = (700, 130);
    let (bytes, read) = stored(&values(rows * width), Dtype::BF16);
    let source = Source {
        bytes: &bytes,
        dtype: Dtype::BF16,
        shape: &[rows, width],
        release: &|_| {},
    };
    // Row 650 is new in the padding, 660 to 699 are padding that stays, 700 and 701 are new behind it.
    let new = NewRows {
        stored_rows: rows,
        known_rows: 660,
        ids: vec![650, 700, 701],
    };
    assert_eq!(new.rows(), 702);
    let wanted = Wanted {
        dtype: DType::F32,
        transposed: false,
        new_rows: Some(&new),
    };
    let table = read_f32(convert(&source, &wanted).expect("floats").data);
    assert_eq!(table.len(), 702 * width);
    for column in 0..width {
        let known = (0..660).filter(|&row| row != 650);
        let sum: f64 = known.map(|row| f64::from(read[row * width + column])).sum();
        let mean = (sum / 659.0) as f32;
        for row in 0..702 {
            let value = table[row * width + column];
            match row {
                650 | 700 | 701 => {
                    assert!((value - mean).abs() <= mean.abs() * 1e-6, "{value} {mean}")
                }
                _ => assert_eq!(value, read[row * width + column]),
            }
        }
    }
}
