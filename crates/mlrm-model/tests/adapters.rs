//! Low-rank adapters, their dropout, and frozen quantised weights against what they stand for.

mod lora {
    use burn::module::Module;
    use burn::tensor::{Device, Distribution, Tensor};
    use mlrm_model::nn::{AdapterShape, DropoutClock, Linear, attach_adapters, linear};
    use mlrm_model::weights::map_parameters;

    /// A frozen linear map with an adapter that learns, and an input.
    fn adapted(device: &Device, dropout: f64, clock: &DropoutClock) -> (Linear, Tensor<3>) {
        let shape = AdapterShape {
            rank: 3,
            scale: 1.5,
            dropout,
            clock: clock.clone(),
        };
        let map = linear(7, 5, true, device).no_grad();
        let map = attach_adapters(map, &shape, &mut |path| (path == "weight").then_some(1));
        let x = Tensor::random([2, 4, 7], Distribution::Default, device).require_grad();
        let map = map_parameters(map, &mut |param| {
            param.update(Box::new(|old| {
                Tensor::random(old.dims(), Distribution::Default, &old.device())
            }));
        });
        (map, x)
    }

    fn largest_difference<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f32 {
        (a.inner() - b.inner()).abs().max().into_scalar::<f32>()
    }

    #[test]
    fn forward_and_gradients_are_those_of_the_merged_weight() {
        let device = Device::flex().autodiff();
        let (map, x) = adapted(&device, 0.5, &DropoutClock::default());
        let dense = map.weight.val().unsqueeze::<3>();
        let seed = Tensor::random([2, 4, 5], Distribution::Default, &device);
        let beside = map.forward(x.clone());
        let merged = x.clone().matmul(dense) + map.bias.as_ref().expect("a bias").val().unsqueeze();
        assert!(largest_difference(beside.clone(), merged.clone()) < 1e-5);

        let beside = (beside * seed.clone()).sum().backward();
        let merged = (merged * seed).sum().backward();
        let adapter = map.adapter().expect("an adapter");
        for factor in [adapter.a.val(), adapter.b.val()] {
            let [one, other] = [&beside, &merged].map(|g| factor.grad(g).expect("a gradient"));
            assert!(largest_difference(one, other) < 1e-5);
        }
        let [one, other] = [&beside, &merged].map(|g| x.grad(g).expect("a gradient"));
        assert!(largest_difference(one, other) < 1e-5);
        assert!(
            map.weight.base().grad(&beside).is_none(),
            "the base is frozen"
        );
    }

    #[test]
    fn dropout_touches_the_adapter_alone_and_only_while_it_is_on() {
        let device = Device::flex().autodiff();
        let clock = DropoutClock::default();
        let (map, x) = adapted(&device, 0.9, &clock);
        let rest = map.forward(x.clone());
        let dropped = {
            let _on = clock.at_step(0, 0..1);
            map.forward(x.clone())
        };
        assert!(largest_difference(rest.clone(), dropped) > 1e-2);
        assert_eq!(largest_difference(rest, map.forward(x)), 0.0);
    }

    #[test]
    fn merging_leaves_a_plain_map_that_computes_the_same() {
        let device = Device::flex().autodiff();
        let (map, x) = adapted(&device, 0.0, &DropoutClock::default());
        let before = map.forward(x.clone());
        let merged = map.materialize();
        assert!(merged.adapter().is_none());
        assert!(largest_difference(before, merged.forward(x)) < 1e-5);
    }
}

mod dropout {
    use burn::tensor::{Device, Tensor};
    use mlrm_model::nn::{Dropout, DropoutClock};

    const SHAPE: [usize; 2] = [300, 101];

    fn dropped(dropout: &Dropout) -> Vec<f32> {
        let ones = Tensor::<2>::ones(SHAPE, &Device::flex());
        dropout.drop_values(ones).try_into_vec_as().expect("values")
    }

    #[test]
    fn masks_depend_on_step_and_stream_alone() {
        let clock = DropoutClock::default();
        let one = Dropout::new(0.25, 1, clock.clone());
        let other = Dropout::new(0.25, 2, clock.clone());
        let at = |dropout: &Dropout, step| {
            let _on = clock.at_step(step, 0..30);
            dropped(dropout)
        };
        assert_eq!(at(&one, 7), at(&one, 7));
        assert_ne!(at(&one, 7), at(&one, 8));
        assert_ne!(at(&one, 7), at(&other, 7));
    }

    #[test]
    fn the_share_of_dropped_values_is_the_rate_in_every_row_and_column_block() {
        let clock = DropoutClock::default();
        let dropout = Dropout::new(0.1, 99, clock.clone());
        let _on = clock.at_step(3, 0..30);
        let values = dropped(&dropout);
        let share = |values: &[f32]| {
            values.iter().filter(|v| **v == 0.0).count() as f64 / values.len() as f64
        };
        // 30,300 draws: a standard deviation is 0.0017; of a hundredth of them 0.017.
        assert!((share(&values) - 0.1).abs() < 0.007, "{}", share(&values));
        for part in values.chunks(303) {
            assert!((share(part) - 0.1).abs() < 0.085, "{}", share(part));
        }
        assert!((dropout.gain() - 1.0 / 0.9).abs() < 1e-12);
    }

    #[test]
    fn off_it_does_nothing() {
        let clock = DropoutClock::default();
        let dropout = Dropout::new(0.5, 1, clock.clone());
        drop(clock.at_step(1, 0..30));
        assert!(dropped(&dropout).iter().all(|v| *v == 1.0));
        assert_eq!(dropout.gain(), 1.0);
    }
}

