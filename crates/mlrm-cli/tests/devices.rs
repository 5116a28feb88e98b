//! `mlrm devices`, and devices, drivers and number formats that are not there.

mod support;

use std::fs;
use std::process::Output;

use serde_json::Value;
use support::{Home, training};

/// What `mlrm devices --json` tells of every backend.
fn backends(home: &Home) -> Vec<Value> {
    let listed = home.mlrm("devices --json").done().json();
    listed.as_array().expect("rows").clone()
}

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key]
        .as_str()
        .unwrap_or_else(|| panic!("no {key} in {row}"))
}

/// Every device that can be used, with its backend.
fn usable(backends: &[Value]) -> Vec<(&Value, &Value)> {
    backends
        .iter()
        .flat_map(|backend| {
            let devices = backend["devices"].as_array().expect("a list");
            devices.iter().map(move |device| (backend, device))
        })
        .filter(|(_, device)| device["error"].is_null())
        .collect()
}

#[test]
fn every_backend_is_listed_with_its_devices_or_what_it_lacks() {
    let home = Home::empty();
    let backends = backends(&home);
    let names: Vec<_> = backends.iter().map(|row| text(row, "backend")).collect();
    assert_eq!(names, ["flex", "vulkan", "wgpu", "metal", "cuda", "rocm"]);
    for row in &backends {
        let devices = row["devices"].as_array().expect("a list");
        assert_eq!(row["available"], !devices.is_empty(), "{row}");
        assert_eq!(text(row, "note").is_empty(), !devices.is_empty(), "{row}");
        if row["compiled_in"] == false {
            let feature = format!("--features {}", text(row, "backend"));
            assert!(text(row, "note").contains(&feature), "{row}");
        }
        for (index, device) in devices.iter().enumerate() {
            let indexed = format!("{}:{index}", text(row, "backend"));
            let name = text(device, "name");
            assert!(name == indexed || name == text(row, "backend"), "{device}");
            for key in ["adapter", "kind", "driver"] {
                assert!(!text(device, key).is_empty(), "{key} of {device}");
            }
            assert_eq!(device["speed"], Value::Null);
        }
    }
    let flex = &backends[0]["devices"][0];
    assert_eq!(flex["name"], "flex");
    assert!(
        flex["memory_bytes"]
            .as_u64()
            .is_some_and(|bytes| bytes > 1 << 27),
        "{flex}"
    );
    assert_eq!(flex["dtypes"], serde_json::json!(["f32", "bf16", "f16"]));

    let printed = home.mlrm("devices").done().out.clone();
    for name in names {
        assert!(printed.contains(name), "{printed}");
    }
    assert!(printed.contains("dtypes: f32"), "{printed}");
}

#[test]
fn the_processor_is_measured() {
    // Other devices are measured where they are: a software GPU takes a minute.
    let home = Home::empty();
    let ran = without_drivers(&home, "devices --measure --json");
    let listed: Value = serde_json::from_slice(&ran.stdout).unwrap();
    let speed = &listed[0]["devices"][0]["speed"];
    for (name, least) in [("matmul", 1e8), ("copy", 1e7)] {
        let figure = speed[name]["per_second"].as_f64().expect("a rate");
        assert!(figure > least, "{name}: {speed}");
        assert_eq!(speed[name]["repeats"], 5);
    }
    let ran = without_drivers(&home, "devices --measure");
    let printed = String::from_utf8(ran.stdout).unwrap();
    for word in ["TFLOP/s", "GB/s"] {
        assert!(printed.contains(word), "{printed}");
    }
}

#[test]
fn names_that_are_none_and_backends_that_were_left_out() {
    let home = Home::trained();
    let train = |device: &str| training("tiny.toml", "other", format!("backend.device={device}"));
    home.refused(train("cudda"), &["cudda", "did you mean \"cuda\"?"]);
    home.refused(train("flex:1"), &["flex:1", "takes no index"]);
    let embed = "embed run --notes data/notes.jsonl --out x.npy --device";
    home.refused(format!("{embed} cudda"), &["cudda"]);
    for row in backends(&home)
        .iter()
        .filter(|row| row["compiled_in"] == false)
    {
        let name = text(row, "backend");
        let words = [name, "built without it", &format!("--features {name}")];
        home.refused(train(name), &words);
        home.refused(format!("{embed} {name}"), &words);
        home.refused(format!("eval run --device {name}"), &words);
        home.refused(format!("verify --device {name}"), &words);
    }
}

#[test]
fn an_index_past_the_last_device_is_refused() {
    let home = Home::empty();
    for row in backends(&home) {
        let (name, count) = (
            text(&row, "backend"),
            row["devices"].as_array().map_or(0, Vec::len),
        );
        if count > 0 && name != "flex" && name != "metal" {
            let past = format!("{name}:{count}");
            let has = format!("{name} has {count} device");
            home.refused(format!("verify --device {past}"), &[&past, &has]);
        }
    }
}

#[test]
fn a_number_format_that_the_device_lacks_is_refused_by_name() {
    let home = Home::trained();
    let backends = backends(&home);
    for (_, device) in usable(&backends) {
        let dtypes = device["dtypes"].as_array().expect("a list");
        assert!(dtypes.contains(&"f32".into()), "{device}");
        for dtype in ["bf16", "f16"] {
            if dtypes.contains(&dtype.into()) {
                continue;
            }
            let name = text(device, "name");
            let sets = format!("backend.device={name} backend.dtype={dtype}");
            let says = format!("no arithmetic in {dtype}");
            home.refused(
                training("tiny.toml", "other", sets),
                &[name, &says, "backend.dtype can be f32"],
            );
        }
    }
}

/// Runs the binary where it finds no GPU driver: libraries of their names that cannot be loaded come
/// first.
fn without_drivers(home: &Home, arguments: &str) -> Output {
    const LOADERS: [&str; 8] = [
        "libvulkan.so",
        "libvulkan.so.1",
        "libEGL.so",
        "libEGL.so.1",
        "libcuda.so",
        "libcuda.so.1",
        "libamdhip64.so",
        "libamdhip64.so.6",
    ];
    for name in LOADERS {
        home.write(&format!("no-drivers/{name}"), "");
    }
    let mut command = home.command(arguments);
    command.env("LD_LIBRARY_PATH", home.path("no-drivers"));
    command.output().expect("the binary runs")
}

/// A binary with GPU backends is an ordinary CPU binary where there is no driver.
#[cfg(target_os = "linux")]
#[test]
fn without_a_driver_gpus_are_refused_and_the_processor_trains() {
    let home = Home::with_config();
    let run = |arguments: &str| {
        let output = without_drivers(&home, arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!errors.contains("panicked"), "{errors}");
        (output.status.code(), output.stdout, errors)
    };
    let (code, listed, _) = run("devices --json");
    assert_eq!(code, Some(0));
    let listed: Value = serde_json::from_slice(&listed).unwrap();
    for row in listed.as_array().expect("rows").iter().skip(1) {
        assert_eq!(row["available"], false, "{row}");
        if row["compiled_in"] == true {
            let name = text(row, "backend");
            assert!(text(row, "note").contains("driver"), "{row}");
            let (code, _, errors) = run(&format!("verify --device {name}"));
            assert_eq!(code, Some(1), "{errors}");
            assert!(errors.contains(text(row, "note")), "{errors}");
        }
    }
    let train = "train tiny.toml --set train.max_steps=2 --set eval.baselines=[]";
    let (code, _, errors) = run(train);
    assert_eq!(code, Some(0), "{errors}");
    assert!(fs::exists(home.path("run/model/mlrm.toml")).unwrap());
}
