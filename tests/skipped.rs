//! Tests whose tool is not there.

/// Says that a test did not run for want of a tool, past the harness's capture, so that it is seen and can
/// be counted; fails where the environment variable `MLRM_REQUIRE_TOOLS` names the tool, or is `all`.
#[track_caller]
pub fn skipped(test: &str, tool: &str, why: &str) {
    let required = std::env::var("MLRM_REQUIRE_TOOLS").unwrap_or_default();
    let mut required = required.split([' ', ',']);
    assert!(
        !required.any(|name| name == tool || name == "all"),
        "{test}: {why}"
    );
    let line = format!("SKIPPED {test}: {why}\n");
    // Where standard error is gone nobody reads it.
    let _gone = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}
