use super::*;

fn config(root: &Path) -> RunConfig {
    let mut config = RunConfig::default();
    config.run.dir = root.to_owned();
    config.tokenizer.train_vocab_size = Some(300);
    config
}

fn options(existing: Existing) -> RunOptions {
    RunOptions {
        existing,
        ..RunOptions::default()
    }
}

fn message<T>(result: Result<T, TrainError>) -> String {
    match result {
        Ok(_) => panic!("it was taken"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_folder_belongs_to_one_process() {
    let home = tempfile::tempdir().unwrap();
    let config = config(home.path());
    let data = DataRecord::default();
    let first = RunFolder::open(&config, &data, &options(Existing::Refuse)).unwrap();
    for existing in [Existing::Refuse, Existing::Overwrite, Existing::Resume] {
        for found in [
            message(RunFolder::check(&config, &options(existing))),
            message(RunFolder::open(&config, &data, &options(existing))),
        ] {
            let holder = format!("process {} on ", std::process::id());
            assert!(
                found.contains("is in use") && found.contains(&holder),
                "{found}"
            );
        }
    }
    drop(first);
    let found = message(RunFolder::check(&config, &options(Existing::Refuse)));
    assert!(found.contains("already holds a run"), "{found}");
    // What ended before its first checkpoint begins again; where nothing was begun, nothing does.
    RunFolder::check(&config, &options(Existing::Resume)).unwrap();
    let nowhere = self::config(&home.path().join("nowhere"));
    let found = message(RunFolder::check(&nowhere, &options(Existing::Resume)));
    assert!(found.contains("holds no checkpoint"), "{found}");
    RunFolder::open(&config, &data, &options(Existing::Overwrite)).unwrap();
}

#[test]
fn other_data_is_refused_until_it_is_accepted() {
    let home = tempfile::tempdir().unwrap();
    let config = config(home.path());
    let data = DataRecord::default();
    let (folder, _) = RunFolder::open(&config, &data, &options(Existing::Refuse)).unwrap();
    folder.record(&config, &data).unwrap();
    drop(folder);
    let mut other = data.clone();
    other.notes = Some(mlrm_model::checksums::FileSum {
        bytes: 1,
        blake3: "a".into(),
    });
    let mut resume = options(Existing::Resume);
    let found = message(RunFolder::open(&config, &other, &resume));
    assert!(found.contains("data.notes was not there when"), "{found}");
    assert!(found.contains("--accept-change data.notes"), "{found}");
    resume.accepted = vec!["data.notes".into()];
    let (folder, _) = RunFolder::open(&config, &other, &resume).unwrap();
    assert_eq!(folder.accepted, ["data.notes"]);
    assert!(folder.notes[0].contains("data.notes"), "{:?}", folder.notes);
    folder.record(&config, &other).unwrap();
    drop(folder);
    // Accepted once, it is the run's own.
    RunFolder::open(&config, &other, &options(Existing::Resume)).unwrap();
    let measured = check_measured(home.path(), &config, &data, &[]);
    assert!(message(measured).contains("data.notes is not there any more"));
    let accepted = ["data".to_owned()];
    let taken = check_measured(home.path(), &config, &data, &accepted).unwrap();
    assert_eq!(taken.len(), 1);
}
