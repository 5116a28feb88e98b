//! Every example runs.

#[allow(dead_code, reason = "`main` is for `cargo run`")]
#[path = "../examples/burn_learner.rs"]
mod burn_learner;
#[allow(dead_code, reason = "`main` is for `cargo run`")]
#[path = "../examples/embed_two_notes.rs"]
mod embed_two_notes;
#[allow(dead_code, reason = "`main` is for `cargo run`")]
#[path = "../examples/own_decoder.rs"]
mod own_decoder;
#[allow(dead_code, reason = "`main` is for `cargo run`")]
#[path = "../examples/own_loop.rs"]
mod own_loop;
#[allow(dead_code, reason = "`main` is for `cargo run`")]
#[path = "../examples/own_objective.rs"]
mod own_objective;
#[allow(dead_code, reason = "`main` is for `cargo run`")]
#[path = "../examples/own_vision_encoder.rs"]
mod own_vision_encoder;
#[allow(dead_code, reason = "`main` is for `cargo run`")]
#[path = "../examples/plain_burn.rs"]
mod plain_burn;

/// One test an example, in a folder of its own.
macro_rules! run {
    ($($name:ident)+) => {$(
        #[test]
        fn $name() {
            let home = tempfile::tempdir().expect("a folder");
            $name::run(home.path()).expect(stringify!($name));
        }
    )+};
}

run! { burn_learner embed_two_notes own_decoder own_loop own_objective own_vision_encoder plain_burn }

/// Each file of the folder is one of the tests above.
#[test]
fn none_is_left_out() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    let names = std::fs::read_dir(folder).expect("the examples");
    let names = names.map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.into_string().expect("a name"));
    let tests = include_str!("examples.rs");
    let (_, listed) = tests.split_once("\nrun! {").expect("the list");
    let listed = listed.split_once('}').expect("the list").0;
    for name in names.filter_map(|name| Some(name.strip_suffix(".rs")?.to_owned())) {
        let is_listed = listed.split_whitespace().any(|other| other == name);
        assert!(is_listed, "examples/{name}.rs does not run in CI");
    }
}
