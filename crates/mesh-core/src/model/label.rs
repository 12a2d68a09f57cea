//! Labels, and what matches them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::id::{ClusterName, Tag};

/// Key and value pairs on a node or a cluster.
pub type Labels = BTreeMap<String, String>;

/// One demand on the labels of a node, in the operators that Kubernetes users know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LabelRule {
    /// The label that is looked at.
    pub key: String,
    /// What must hold of it.
    pub test: LabelTest,
}

/// What must hold of a label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LabelTest {
    /// Its value is one of these.
    In(BTreeSet<String>),
    /// It is absent, or its value is none of these.
    NotIn(BTreeSet<String>),
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
    /// It is a whole number above this one.
    Gt(i64),
    /// It is a whole number below this one.
    Lt(i64),
}

impl LabelRule {
    /// Whether `labels` satisfy this rule.
    pub fn holds(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        let number = || value.and_then(|text| text.parse::<i64>().ok());
        match &self.test {
            LabelTest::In(set) => value.is_some_and(|text| set.contains(text)),
            LabelTest::NotIn(set) => value.is_none_or(|text| !set.contains(text)),
            LabelTest::Exists => value.is_some(),
            LabelTest::DoesNotExist => value.is_none(),
            LabelTest::Gt(bound) => number().is_some_and(|number| number > *bound),
            LabelTest::Lt(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

impl fmt::Display for LabelRule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let list =
            |set: &BTreeSet<String>| set.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        match &self.test {
            LabelTest::In(set) => write!(out, "{key} in ({})", list(set)),
            LabelTest::NotIn(set) => write!(out, "{key} not in ({})", list(set)),
            LabelTest::Exists => write!(out, "{key} exists"),
            LabelTest::DoesNotExist => write!(out, "{key} does not exist"),
            LabelTest::Gt(bound) => write!(out, "{key} > {bound}"),
            LabelTest::Lt(bound) => write!(out, "{key} < {bound}"),
        }
    }
}

/// Where a task may run, and where it would rather run.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Affinity {
    /// Tags that the cluster must have, all of them.
    pub required: BTreeSet<Tag>,
    /// Tags that make a cluster more welcome, each by the same weight.
    pub preferred: BTreeSet<Tag>,
    /// Tags that the cluster must not have.
    pub avoided: BTreeSet<Tag>,
    /// Demands on the labels of the node, which has its cluster's labels too.
    pub labels: Vec<LabelRule>,
    /// The cluster that is wanted by name.
    pub cluster: Option<ClusterName>,
    /// What to do while that cluster can't take the task.
    pub otherwise: Otherwise,
}

/// What a task does while the cluster that it prefers cannot take work at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Otherwise {
    /// Goes elsewhere when the preferred cluster is unhealthy; waits for it when it is only full.
    #[default]
    Elsewhere,
    /// Waits for that cluster, whatever happens.
    Wait,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operator_reads_present_absent_and_numeric_labels() {
        let labels: Labels =
            [("arch", "arm64"), ("gen", "7")].map(|(k, v)| (k.into(), v.into())).into();
        let set = |word: &str| BTreeSet::from([word.to_owned()]);
        let cases = [
            ("arch", LabelTest::In(set("arm64")), true),
            ("arch", LabelTest::In(set("x86_64")), false),
            ("none", LabelTest::In(set("arm64")), false),
            ("arch", LabelTest::NotIn(set("arm64")), false),
            ("none", LabelTest::NotIn(set("arm64")), true),
            ("arch", LabelTest::Exists, true),
            ("none", LabelTest::Exists, false),
            ("none", LabelTest::DoesNotExist, true),
            ("arch", LabelTest::DoesNotExist, false),
            ("gen", LabelTest::Gt(6), true),
            ("gen", LabelTest::Gt(7), false),
            ("gen", LabelTest::Lt(8), true),
            ("arch", LabelTest::Lt(8), false),
        ];
        for (key, test, expected) in cases {
            let rule = LabelRule { key: key.into(), test };
            assert_eq!(rule.holds(&labels), expected, "{rule}");
        }
    }
}
