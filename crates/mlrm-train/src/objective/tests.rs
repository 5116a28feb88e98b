use burn::tensor::Device;

use super::*;
use crate::memory::peak_resident_bytes;

/// The loss of method §3 with shares, written out note by note.
fn naive<R: AsRef<[f64]>>(
    kind: ObjectiveKind,
    e: &[R],
    t: f64,
    excluded: &[bool],
    log_q: &[f64],
) -> f64 {
    let notes = e.len();
    let pairs = notes / 2;
    let logit = |row: usize, column: usize| {
        let pairs = e[row].as_ref().iter().zip(e[column].as_ref());
        pairs.map(|(a, b)| a * b).sum::<f64>() * t.exp() - log_q[column]
    };
    let row_loss = |row: usize| {
        let partner = (row + pairs) % notes;
        let candidate = |column: &usize| {
            let other_side = (*column < pairs) != (row < pairs);
            !excluded[row * notes + column] && (kind == ObjectiveKind::OneTower || other_side)
        };
        let sum: f64 = (0..notes)
            .filter(candidate)
            .map(|c| logit(row, c).exp())
            .sum();
        sum.ln() - logit(row, partner)
    };
    (0..notes).map(row_loss).sum::<f64>() / notes as f64
}

fn objective(kind: ObjectiveKind, [multimodal_weight, visual_weight]: [f64; 2]) -> Objective {
    Objective {
        kind,
        multimodal_weight,
        visual_weight,
        prefixes: Vec::new(),
    }
}

/// Multimodal embeddings alone.
fn alone(multimodal: Tensor<2>) -> Embeddings {
    Embeddings {
        multimodal,
        visual: None,
        gate: None,
    }
}

/// The loss of leading dimensions is that of embeddings that have no more; its gradient against differences
/// of the written-out loss.
#[test]
fn leading_dimensions_are_embeddings_of_their_own() {
    let (notes, width, t) = (6, 4, 1.2);
    let value = |n: usize| ((n * 7919 + 13) % 1000) as f64 / 500.0 - 1.0;
    let unit = |row: &[f64]| -> Vec<f64> {
        let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        row.iter().map(|x| x / norm).collect()
    };
    let start: Vec<f64> = (0..notes)
        .flat_map(|row| {
            unit(
                &(0..width)
                    .map(|n| value(row * width + n))
                    .collect::<Vec<_>>(),
            )
        })
        .collect();
    let excluded: Vec<bool> = (0..notes * notes).map(|n| n / notes == n % notes).collect();
    let prefixes = [(2, 0.5), (1, 2.0), (4, 1.0)];
    for kind in [ObjectiveKind::OneTower, ObjectiveKind::Dual] {
        // Of `values` as they are: the whole is taken as normalised.
        let written_out = |values: &[f64]| -> f64 {
            let loss = |dim: usize| {
                let rows: Vec<Vec<f64>> = values
                    .chunks_exact(width)
                    .map(|row| {
                        if dim == width {
                            row.to_vec()
                        } else {
                            unit(&row[..dim])
                        }
                    })
                    .collect();
                naive(kind, &rows, t, &excluded, &[0.0; 6])
            };
            let sum: f64 = prefixes
                .iter()
                .map(|&(dim, weight)| weight * loss(dim))
                .sum();
            sum / 3.5
        };
        let objective = Objective {
            kind,
            multimodal_weight: 1.0,
            visual_weight: 0.0,
            // The whole counts without being listed.
            prefixes: prefixes[..2]
                .iter()
                .map(|&(dim, weight)| Prefix { dim, weight })
                .collect(),
        };
        let device = Device::flex();
        let flat: Vec<f32> = start.iter().map(|&x| x as f32).collect();
        let embeddings = alone(Tensor::from_data(
            TensorData::new(flat, [notes, width]),
            &device,
        ));
        let exclusions = Exclusions::diagonal(notes);
        let logit = Tensor::from_data([t as f32], &device)
            .autodiff()
            .require_grad();
        let (losses, gradients) =
            objective.backward(&embeddings, logit.clone(), &exclusions, 4, &mut |_| ());
        let expected = written_out(&start);
        let direct = objective
            .losses(&embeddings, logit.inner(), &exclusions)
            .total;
        for found in [losses.total, direct] {
            let found = f64::from(found.into_scalar::<f32>());
            assert!(
                (found - expected).abs() < 1e-5,
                "{kind:?}: {found}, {expected}"
            );
        }
        let gradients = gradients.multimodal.try_into_vec_as::<f32>().unwrap();
        for (place, found) in gradients.into_iter().enumerate() {
            let moved = |by: f64| {
                let mut values = start.clone();
                values[place] += by;
                written_out(&values)
            };
            let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            let difference = (f64::from(found) - expected).abs();
            assert!(difference < 1e-4, "{kind:?}, {place}: {found}, {expected}");
        }
    }
}

