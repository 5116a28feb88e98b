//! Names on the Hugging Face Hub.

use super::Finding;
use crate::{HubNameError, RunConfig};

pub(super) fn check(config: &RunConfig, findings: &mut Vec<Finding>) {
    for (key, path) in config.model_paths() {
        if let Some(Err(error)) = path.hub_name() {
            findings.push(Finding::new(key, error.to_string()).help(HubNameError::HELP));
        }
    }
}
