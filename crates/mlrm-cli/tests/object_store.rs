//! Data in object stores. They are behind the cargo feature `object-store`, which the binary under test has or has not
//! (`MLRM_TEST_BINARY`). The store is a server of this test's own; where `MLRM_PYTHON` has moto, its S3 too, and where
//! `MLRM_AZURITE` is the program `azurite-blob`, Azure's.

#[path = "support/emulators.rs"]
mod emulators;
#[path = "support/shards.rs"]
mod shards;
mod support;
#[path = "../../../tests/web.rs"]
mod web;

use std::fs;
use std::process::{Child, Command, Stdio};

use emulators::{azurite, moto, wait_for};
use shards::{pictures, write_parquet, write_tar};
use support::{Home, Ran, events, losses, skipped, training};
use web::{Mishap, Web};

/// Pictures of the drawn set, 80 notes.
const NOTES: usize = 80;
/// Pictures in a row group of a Parquet file.
const GROUP_ROWS: usize = 8;

/// A folder with the drawn notes in `data/`, and a bucket `shop` below `stores/` that holds the same: the pictures as objects
/// below `pictures/`, the same in two tar files below `shards/` and in two Parquet files below `tables/`, and the tables. `None` where the binary
/// knows no stores.
fn home(test: &str) -> Option<Home> {
    let home = Home::with_notes();
    let words = "data check data --images s3://bucket/x";
    // Asked for nothing, as plain HTTP is not allowed.
    let mut asked = command(&home, "http://127.0.0.1:9", words);
    let asked = home.ran(asked.env_remove("AWS_ALLOW_HTTP"));
    if asked.out.contains("cargo feature `object-store`") {
        refused_without(&home);
        skipped(
            test,
            "object-store",
            "the binary was built without the feature `object-store`",
        );
        return None;
    }
    let pictures = pictures(&home);
    assert_eq!(pictures.len(), NOTES);
    for (key, content) in &pictures {
        home.write(&format!("stores/shop/pictures/{key}"), content);
    }
    for folder in ["shards", "tables"] {
        fs::create_dir_all(home.path("stores/shop").join(folder)).expect("a folder");
    }
    for shard in 0..2 {
        let own = pictures.iter().skip(shard).step_by(2);
        let own: Vec<_> = own.cloned().collect();
        write_tar(&home, &format!("stores/shop/shards/{shard}.tar"), &own);
        let name = format!("stores/shop/tables/{shard}.parquet");
        write_parquet(&home, &name, &own, GROUP_ROWS);
    }
    for name in ["notes.jsonl", "interactions.csv"] {
        fs::copy(
            home.path("data").join(name),
            home.path("stores/shop").join(name),
        )
        .expect("a table");
    }
    Some(home)
}

/// What a binary without the feature says: before anything runs, of all keys at once.
fn refused_without(home: &Home) {
    let words = "train folder.toml --set data.images=s3://b/x --set data.notes=gs://b/n.jsonl";
    home.refused(
        words,
        &[
            "data.images",
            "data.notes",
            "cargo feature `object-store`",
            "--features mlrm-cli/object-store",
        ],
    );
}

/// The binary, for which `web` is S3.
fn command(home: &Home, endpoint: &str, words: &str) -> Command {
    let mut command = home.command(words);
    command
        .env("AWS_ENDPOINT_URL", endpoint)
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_ACCESS_KEY_ID", "THE-KEY-ID")
        .env("AWS_SECRET_ACCESS_KEY", "THE-SECRET")
        .env("NO_PROXY", "127.0.0.1");
    command
}

#[track_caller]
fn mlrm(home: &Home, endpoint: &str, words: &str) -> Ran {
    let ran = home.ran(&mut command(home, endpoint, words));
    assert!(!format!("{ran:?}").contains("THE-SECRET"), "{ran:?}");
    ran
}

/// Trains into `run`, and gives every loss.
#[track_caller]
fn train(home: &Home, endpoint: &str, run: &str, sets: &str) -> (Ran, String) {
    let sets = format!("eval.baselines=[] {sets}");
    let ran = mlrm(home, endpoint, &training("folder.toml", run, sets));
    ran.done();
    let text = losses(&events(home, run));
    assert_eq!(text.len(), 6);
    assert!(
        !home
            .read(format!("{run}/events.jsonl"))
            .contains("THE-SECRET")
    );
    (ran, format!("{text:?}"))
}

/// Requests for content: pictures, parts of shards, tables.
fn gets(web: &Web) -> usize {
    web.take_asked()
        .iter()
        .filter(|asked| asked.starts_with("GET") && !asked.contains("list-type"))
        .count()
}