/// Notes without a picture are as if they and their partners were not in the visual loss: what is
/// left of the batch has the loss and the gradients that it has alone.
#[test]
fn notes_without_a_picture_take_no_part_in_the_visual_loss() {
    let angles = [0.1_f32, 0.9, 2.0, 0.3, 1.4, 2.2];
    let device = Device::flex().autodiff();
    let rows = |rows: &[usize]| -> Tensor<2> {
        let values = rows
            .iter()
            .flat_map(|&row| [angles[row].cos(), angles[row].sin()]);
        let data = TensorData::new(values.collect::<Vec<f32>>(), [rows.len(), 2]);
        Tensor::from_data(data, &device).require_grad()
    };
    for kind in [ObjectiveKind::OneTower, ObjectiveKind::Dual] {
        let objective = objective(kind, [0.0, 1.0]);
        let run = |which: &[usize], by_text: Vec<bool>| {
            let visual = rows(which);
            let embeddings = Embeddings {
                multimodal: rows(which),
                visual: Some(visual.clone()),
                gate: None,
            };
            let exclusions = Exclusions::diagonal(which.len()).without_pictures(by_text);
            let t = Tensor::from_data([1.5_f32], &device);
            let losses = objective.losses(&embeddings, t, &exclusions);
            let loss = losses.visual.unwrap();
            let gradients = loss.backward();
            let gradient = visual.grad(&gradients).unwrap();
            (
                loss.into_scalar::<f32>(),
                gradient.try_into_vec_as::<f32>().unwrap(),
            )
        };
        // Pairs are (0, 3), (1, 4), (2, 5): the second has a note without a picture.
        let by_text = vec![false, false, false, false, true, false];
        let (found, gradient) = run(&[0, 1, 2, 3, 4, 5], by_text);
        assert!(
            gradient[8..10].iter().all(|&value| value == 0.0),
            "{kind:?}"
        );
        // Note 1 is a candidate of the others still: compare with a batch that has it alone.
        let mut both = vec![false; 6];
        (both[1], both[4]) = (true, true);
        let (without, gradient) = run(&[0, 1, 2, 3, 4, 5], both);
        let (alone, expected) = run(&[0, 2, 3, 5], Vec::new());
        assert!(
            (without - alone).abs() < 1e-6,
            "{kind:?}: {without}, {alone}"
        );
        for (place, row) in [0, 2, 3, 5].into_iter().enumerate() {
            for axis in 0..2 {
                let difference = gradient[2 * row + axis] - expected[2 * place + axis];
                assert!(difference.abs() < 1e-6, "{kind:?}: {difference}");
            }
        }
        assert!(found > without, "{kind:?}: {found}, {without}");
        let (none, gradient) = run(&[0, 1, 2, 3, 4, 5], vec![true; 6]);
        assert!(none == 0.0 && gradient.iter().all(|&value| value == 0.0));
    }
}

#[test]
fn shares_are_taken_off_the_logits_of_candidates() {
    let angles = [0.1_f64, 0.9, 2.0, 0.3, 1.4, 2.2];
    let e = angles.map(|angle| [angle.cos(), angle.sin()]);
    let log_q = [-2.0, -1.0, -3.5, -0.5, -2.5, -4.0];
    let exclusions = Exclusions::false_negatives(&[7, 1, 7, 2, 3, 4], |note| match note {
        1 => [4].as_slice(),
        _ => &[],
    });
    let excluded: Vec<bool> = (0..36).map(|n| exclusions.excludes(n / 6, n % 6)).collect();
    let device = Device::flex();
    let flat: Vec<f32> = e.iter().flatten().map(|&x| x as f32).collect();
    let multimodal = Tensor::from_data(TensorData::new(flat, [6, 2]), &device);
    for kind in [ObjectiveKind::OneTower, ObjectiveKind::Dual] {
        let objective = objective(kind, [1.0, 0.0]);
        let loss = |exclusions: &Exclusions| -> f64 {
            let embeddings = alone(multimodal.clone());
            let t = Tensor::from_data([1.5_f32], &device);
            let losses = objective.losses(&embeddings, t, exclusions);
            f64::from(losses.total.into_scalar::<f32>())
        };
        let corrected = exclusions
            .clone()
            .corrected(log_q.map(|x| x as f32).to_vec());
        for (found, log_q) in [(loss(&exclusions), [0.0; 6]), (loss(&corrected), log_q)] {
            let expected = naive(kind, &e, 1.5, &excluded, &log_q);
            assert!(
                (found - expected).abs() < 1e-5,
                "{kind:?}: {found}, {expected}"
            );
        }
    }
}

