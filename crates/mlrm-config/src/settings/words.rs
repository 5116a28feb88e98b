//! Settings that are one of a few words.

/// Declares a setting that is one of a few words, each with its doc comment.
macro_rules! words {
    ($(#[$about:meta])* pub enum $kind:ident {
        $($(#[$meta:meta])* $value:ident = $word:literal,)+
    }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum $kind {
            $($(#[$meta])* #[serde(rename = $word)] $value,)+
        }

        impl $kind {
            /// All of them, in the order of the reference.
            pub const ALL: [Self; [$(stringify!($value)),+].len()] = [$(Self::$value),+];

            /// The word in configs.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)+
                }
            }
        }
    };
}

pub(super) use words;