mod frozen {
    use burn::tensor::{Device, Distribution, Tensor};
    use mlrm_model::ops::{Bits, block_size, dequantise, dims, frozen_matmul, quantise};

    fn values(tensor: Tensor<2>) -> Vec<f32> {
        tensor.inner().try_into_vec_as().expect("values")
    }

    fn random(shape: [usize; 2], device: &Device) -> Tensor<2> {
        Tensor::random(shape, Distribution::Normal(0.0, 0.05), device)
    }

    #[test]
    fn an_error_is_at_most_half_a_step_of_its_block() {
        let device = Device::flex();
        for (bits, largest_code) in [(Bits::Eight, 127.0), (Bits::Four, 7.0)] {
            let weight = random([5, 96], &device);
            let quantised = quantise(weight.clone(), bits);
            assert!(!quantised.dtype().is_float());
            let (exact, found) = (values(weight), values(dequantise(quantised)));
            for (exact, found) in exact.chunks(32).zip(found.chunks(32)) {
                let peak = exact.iter().fold(0.0f32, |a, b| a.max(b.abs()));
                // A scale is rounded up by less than a 2000th.
                let half_step = 0.5005 * peak / largest_code;
                for (a, b) in exact.iter().zip(found) {
                    assert!((a - b).abs() <= half_step, "{a} became {b}");
                }
            }
        }
    }

    #[test]
    fn quantising_again_changes_no_bit() {
        let device = Device::flex();
        for bits in [Bits::Eight, Bits::Four] {
            // From values so small that half precision would lose them to ordinary ones.
            for size in [1e-12, 1e-6, 1.0, 1e4] {
                let once = dequantise(quantise(random([37, 128], &device) * size, bits));
                let twice = dequantise(quantise(once.clone(), bits));
                assert_eq!(values(once), values(twice));
            }
        }
        let zeros = quantise(Tensor::zeros([2, 64], &device), Bits::Eight);
        assert!(values(dequantise(zeros)).iter().all(|v| *v == 0.0));
    }

    #[test]
    fn the_product_and_its_gradient_are_those_of_the_dequantised_weight() {
        let device = Device::flex().autodiff();
        let sizes = [(24, 96), (7, 16), (130, 64)];
        for (bits, (inputs, outputs)) in [Bits::Eight, Bits::Four]
            .into_iter()
            .flat_map(|bits| sizes.map(|sizes| (bits, sizes)))
        {
            let weight = quantise(random([inputs, outputs], &device), bits);
            assert_eq!(dims(&weight), [inputs, outputs]);
            let x = random([9, inputs], &device).require_grad();
            let seed = random([9, outputs], &device);
            let frozen = frozen_matmul(x.clone(), weight.clone());
            let dense = x.clone().matmul(dequantise(weight));
            let difference = |a: Tensor<2>, b: Tensor<2>| {
                let pairs = values(a).into_iter().zip(values(b));
                pairs.fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()))
            };
            assert!(difference(frozen.clone(), dense.clone()) < 1e-7);
            let [frozen, dense] = [frozen, dense].map(|y| {
                let gradients = (y * seed.clone()).sum().backward();
                x.grad(&gradients).expect("a gradient")
            });
            assert!(difference(frozen, dense) < 1e-7);
        }
    }

    #[test]
    fn a_code_takes_as_much_memory_as_its_bits() {
        let device = Device::flex();
        for (bits, bytes) in [(Bits::Eight, 6 * 128), (Bits::Four, 6 * 128 / 2)] {
            let weight = quantise(random([6, 128], &device), bits);
            // What a tensor of flex counts is what it holds.
            assert_eq!(weight.shape().num_elements(), bytes);
        }
    }

    #[test]
    fn four_bits_are_those_that_burn_quantises_to() {
        use burn::tensor::quantization::{
            QuantScheme, QuantStore, QuantValue, QuantizationParameters, ScaleDtype,
        };
        let device = Device::flex();
        let weight = random([5, 96], &device);
        let ours = values(dequantise(quantise(weight.clone(), Bits::Four)));
        // With the scales that ours used, the largest value of a block over its largest code.
        let peaks: Vec<f32> = ours
            .chunks(32)
            .map(|block| block.iter().fold(0.0f32, |a, b| a.max(b.abs())) / 7.0)
            .collect();
        let scheme = QuantScheme::default()
            .with_value(QuantValue::Q4S)
            .per_block([32], ScaleDtype::F32)
            .with_store(QuantStore::Native);
        let scales = Tensor::<1>::from_floats(peaks.as_slice(), &device);
        let parameters = QuantizationParameters {
            scales,
            global: None,
        };
        let burns = values(weight.quantize(&scheme, parameters).dequantize());
        let close = ours
            .iter()
            .zip(&burns)
            .all(|(a, b)| (a - b).abs() <= 1e-6 * a.abs());
        assert!(close, "{ours:?} {burns:?}");
    }

    #[test]
    fn small_blocks_stay_as_they_are() {
        assert_eq!(block_size(896), Some(64));
        assert_eq!(block_size(48), Some(16));
        assert_eq!(block_size(4864), Some(64));
        assert_eq!(block_size(24), None);
        let weight = random([3, 24], &Device::flex());
        assert!(quantise(weight, Bits::Eight).dtype().is_float());
    }
}
