//! Names and numbers of things. Parsed once, at the door; trusted ever after.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Most bytes in a name.
pub const NAME_LEN_MAX: usize = 128;

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing in it.
    #[error("is empty")]
    Empty,
    /// Longer than [`NAME_LEN_MAX`].
    #[error("has {0} bytes, {NAME_LEN_MAX} are allowed")]
    TooLong(usize),
    /// Holds something that would break a terminal, a path or a label.
    #[error("holds {0:?}; letters, digits and . _ - : / are allowed")]
    Character(char),
}

fn check_name(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > NAME_LEN_MAX {
        return Err(NameError::TooLong(text.len()));
    }
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '/');
    match text.chars().find(|c| !allowed(*c)) {
        Some(c) => Err(NameError::Character(c)),
        None => Ok(()),
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check_name(text).map(|()| Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "{:?}", &self.0)
            }
        }
    };
}

name_type!(
    /// The name that its owner gave a cluster.
    ClusterName
);
name_type!(
    /// Ray's own id of a node.
    NodeName
);
name_type!(
    /// The name of a custom resource.
    ResourceName
);
name_type!(
    /// A word that marks a cluster, such as `linux` or `gpu`.
    Tag
);

macro_rules! number_type {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The one after this.
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

number_type!(
    /// A task, by the order of its submission.
    TaskId(u64), "t"
);
number_type!(
    /// A grant of resources on one node. Only grows.
    LeaseId(u64), "lease"
);
number_type!(
    /// Which assignment of a task this is: 1 is the first. Together with the task it is the
    /// fencing token of an execution. Only grows.
    Attempt(u32), "#"
);
number_type!(
    /// A cluster, by the order of its registration.
    ClusterId(u32), "cluster"
);
number_type!(
    /// A node of one cluster, by the order of its first sighting.
    NodeId(u32), "node"
);
number_type!(
    /// A distinct task specification, shared by all tasks that have it.
    SpecId(u32), "spec"
);
number_type!(
    /// A class of tasks with equal needs: if one of them has no room now, none has.
    ClassId(u32), "class"
);

/// Why a text is not a task id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a task id looks like t42")]
pub struct TaskIdError;

impl FromStr for TaskId {
    type Err = TaskIdError;

    fn from_str(text: &str) -> Result<Self, TaskIdError> {
        let digits = text.strip_prefix('t').unwrap_or(text);
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if plain {
            digits.parse().map(Self).map_err(|_overflow| TaskIdError)
        } else {
            Err(TaskIdError)
        }
    }
}

/// The BLAKE3 digest of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(6).try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

/// What the submitter calls a submission, so that saying it twice does it once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Key {
    /// A UUID; version 7 when the SDK or the command line made it.
    Uuid(u128),
    /// The user's own words.
    Text(Box<str>),
}

/// Why a text is not a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Nothing in it.
    #[error("is empty")]
    Empty,
    /// Longer than [`NAME_LEN_MAX`].
    #[error("has {0} bytes, {NAME_LEN_MAX} are allowed")]
    TooLong(usize),
    /// Holds a character that would break a terminal.
    #[error("holds the control character {0:?}")]
    Character(char),
}

impl Key {
    /// Microseconds since the epoch at which a version 7 UUID was made; `None` for other keys.
    pub fn made_at_micros(&self) -> Option<u64> {
        let Self::Uuid(bits) = self else { return None };
        let millis = u64::try_from(bits >> 80).ok()?;
        ((bits >> 76) & 0xf == 7).then(|| millis.saturating_mul(1_000))
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        if text.is_empty() {
            return Err(KeyError::Empty);
        }
        if text.len() > NAME_LEN_MAX {
            return Err(KeyError::TooLong(text.len()));
        }
        if let Some(c) = text.chars().find(|c| c.is_control()) {
            return Err(KeyError::Character(c));
        }
        Ok(uuid_bits(text).map_or_else(|| Self::Text(text.into()), Self::Uuid))
    }
}

/// The bits of a UUID in its canonical lower-case form; any other text stays text, so that what a
/// user wrote is what he reads back.
fn uuid_bits(text: &str) -> Option<u128> {
    let dash_at = |index: usize| matches!(index, 8 | 13 | 18 | 23);
    if text.len() != 36 {
        return None;
    }
    text.bytes().enumerate().try_fold(0_u128, |bits, (index, byte)| match byte {
        b'-' if dash_at(index) => Some(bits),
        b'0'..=b'9' if !dash_at(index) => Some(bits << 4 | u128::from(byte - b'0')),
        b'a'..=b'f' if !dash_at(index) => Some(bits << 4 | u128::from(byte - b'a' + 10)),
        _ => None,
    })
}

impl fmt::Display for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => out.write_str(text),
            Self::Uuid(bits) => {
                let group = |shift: u32, width: u32| bits >> shift & ((1 << width) - 1);
                write!(out, "{:08x}-{:04x}-", group(96, 32), group(80, 16))?;
                write!(out, "{:04x}-{:04x}-{:012x}", group(64, 16), group(48, 16), group(0, 48))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_as_it_was_written() {
        for text in ["train-00", "0193b2c4-7a1e-7c3d-8e4f-0123456789ab", "0193B2C4-x", "é"] {
            assert_eq!(text.parse::<Key>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_version_7_uuid_tells_when_it_was_made() {
        let key: Key = "01939f5e-3c00-7000-8000-000000000000".parse().unwrap();
        assert_eq!(key.made_at_micros(), Some(0x0193_9f5e_3c00 * 1_000));
        let other: Key = "01939f5e-3c00-4000-8000-000000000000".parse().unwrap();
        assert_eq!(other.made_at_micros(), None);
    }

    #[test]
    fn names_that_would_break_something_are_refused_with_the_reason() {
        let why = |text: &str| text.parse::<ClusterName>().unwrap_err().to_string();
        assert_eq!(why(""), "is empty");
        assert_eq!(why("a\u{1b}[2J"), "holds '\\u{1b}'; letters, digits and . _ - : / are allowed");
        assert_eq!(why(&"a".repeat(129)), "has 129 bytes, 128 are allowed");
    }

    #[test]
    fn task_ids_are_read_with_and_without_their_letter() {
        assert_eq!("t42".parse(), Ok(TaskId(42)));
        assert_eq!("42".parse(), Ok(TaskId(42)));
        assert_eq!("t".parse::<TaskId>(), Err(TaskIdError));
        assert_eq!("+4".parse::<TaskId>(), Err(TaskIdError));
    }
}