#[test]
fn a_run_is_the_same_from_wherever_its_pictures_come() {
    let Some(home) = home("a_run_is_the_same_from_wherever_its_pictures_come") else {
        return;
    };
    let web = Web::calm(&home.path("stores"));
    let near = train(&home, &web.address(), "near", "").1;
    assert_eq!(gets(&web), 0);
    let shards = format!("data.images={}/shop/shards/{{0..1}}.tar", web.address());
    let tables = format!("data.images={}/shop/tables/{{0..1}}.parquet", web.address());
    // Each row group, by each of the threads that look at its pictures, and the ends of two files and their keys.
    let groups = NOTES / GROUP_ROWS;
    let of_tables = groups..=2 * groups + 2 * (1 + groups);
    for (run, images, cold) in [
        ("prefix", "data.images=s3://shop/pictures", NOTES..=NOTES),
        // Each shard's headers, and the pictures with them.
        ("pattern", "data.images=s3://shop/shards/*.tar", 2..=2),
        ("braces", shards.as_str(), 2..=2),
        (
            "tables",
            "data.images=s3://shop/tables/*.parquet",
            of_tables.clone(),
        ),
        ("numbered", tables.as_str(), of_tables),
    ] {
        let (ran, first) = train(&home, &web.address(), run, images);
        assert_eq!(first, near, "{run}");
        let asked = gets(&web);
        assert!(cold.contains(&asked), "{run}: {asked}");
        ran.tells(&["object storage: "]);
        let (_, second) = train(&home, &web.address(), &format!("{run}-warm"), images);
        assert_eq!(second, near, "{run}");
        assert_eq!(gets(&web), 0, "{run}");
    }
    // Less than the pictures take, and nothing at all.
    for (run, images, bytes) in [
        ("objects-small", "data.images=s3://shop/pictures", "20000"),
        ("objects-none", "data.images=s3://shop/pictures", "0"),
        (
            "tables-small",
            "data.images=s3://shop/tables/*.parquet",
            "20000",
        ),
        ("tables-none", "data.images=s3://shop/tables/*.parquet", "0"),
    ] {
        let most = format!("data.image_cache_max_bytes={bytes}");
        let sets = format!("{images} {most}");
        let (_, small) = train(&home, &web.address(), run, &sets);
        assert_eq!(small, near, "{run}");
        assert!(gets(&web) > 0);
    }
    let sets = "data.root=s3://shop data.images=pictures";
    let (_, all) = train(&home, &web.address(), "root", sets);
    assert_eq!(all, near);
}

#[test]
fn a_store_that_fails_now_and_then_changes_nothing_and_is_told() {
    let Some(home) = home("a_store_that_fails_now_and_then_changes_nothing_and_is_told") else {
        return;
    };
    let near = train(&home, "http://127.0.0.1:9", "near", "").1;
    let web = Web::serve(&home.path("stores"), |number, _| match number % 20 {
        2 => Mishap::Busy,
        7 => Mishap::Cut,
        11 => Mishap::Drop,
        _ => Mishap::None,
    });
    for (run, images) in [
        ("flaky", "data.images=s3://shop/shards/*.tar"),
        ("flaky-tables", "data.images=s3://shop/tables/*.parquet"),
    ] {
        // Without a cache, so that there are many requests.
        let more = "data.notes=s3://shop/notes.jsonl data.image_cache_max_bytes=0";
        let sets = format!("{images} {more}");
        let (ran, flaky) = train(&home, &web.address(), run, &sets);
        assert_eq!(flaky, near);
        ran.tells(&["requests failed and were repeated"]);
    }
}

#[test]
fn checks_embeddings_and_damaged_caches_work_from_a_store() {
    let Some(home) = home("checks_embeddings_and_damaged_caches_work_from_a_store") else {
        return;
    };
    let web = Web::calm(&home.path("stores"));
    let words = "data check s3://shop --images pictures --json";
    let checked = mlrm(&home, &web.address(), words);
    assert_eq!(checked.done().json()["images"], NOTES);
    checked.tells(&["object storage: "]);
    // Every entry is damaged in another way, and fetched again.
    let mut damaged = 0;
    for folder in fs::read_dir(home.path(".cache/mlrm/objects"))
        .expect("a cache")
        .flatten()
    {
        for entry in fs::read_dir(folder.path()).expect("a folder").flatten() {
            let content = fs::read(entry.path()).expect("an entry");
            let cut = content.len() * damaged / NOTES;
            fs::write(entry.path(), &content[..cut.min(content.len() - 1)]).expect("an entry");
            damaged += 1;
        }
    }
    assert!(damaged > NOTES, "{damaged}");
    web.take_asked();
    let again = mlrm(&home, &web.address(), words);
    assert_eq!(again.done().json(), checked.json());
    again.tells(&["damaged entries of the cache were fetched again"]);
    train(&home, &web.address(), "run", "");
    let embed = |images: &str, out: &str| {
        let words = format!("embed run --notes data/notes.jsonl --images {images} --out {out}");
        mlrm(&home, &web.address(), &words).done();
        fs::read(home.path(out)).expect("embeddings")
    };
    let near = embed("data", "near.npy");
    assert_eq!(embed("s3://shop/shards/*.tar", "far.npy"), near);
    assert_eq!(embed("s3://shop/tables/*.parquet", "tables.npy"), near);
}

