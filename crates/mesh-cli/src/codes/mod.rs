//! What every code means: `schedulemesh why` and docs/reference/errors.md are made of this.

mod table;

pub use table::ENTRIES;

/// What a code is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// A request was refused, or failed.
    Error,
    /// What a cluster says about a task that waits.
    Verdict,
    /// The short answer to why a task is where it is.
    State,
    /// Why an attempt failed.
    Cause,
}

impl Topic {
    /// All of them, in the order of the reference.
    pub const ALL: [Self; 4] = [Self::Error, Self::Verdict, Self::State, Self::Cause];

    /// As a heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::Error => "Requests that were refused or failed",
            Self::Verdict => "What a cluster says about a task",
            Self::State => "Why a task is where it is",
            Self::Cause => "Why an attempt failed",
        }
    }
}

/// One code.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// As it is printed.
    pub code: &'static str,
    /// What it is about.
    pub topic: Topic,
    /// What it means.
    pub what: &'static str,
    /// How one gets out.
    pub fix: &'static str,
}

/// The entries of a code; capitals do not matter. A word such as `TIMED_OUT` can be a request's fate
/// and an attempt's.
pub fn find(code: &str) -> impl Iterator<Item = &'static Entry> {
    ENTRIES.iter().filter(move |entry| entry.code.eq_ignore_ascii_case(code))
}

/// The code that is spelt most like this one.
pub fn nearest(code: &str) -> &'static str {
    let wanted = code.to_ascii_uppercase();
    ENTRIES
        .iter()
        .map(|entry| entry.code)
        .min_by_key(|known| distance(&wanted, known))
        .unwrap_or("")
}

/// How many letters must be changed, added or left out to get from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, letter) in from.chars().enumerate() {
        let mut next = vec![index + 1];
        for (&other, costs) in to.iter().zip(row.windows(2)) {
            let [replaced, removed] = costs else { continue };
            let added = next.last().copied().unwrap_or_default();
            next.push((replaced + usize::from(letter != other)).min(removed + 1).min(added + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}
