//! The bytes that travel: arguments that can be told from any others by themselves, and results that
//! follow from them.

use bytes::Bytes;

/// Bytes before the pattern: the seed and the length of the whole.
const HEADER: usize = 12;
/// What a link carries no more inside a frame; see [`mesh_api::INLINE_MAX`].
const LARGE: usize = mesh_api::INLINE_MAX + 10_000;

/// What a task is like. All of it follows from the seed, which follows from its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recipe {
    /// The first eight bytes of the digest of its key.
    pub(crate) seed: u64,
}

/// What becomes of a task when it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It returns.
    Returns,
    /// It raises.
    Raises,
}

impl Recipe {
    /// The recipe of a key.
    pub(crate) fn of_key(key: &str) -> Self {
        let digest = mesh_api::convert::digest_of(key.as_bytes());
        let seed = digest.0.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        Self { seed }
    }

    /// The recipe that some arguments were made by, if they are whole.
    pub(crate) fn of_payload(payload: &[u8]) -> Option<Self> {
        let seed = u64::from_le_bytes(*payload.first_chunk()?);
        let recipe = Self { seed };
        (recipe.payload() == payload).then_some(recipe)
    }

    /// Whether its arguments travel as a blob.
    pub(crate) fn has_blob(self) -> bool {
        self.draw(1, 100) < 3
    }

    /// Whether its result does.
    pub(crate) fn returns_blob(self) -> bool {
        self.draw(2, 100) < 3
    }

    /// What becomes of it.
    pub(crate) fn fate(self) -> Fate {
        if self.draw(3, 100) < 4 { Fate::Raises } else { Fate::Returns }
    }

    /// How long it runs, in milliseconds.
    pub(crate) fn runs_ms(self) -> u64 {
        match self.draw(4, 100) {
            0..3 => 400 + self.draw(5, 1_200),
            3..20 => 10 + self.draw(5, 60),
            _ => self.draw(5, 6),
        }
    }

    /// Its arguments.
    pub(crate) fn payload(self) -> Bytes {
        let size = match self.draw(6, 100) {
            _ if self.has_blob() => LARGE,
            0..8 => 20_000,
            _ => self.size(7, 400),
        };
        bytes(self.seed, size)
    }

    /// What an attempt returns or raises.
    pub(crate) fn result(self, attempt: u32) -> Bytes {
        let size = match self.draw(8, 100) {
            _ if self.returns_blob() => LARGE,
            0..8 => 15_000,
            _ => self.size(9, 300),
        };
        bytes(self.seed ^ (u64::from(attempt) << 32) ^ 0x5bd1_e995, size)
    }

    fn size(self, question: u64, bound: u64) -> usize {
        usize::try_from(self.draw(question, bound)).unwrap_or(0)
    }

    /// A number below `bound` that follows from the seed, and from which question it answers.
    fn draw(self, question: u64, bound: u64) -> u64 {
        let mut random =
            fastrand::Rng::with_seed(self.seed ^ question.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        random.u64(..bound)
    }
}

/// A pattern that begins with its seed and its length.
fn bytes(seed: u64, size: usize) -> Bytes {
    let size = size.max(HEADER);
    let mut bytes = vec![0; size];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..HEADER].copy_from_slice(&u32::try_from(size).unwrap_or(0).to_le_bytes());
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_tell_their_recipe_and_one_changed_byte_spoils_them() {
        for number in 0..200 {
            let recipe = Recipe::of_key(&format!("key-{number}"));
            let payload = recipe.payload();
            assert_eq!(Recipe::of_payload(&payload), Some(recipe));
            assert_eq!(payload.len() > mesh_api::INLINE_MAX, recipe.has_blob());
            let mut spoilt = payload.to_vec();
            let last = spoilt.len() - 1;
            spoilt[last] ^= 1;
            assert_eq!(Recipe::of_payload(&spoilt), None);
        }
    }

    #[test]
    fn each_attempt_has_a_result_of_its_own() {
        let recipe = Recipe::of_key("key");
        assert_ne!(recipe.result(1), recipe.result(2));
        assert_eq!(recipe.result(1), recipe.result(1));
    }
}