#[test]
fn what_does_not_pass_is_told_with_place_and_mend() {
    let Some(home) = home("what_does_not_pass_is_told_with_place_and_mend") else {
        return;
    };
    let web = Web::serve(&home.path("stores"), |_, path| {
        match path.starts_with("/closed") {
            true => Mishap::Refused,
            false => Mishap::None,
        }
    });
    let check = |images: &str, words: &[&str]| {
        let ran = mlrm(
            &home,
            &web.address(),
            &format!("data check data --images {images}"),
        );
        assert_eq!(ran.code, Some(1), "{ran:?}");
        for word in words {
            assert!(ran.out.contains(word), "no `{word}` in {ran:?}");
        }
        assert!(!ran.out.contains("LEAKED"), "{ran:?}");
    };
    check(
        "s3://none/pictures",
        &["no bucket `none`", "AWS_ENDPOINT_URL"],
    );
    check(
        "s3://closed/pictures",
        &["403", "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"],
    );
    check("s3://shop/none.tar", &["`s3://shop/none.tar` is not there"]);
    check(
        "s3://shop/x.parquet",
        &["`s3://shop/x.parquet` is not there"],
    );
    home.write("stores/shop/bad.parquet", b"PAR1 and no more");
    check(
        "s3://shop/bad.parquet",
        &["s3://shop/bad.parquet", "no readable Parquet"],
    );
    check("s3://shop/none", &["s3://shop/none", "nothing is there"]);
    check("s3://shop/shards/x*.tar", &["no object has such a name"]);
    check("s3://KEY:THE-PASS@shop/x", &["environment variables"]);
    check(
        "ftp://shop/x",
        &["`ftp://` addresses are not read", "s3://"],
    );
    check(
        &format!("{}/shop/pictures", web.address()),
        &["does not list", "{000..031}.tar"],
    );
    // A picture that is gone is missing; a store that refuses makes no note one without a picture.
    fs::remove_file(
        home.path("stores/shop/pictures")
            .join(&pictures(&home)[3].0),
    )
    .expect("a picture");
    check("s3://shop/pictures", &["missing_image  1"]);
    let words = "train folder.toml --set data.images=s3://closed/x.tar --set \
        data.on_missing_image=drop --set data.on_bad_image=drop";
    mlrm(&home, &web.address(), words).failed_with(1, &["403", "s3://closed/x.tar"]);
    assert!(!home.path("run").exists());
    let plain = "data check data --images s3://shop/pictures";
    let mut refused = command(&home, &web.address(), plain);
    let refused = home.ran(refused.env_remove("AWS_ALLOW_HTTP"));
    refused.shows(&["AWS_ALLOW_HTTP=true"]);
}

#[test]
fn a_kill_during_a_fetch_leaves_nothing_that_is_taken_for_whole() {
    let Some(home) = home("a_kill_during_a_fetch_leaves_nothing_that_is_taken_for_whole") else {
        return;
    };
    // Half of the pictures come, the rest hangs.
    let slow = Web::serve(&home.path("stores"), |number, _| match number > 40 {
        true => Mishap::Stall(60),
        false => Mishap::None,
    });
    let words = "data check data --images s3://shop/pictures --json";
    let start = |web: &Web| {
        let mut command = command(&home, &web.address(), words);
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary runs")
    };
    let mut killed: Child = start(&slow);
    let entries = || {
        let folders = fs::read_dir(home.path(".cache/mlrm/objects"))
            .into_iter()
            .flatten()
            .flatten();
        folders
            .flat_map(|folder| fs::read_dir(folder.path()).into_iter().flatten().flatten())
            .count()
    };
    // The list, forty pictures, and what hangs.
    wait_for("requests that hang", || {
        slow.requests() > 60 && entries() >= 40
    });
    killed.kill().expect("a kill");
    killed.wait().expect("an end");
    let after = entries();
    // Two at once, from a cache that a third has begun.
    let web = Web::calm(&home.path("stores"));
    let mut others = [start(&web), start(&web)];
    for other in &mut others {
        assert!(other.wait().expect("an end").success());
    }
    assert!(
        entries() >= NOTES && (40..NOTES).contains(&after),
        "{after}"
    );
    web.take_asked();
    assert_eq!(
        mlrm(&home, &web.address(), words).done().json()["images"],
        NOTES
    );
    assert_eq!(gets(&web), 0);
}