/// Rows at a time give the losses and the gradients of all at once, whatever divides whom.
#[test]
fn rows_at_a_time_are_all_rows() {
    let (notes, width) = (22, 5);
    let device = Device::flex();
    let values = |seed: usize| {
        let value = |n: usize| ((n * 7919 + seed * 104_729) % 1000) as f32 / 500.0 - 1.0;
        let data = TensorData::new(
            (0..notes * width).map(value).collect::<Vec<_>>(),
            [notes, width],
        );
        let all = Tensor::<2>::from_data(data, &device);
        let norms = all.clone().powi_scalar(2).sum_dim(1).sqrt();
        all / norms
    };
    let embeddings = Embeddings {
        multimodal: values(1),
        visual: Some(values(2)),
        gate: None,
    };
    let ids: Vec<u32> = (0..notes as u32).map(|n| n * n % 17).collect();
    let exclusions =
        Exclusions::false_negatives(&ids, |note| if note == 4 { [1, 9].as_slice() } else { &[] })
            .corrected((0..notes).map(|n| -(n as f32) / 9.0).collect())
            .without_pictures((0..notes).map(|n| n % 6 == 1).collect());
    for kind in [ObjectiveKind::OneTower, ObjectiveKind::Dual] {
        let objective = objective(kind, [9.0, 1.0]);
        let run = |rows: usize| -> Vec<f32> {
            let t = Tensor::from_data([3.0_f32], &device)
                .autodiff()
                .require_grad();
            let mut of_t = 0.0;
            let mut others = |gradients: Gradients| {
                of_t += t.grad(&gradients).unwrap().into_scalar::<f32>();
            };
            let (losses, gradients) =
                objective.backward(&embeddings, t.clone(), &exclusions, rows, &mut others);
            let flat = |all: Tensor<2>| all.try_into_vec_as::<f32>().unwrap();
            let mut all = flat(gradients.multimodal);
            all.extend(flat(gradients.visual.unwrap()));
            let numbers = [losses.total, losses.multimodal, losses.visual.unwrap()];
            all.extend(numbers.map(|number| number.into_scalar::<f32>()));
            all.push(of_t);
            all
        };
        // The graph of all rows at once, by the other way.
        let leaf = |e: &Tensor<2>| e.clone().autodiff().require_grad();
        let leaves = Embeddings {
            multimodal: leaf(&embeddings.multimodal),
            visual: embeddings.visual.as_ref().map(leaf),
            gate: None,
        };
        let t = Tensor::from_data([3.0_f32], &device)
            .autodiff()
            .require_grad();
        let losses = objective.losses(&leaves, t.clone(), &exclusions);
        let gradients = losses.total.backward();
        let flat = |all: Tensor<2>| {
            all.grad(&gradients)
                .unwrap()
                .try_into_vec_as::<f32>()
                .unwrap()
        };
        let mut expected = flat(leaves.multimodal);
        expected.extend(flat(leaves.visual.unwrap()));
        let numbers = [losses.total, losses.multimodal, losses.visual.unwrap()];
        expected.extend(numbers.map(|number| number.inner().into_scalar::<f32>()));
        expected.push(t.grad(&gradients).unwrap().into_scalar::<f32>());
        let largest = |all: &[f32]| all.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
        let of_gradients = largest(&expected[..2 * notes * width]);
        for rows in [1, 3, 4, 7, 11, 22, 100] {
            let found = run(rows);
            assert_eq!(found.len(), expected.len());
            for (at, (a, b)) in found.iter().zip(&expected).enumerate() {
                let scale = if at < 2 * notes * width {
                    of_gradients
                } else {
                    b.abs()
                };
                let error = (a - b).abs() / scale;
                assert!(error <= 1e-6, "{kind:?}, {rows} rows, {at}: {a}, {b}");
            }
        }
    }
}

#[test]
fn large_batches_hold_few_rows_of_their_logits() {
    assert_eq!(rows_at_a_time(2048), 2048);
    assert_eq!(rows_at_a_time(8192), 8192);
    assert_eq!(rows_at_a_time(16_384), 1024);
    assert_eq!(rows_at_a_time(1 << 25), 1);
}

/// What the loss of 16,384 notes holds at once; all logits would be 1 GiB a tensor. Run it alone: the peak
/// is that of the process.
#[test]
#[ignore = "it takes a minute, and measures the whole process"]
fn the_loss_of_many_notes_takes_little_memory() {
    let (notes, width) = (16_384, 64);
    let device = Device::flex();
    let value = |n: usize| (n as u32).wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32 - 0.5;
    let values: Vec<f32> = (0..notes * width).map(value).collect();
    let all = Tensor::<2>::from_data(TensorData::new(values, [notes, width]), &device);
    let norms = all.clone().powi_scalar(2).sum_dim(1).sqrt();
    let embeddings = alone(all / norms);
    let objective = objective(ObjectiveKind::OneTower, [1.0, 0.0]);
    let t = Tensor::from_data([3.0_f32], &device)
        .autodiff()
        .require_grad();
    let before = peak_resident_bytes().unwrap();
    let begin = std::time::Instant::now();
    let exclusions = Exclusions::diagonal(notes);
    let rows = rows_at_a_time(notes);
    let (losses, _) = objective.backward(&embeddings, t, &exclusions, rows, &mut |_| ());
    let loss = losses.total.into_scalar::<f32>();
    let mebibytes = (peak_resident_bytes().unwrap() - before) >> 20;
    println!("loss {loss}, {mebibytes} MiB, {:?}", begin.elapsed());
    assert!((8.0..12.0).contains(&loss), "{loss}");
    assert!(mebibytes < 1024, "{mebibytes} MiB");
}
