use super::*;

fn watch() -> Watch {
    let mut config = RunConfig::default();
    config.train.warmup_ratio = 0.1;
    // Windows of 20 steps, a warm-up of 10.
    Watch::new(&config, 100)
}

fn stats(loss: f64, t: f64) -> StepStats {
    StepStats {
        loss,
        loss_multimodal: loss,
        chance_loss: 63_f64.ln(),
        temperature_logit: t,
        updated: true,
        ..StepStats::default()
    }
}

/// Steps from `first` on with these losses; the steps that were warned at.
fn losses(watch: &mut Watch, first: usize, losses: &[f64]) -> Vec<usize> {
    let steps = losses.iter().enumerate();
    let warned = steps.filter(|(at, loss)| !watch.step(first + at, &stats(**loss, 3.0)).is_empty());
    warned.map(|(at, _)| first + at).collect()
}

#[test]
fn a_loss_that_stays_at_chance_is_told_once_and_again_after_it_fell() {
    let mut watch = watch();
    let chance = 63_f64.ln();
    // Two windows after the warm-up of 10 steps.
    assert_eq!(losses(&mut watch, 1, &[chance; 70]), [50]);
    assert_eq!(losses(&mut watch, 71, &[2.0; 40]), [0; 0]);
    assert_eq!(losses(&mut watch, 111, &[chance; 60]).len(), 1);
}

#[test]
fn a_loss_that_falls_is_no_chance() {
    let mut watch = watch();
    let falling: Vec<f64> = (0..60).map(|step| 8.0 - 0.1 * f64::from(step)).collect();
    assert_eq!(losses(&mut watch, 1, &falling), [0; 0]);
    let message = {
        let mut watch = self::watch();
        let mut all = (1..=50).flat_map(|step| watch.step(step, &stats(63_f64.ln(), 3.0)));
        all.next().unwrap_or_default()
    };
    for part in [
        "4.1431",
        "63 candidates",
        "last 20 steps",
        "train.learning_rate",
    ] {
        assert!(message.contains(part), "no {part:?} in {message}");
    }
}

#[test]
fn a_temperature_that_runs_off_is_told_unless_it_is_bounded() {
    let mut watch = watch();
    let told = |watch: &mut Watch, t| watch.step(1, &stats(1.0, t)).len();
    let found: Vec<usize> = [4.5, 4.7, 5.0, 4.6, 4.4, 4.7, 0.5, -0.2]
        .map(|t| told(&mut watch, t))
        .to_vec();
    assert_eq!(found, [0, 1, 0, 0, 0, 1, 0, 1]);
    let mut config = RunConfig::default();
    config.objective.max_temperature_logit = Some(6.0);
    assert_eq!(told(&mut Watch::new(&config, 100), 5.5), 0);
    config.objective.max_temperature_logit = None;
    config.objective.temperature_logit = Some(5.0);
    let mut from_five = Watch::new(&config, 100);
    assert_eq!([5.05, 5.2].map(|t| told(&mut from_five, t)), [0, 1]);
}

fn probe(step: u64, cosine: f64, rank: f64, share: Option<f64>) -> EmbeddingProbe {
    EmbeddingProbe {
        step,
        notes: 64,
        negative_similarity: cosine,
        effective_rank: rank,
        picture_share: share,
        ..EmbeddingProbe::default()
    }
}

#[test]
fn collapse_and_ignored_pictures_are_told_at_the_second_probe() {
    let mut watch = watch();
    let mut told = |step, cosine, rank, share| watch.probe(&probe(step, cosine, rank, share)).len();
    // Within the warm-up nothing counts.
    assert_eq!(told(5, 0.99, 1.0, Some(0.0)), 0);
    assert_eq!(told(15, 0.995, 9.0, Some(0.0)), 0);
    assert_eq!(told(20, 0.5, 1.2, Some(0.0)), 1);
    assert_eq!(told(25, 0.995, 1.2, Some(0.0)), 0);
    assert_eq!(told(30, 0.2, 9.0, Some(0.01)), 0);
    assert_eq!(told(35, 0.2, 9.0, Some(0.01)), 1);
    assert_eq!(told(40, 0.2, 9.0, Some(0.01)), 0);
    assert_eq!(told(45, 0.2, 9.0, Some(0.5)), 0);
    assert_eq!(told(50, 0.2, 9.0, None), 0);
}

#[test]
fn saliency_tells_of_the_picture_once() {
    let mut watch = watch();
    let mut told = |step, visual| {
        let layers = vec![[visual, 1.0, 1.0]; 2];
        watch
            .saliency(&Saliency {
                step,
                layers,
                ..Saliency::default()
            })
            .is_some()
    };
    assert!(!told(20, 1.0) && !told(5, 0.001));
    assert!(told(30, 0.001) && !told(40, 0.001));
}

#[test]
fn the_test_table_tells_where_text_alone_does_as_well() {
    let metrics = |recall: f64, low: Option<f64>| -> mlrm_events::Slices {
        let mut metrics = Metrics::new();
        metrics.insert("recall@10".into(), recall);
        metrics.extend(low.map(|low| ("recall@10:low".to_owned(), low)));
        [("all".to_owned(), metrics)].into()
    };
    let told = |model: f64, text: f64, random: f64| {
        let evaluation = Evaluation {
            slices: metrics(model, Some(model - 0.05)),
            baselines: [
                ("text_only".to_owned(), metrics(text, None)),
                ("random".to_owned(), metrics(random, None)),
            ]
            .into(),
            ..Evaluation::default()
        };
        ignored_in_test(&evaluation, &[1, 10, 100])
    };
    assert!(told(0.4, 0.2, 0.01).is_none());
    assert!(told(0.4, 0.37, 0.01).is_some_and(|m| m.contains("40.00 %") && m.contains("37.00 %")));
    // Nothing was learnt: that is another cause.
    assert!(told(0.04, 0.04, 0.035).is_none());
}