#[test]
fn a_run_from_motos_s3_is_the_same() {
    let test = "a_run_from_motos_s3_is_the_same";
    let Some(home) = home(test) else {
        return;
    };
    let Some(moto) = moto(test, &home) else {
        return;
    };
    let near = train(&home, &moto.endpoint, "near", "").1;
    from_everywhere(&home, "s3", &near, |run, sets| {
        train(&home, &moto.endpoint, run, sets).1
    });
    let words = "data check data --images s3://none/x";
    let none = mlrm(&home, &moto.endpoint, words);
    none.shows(&["no bucket `none`"]);
}

/// Trains from a prefix, from shards, and from a store alone, with an empty and with a full cache: every loss is as `near`.
#[track_caller]
fn from_everywhere(home: &Home, scheme: &str, near: &str, train: impl Fn(&str, &str) -> String) {
    for (run, sets) in [
        ("prefix", "data.images=STORE/pictures data.root=data"),
        ("shards", "data.images=STORE/shards/*.tar data.root=data"),
        (
            "tables",
            "data.images=STORE/tables/*.parquet data.root=data",
        ),
        ("all", "data.images=pictures data.root=STORE"),
    ] {
        let sets = sets.replace("STORE", &format!("{scheme}://shop"));
        for turn in ["cold", "warm"] {
            let far = train(&format!("{run}-{turn}"), &sets);
            assert_eq!(far, near, "{scheme} {run} {turn}");
        }
    }
    assert!(home.path(".cache/mlrm/objects").is_dir());
}

/// Google Cloud Storage is asked by its XML interface, whose answers are those of S3.
#[test]
fn a_run_from_googles_interface_is_the_same() {
    let Some(home) = home("a_run_from_googles_interface_is_the_same") else {
        return;
    };
    let web = Web::calm(&home.path("stores"));
    let google = [
        ("GOOGLE_BASE_URL", web.address()),
        ("GOOGLE_ALLOW_HTTP", "true".to_owned()),
        ("GOOGLE_SKIP_SIGNATURE", "true".to_owned()),
    ];
    let near = train(&home, "http://127.0.0.1:9", "near", "").1;
    from_everywhere(&home, "gs", &near, |run, sets| {
        losses_of(&home, run, sets, &google)
    });
    assert!(gets(&web) > NOTES);
    let words = "data check data --images gs://none/x";
    let mut none = command(&home, "http://127.0.0.1:9", words);
    let none = home.ran(none.envs(google));
    none.shows(&["no bucket `none`", "GOOGLE_BASE_URL"]);
}

/// As [`train`], from a store that these variables name.
#[track_caller]
fn losses_of(home: &Home, run: &str, sets: &str, variables: &[(&str, String)]) -> String {
    let sets = format!("eval.baselines=[] {sets}");
    let words = training("folder.toml", run, sets);
    let mut training = command(home, "http://127.0.0.1:9", &words);
    let variables = variables.iter().map(|(name, value)| (name, value));
    home.ran(training.envs(variables)).done();
    format!("{:?}", losses(&events(home, run)))
}

#[test]
fn a_run_from_azurite_is_the_same() {
    let test = "a_run_from_azurite_is_the_same";
    let Some(home) = home(test) else {
        return;
    };
    let Some(azurite) = azurite(test, &home) else {
        return;
    };
    let azure = [
        ("AZURE_STORAGE_USE_EMULATOR", "true".to_owned()),
        ("AZURITE_BLOB_STORAGE_URL", azurite.endpoint.clone()),
    ];
    let near = train(&home, "http://127.0.0.1:9", "near", "").1;
    from_everywhere(&home, "az", &near, |run, sets| {
        losses_of(&home, run, sets, &azure)
    });
    for (images, says) in [
        ("az://none/x", "no bucket `none`"),
        ("az://shop/none/*.tar", "no object has such a name"),
    ] {
        let words = format!("data check data --images {images}");
        let mut check = command(&home, "http://127.0.0.1:9", &words);
        home.ran(check.envs(azure.clone())).shows(&[says]);
    }
}
