//! Device names: which backend, which of its devices.

use std::fmt;
use std::str::FromStr;

use crate::suggest::closest;

/// The backends that a config can name. Which of them a binary holds is decided when it is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackendName {
    /// The CPU.
    Flex,
    /// Vulkan, shaders as SPIR-V.
    Vulkan,
    /// WebGPU, shaders as WGSL, on whatever driver the system has.
    Wgpu,
    /// Apple GPUs.
    Metal,
    /// NVIDIA GPUs.
    Cuda,
    /// AMD GPUs through HIP.
    Rocm,
}

impl BackendName {
    /// All of them, the default first.
    pub const ALL: [Self; 6] = [
        Self::Flex,
        Self::Vulkan,
        Self::Wgpu,
        Self::Metal,
        Self::Cuda,
        Self::Rocm,
    ];

    /// The name in configs, which is also the cargo feature that brings the backend.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::Vulkan => "vulkan",
            Self::Wgpu => "wgpu",
            Self::Metal => "metal",
            Self::Cuda => "cuda",
            Self::Rocm => "rocm",
        }
    }

    /// Whether a machine can hold several devices of it, so that a name may carry an index.
    pub fn indexed(self) -> bool {
        !matches!(self, Self::Flex | Self::Metal)
    }
}

/// A device name taken apart: `cuda:1` is device 1 of [`BackendName::Cuda`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceName {
    /// The backend.
    pub backend: BackendName,
    /// Which of the backend's devices; 0 when the name has no index.
    pub index: usize,
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.backend.name())?;
        if self.backend.indexed() {
            write!(f, ":{}", self.index)?;
        }
        Ok(())
    }
}

/// Why a text is not a device name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not a device name: {reason}")]
pub struct DeviceNameError {
    /// The text as written.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
    /// The device name that was probably meant.
    pub nearest: Option<String>,
}

impl FromStr for DeviceName {
    type Err = DeviceNameError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let (head, index) = match name.split_once(':') {
            Some((head, index)) => (head, Some(index)),
            None => (name, None),
        };
        let error = |reason: String, nearest: Option<String>| DeviceNameError {
            name: name.into(),
            reason,
            nearest,
        };
        let Some(backend) = BackendName::ALL.into_iter().find(|b| b.name() == head) else {
            return Err(error(
                format!("there is no backend `{head}`"),
                nearest_device(name),
            ));
        };
        let index = match index {
            None => 0,
            Some(_) if !backend.indexed() => {
                return Err(error(
                    format!("`{head}` is one device and takes no index"),
                    Some(head.into()),
                ));
            }
            Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits
                    .parse()
                    .map_err(|_| error(format!("the index {digits} is too large"), None))?
            }
            Some(other) => {
                return Err(error(
                    format!("`{other}` is not an index (0, 1, …)"),
                    Some(format!("{head}:0")),
                ));
            }
        };
        Ok(Self { backend, index })
    }
}

/// The device name that a misspelt one is probably meant to be.
fn nearest_device(written: &str) -> Option<String> {
    let lower = written.to_lowercase();
    if lower == "cpu" {
        return Some("flex".into());
    }
    let letters: String = lower.chars().take_while(|c| c.is_alphabetic()).collect();
    let digits: String = lower.chars().filter(char::is_ascii_digit).collect();
    let backend = closest(&letters, BackendName::ALL.map(BackendName::name))?;
    let indexed = BackendName::ALL
        .into_iter()
        .any(|b| b.name() == backend && b.indexed());
    Some(if indexed && !digits.is_empty() {
        format!("{backend}:{digits}")
    } else {
        backend.to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for (written, normal) in [
            ("flex", "flex"),
            ("metal", "metal"),
            ("cuda", "cuda:0"),
            ("cuda:1", "cuda:1"),
            ("vulkan:12", "vulkan:12"),
        ] {
            let device: DeviceName = written.parse().unwrap();
            assert_eq!(device.to_string(), normal);
            assert_eq!(normal.parse(), Ok(device));
        }
    }

    #[test]
    fn wrong_names_say_what_was_meant() {
        for (written, nearest) in [
            ("cuda1", Some("cuda:1")),
            ("CUDA:0", Some("cuda:0")),
            ("cpu", Some("flex")),
            ("vulcan", Some("vulkan")),
            ("flex:0", Some("flex")),
            ("cuda:", Some("cuda:0")),
            ("cuda:+1", Some("cuda:0")),
            ("cuda:99999999999999999999999", None),
            ("", None),
            ("tpu", None),
        ] {
            let error = written.parse::<DeviceName>().unwrap_err();
            assert_eq!(error.nearest.as_deref(), nearest, "{written}: {error}");
        }
    }
}
