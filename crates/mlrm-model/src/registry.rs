//! The families of a kind of model that are not of this crate.

use std::sync::{PoisonError, RwLock};

use crate::error::ModelError;

/// A family, as a registry knows it.
pub(crate) trait Family: 'static {
    /// The `model_type`s by which it is found: its own, and that of a whole model that holds one of it.
    fn types(&self) -> [Option<&'static str>; 2];
}

/// Families that were added to those of this crate.
pub(crate) struct Registry<T: 'static>(RwLock<Vec<&'static T>>);

impl<T: Family> Registry<T> {
    pub(crate) const fn new() -> Self {
        Self(RwLock::new(Vec::new()))
    }

    /// Adds a family to those of this crate and the others that were added.
    pub(crate) fn add(
        &self,
        family: &'static T,
        built_in: impl Iterator<Item = &'static T>,
    ) -> Result<(), ModelError> {
        let mut added = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if added.iter().any(|known| std::ptr::eq(*known, family)) {
            return Ok(());
        }
        let known = built_in.chain(added.iter().copied());
        let known: Vec<&str> = known.flat_map(|known| known.types()).flatten().collect();
        let taken = family.types().into_iter().flatten();
        if let Some(taken) = taken.into_iter().find(|name| known.contains(name)) {
            let message = format!(
                "a family of the model_type `{taken}` is known already: give the other one a name of its own"
            );
            return Err(ModelError::config(&["model_type"], message));
        }
        added.push(family);
        Ok(())
    }

    /// All families, those of this crate first.
    pub(crate) fn with(
        &self,
        built_in: impl Iterator<Item = &'static T>,
    ) -> impl Iterator<Item = &'static T> {
        let added = self.0.read().unwrap_or_else(PoisonError::into_inner);
        built_in.chain(added.clone())
    }

    /// Every `model_type`, for messages.
    pub(crate) fn types(&self, built_in: impl Iterator<Item = &'static T>) -> String {
        let all = self.with(built_in);
        let names: Vec<&str> = all.flat_map(|family| family.types()).flatten().collect();
        names.join(", ")
    }
}

/// A family is its name: equal to another of the same, and shown by it.
macro_rules! named {
    ($family:ty) => {
        impl PartialEq for $family {
            fn eq(&self, other: &Self) -> bool {
                self.name == other.name
            }
        }

        impl std::fmt::Debug for $family {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name)
            }
        }
    };
}

pub(crate) use named;

#[cfg(test)]
mod tests {
    use super::*;

    struct Named(&'static str, Option<&'static str>);

    impl Family for Named {
        fn types(&self) -> [Option<&'static str>; 2] {
            [Some(self.0), self.1]
        }
    }

    #[test]
    fn a_name_belongs_to_one_family() {
        static OWN: [Named; 1] = [Named("clip_vision", Some("clip"))];
        static ONE: Named = Named("one", None);
        static OTHER: Named = Named("other", Some("clip"));
        static SAME: Named = Named("one", None);
        let registry = Registry::new();
        for _ in 0..2 {
            registry.add(&ONE, OWN.iter()).expect("a new name");
        }
        for taken in [&OTHER, &SAME, &OWN[0]] {
            let error = registry.add(taken, OWN.iter()).expect_err("a known name");
            assert!(error.to_string().contains("known already"), "{error}");
        }
        assert_eq!(registry.types(OWN.iter()), "clip_vision, clip, one");
    }
}
