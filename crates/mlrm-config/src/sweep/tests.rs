use super::*;

fn load(text: &str, overrides: &SweepOverrides) -> Result<Sweep, String> {
    let home = std::env::temp_dir().join(format!("mlrm-sweep-{}", std::process::id()));
    std::fs::create_dir_all(&home).unwrap();
    let path = home.join(format!("{:?}.toml", std::thread::current().id()));
    std::fs::write(&path, text).unwrap();
    let read = Sweep::load(&path, overrides);
    std::fs::remove_file(&path).unwrap();
    read.map_err(|error| error.to_string())
}

const FILE: &str = r#"
base = "base.toml"
dir = "runs/x"
seeds = [1, 2]
[[axes]]
name = "variant"
groups = [{ name = "text only", set = ["model.variant=text"] }, { name = "both" }]
[[axes]]
key = "objective.temperature"
values = [0.05, 1]
"#;

#[test]
fn the_product_of_axes_is_named_by_its_points() {
    let sweep = load(FILE, &SweepOverrides::default()).unwrap();
    let rows: Vec<String> = sweep
        .combinations()
        .iter()
        .map(|at| sweep.row(at))
        .collect();
    assert_eq!(
        rows,
        [
            "text only, temperature=0.05",
            "text only, temperature=1",
            "both, temperature=0.05",
            "both, temperature=1"
        ]
    );
    assert_eq!(folder_name(&rows[0]), "text_only,temperature=0.05");
    assert_eq!(sweep.axes[1].points[1].number, Some(1.0));
    assert_eq!(sweep.axes[1].points[0].set, ["objective.temperature=0.05"]);
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let text = r#"
base = 3
seed = [1]
seeds = [1, 1]
set = ["run.seed=3", "train.batch_pairs=2"]
reference = "c"
[[axes]]
key = "train.batch_pairs"
values = []
[[axes]]
name = "v"
groups = [{ name = "a/b", set = ["train.batch_pairs=4"] }, { name = "a_b" }, { set = [] }]
[[axes]]
key = "x"
groups = []
"#;
    let message = load(text, &SweepOverrides::default()).unwrap_err();
    for words in [
        "`base`: is no text",
        "`dir`: is missing",
        "`seed`: no such key",
        "did you mean `seeds`",
        "the seed 1 stands there twice",
        "sets `run.seed`",
        "`train.batch_pairs` is set by",
        "`axes[0]`: the axis is empty",
        "`axes[1].groups[2]`: the group has no name",
        "`axes[2]`: is neither of a key nor of groups",
    ] {
        assert!(message.contains(words), "{words}: {message}");
    }
    let folders = "base = \"b\"\ndir = \"d\"\nreference = \"c\"\n[[axes]]\nname = \"v\"\n\
                       groups = [{ name = \"a/b\" }, { name = \"a_b\" }]\n";
    let message = load(folders, &SweepOverrides::default()).unwrap_err();
    assert!(message.contains("two cells with one folder"), "{message}");
    assert!(message.contains("there is no row `c`"), "{message}");
}

#[test]
fn the_command_line_replaces() {
    let overrides = SweepOverrides {
        set: vec!["objective.temperature=2".into()],
        base: Some("demo.toml".into()),
        dir: Some("other".into()),
        seeds: Some(vec![5]),
    };
    let message = load(FILE, &overrides).unwrap_err();
    assert!(
        message.contains("`objective.temperature` is set by"),
        "{message}"
    );
    let overrides = SweepOverrides {
        set: vec!["train.max_steps=2".into()],
        ..overrides
    };
    let sweep = load(FILE, &overrides).unwrap();
    assert_eq!((sweep.dir, sweep.seeds), ("other".into(), vec![5]));
    assert_eq!(sweep.base, PathBuf::from("demo.toml"));
    assert_eq!(sweep.set, ["train.max_steps=2"]);
}
