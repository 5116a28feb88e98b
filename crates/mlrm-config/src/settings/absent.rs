//! TOML has no null, so an optional key whose default is a value needs a spelling for "none" that
//! survives writing the config down and reading it back.

/// A path that is absent when it is empty.
pub(super) mod empty_path {
    use std::path::PathBuf;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(
        path: &Option<PathBuf>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        path.clone().unwrap_or_default().serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<PathBuf>, D::Error> {
        let path = Option::<PathBuf>::deserialize(deserializer)?;
        Ok(path.filter(|path| !path.as_os_str().is_empty()))
    }
}

/// A count that is absent when it is 0.
pub(super) mod zero {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(
        count: &Option<usize>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        count.unwrap_or(0).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<usize>, D::Error> {
        let count = Option::<usize>::deserialize(deserializer)?;
        Ok(count.filter(|&count| count != 0))
    }
}
