//! The text of label rules: what people write, and what [`LabelRule`] prints.

use std::collections::BTreeSet;

use mesh_core::model::label::{LabelRule, LabelTest};

/// The forms, for messages.
const FORMS: &str = "write `arch=arm64`, `arch!=arm64`, `zone in (a, b)`, `zone not in (a, b)`, \
                     `gpu exists`, `gpu does not exist`, `gen > 7` or `gen < 7`";

/// Most bytes of a rule.
const RULE_LEN_MAX: usize = 4_096;

/// Reads a label rule.
pub fn label_rule(text: &str) -> Result<LabelRule, String> {
    if text.len() > RULE_LEN_MAX {
        return Err(format!("has {} bytes, {RULE_LEN_MAX} are allowed", text.len()));
    }
    let text = text.trim();
    let end = text.find(|c: char| !is_key(c)).unwrap_or(text.len());
    let (key, rest) = text.split_at_checked(end).unwrap_or((text, ""));
    if key.is_empty() {
        return Err(format!("{text:?} does not begin with the key of a label; {FORMS}"));
    }
    let read = label_test(rest.trim()).ok_or_else(|| format!("{text:?} is no rule; {FORMS}"))?;
    Ok(LabelRule { key: key.to_owned(), test: read? })
}

fn is_key(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':')
}

/// The test of a rule; nothing when the text has none of the forms.
fn label_test(text: &str) -> Option<Result<LabelTest, String>> {
    match text {
        "exists" => return Some(Ok(LabelTest::Exists)),
        "does not exist" => return Some(Ok(LabelTest::DoesNotExist)),
        _ => {}
    }
    if let Some(value) = text.strip_prefix("!=") {
        return Some(single(value).map(LabelTest::NotIn));
    }
    if let Some(value) = text.strip_prefix('=') {
        return Some(single(value.strip_prefix('=').unwrap_or(value)).map(LabelTest::In));
    }
    if let Some(bound) = text.strip_prefix('>') {
        return Some(number(bound).map(LabelTest::Gt));
    }
    if let Some(bound) = text.strip_prefix('<') {
        return Some(number(bound).map(LabelTest::Lt));
    }
    if let Some(values) = text.strip_prefix("not in") {
        return Some(list(values).map(LabelTest::NotIn));
    }
    text.strip_prefix("in").map(|values| list(values).map(LabelTest::In))
}

fn single(text: &str) -> Result<BTreeSet<String>, String> {
    value(text).map(|value| BTreeSet::from([value]))
}

fn value(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("has an empty value".into());
    }
    match text.chars().find(|c| c.is_control() || matches!(c, '(' | ')' | ',')) {
        Some(c) => Err(format!("has a value that holds {c:?}")),
        None => Ok(text.to_owned()),
    }
}

fn list(text: &str) -> Result<BTreeSet<String>, String> {
    let inner = text.trim().strip_prefix('(').and_then(|text| text.strip_suffix(')'));
    let inner = inner.ok_or("needs its values in parentheses, such as `zone in (a, b)`")?;
    inner.split(',').map(value).collect()
}

fn number(text: &str) -> Result<i64, String> {
    let text = text.trim();
    text.parse().map_err(|_why| format!("compares with {text:?}, which is not a whole number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_reads_and_prints() {
        let cases = [
            ("arch=arm64", "arch in (arm64)"),
            ("arch == arm64", "arch in (arm64)"),
            ("arch!=arm64", "arch not in (arm64)"),
            (" zone in (b, a) ", "zone in (a, b)"),
            ("zone not in (a)", "zone not in (a)"),
            ("gpu exists", "gpu exists"),
            ("gpu does not exist", "gpu does not exist"),
            ("gen > 7", "gen > 7"),
            ("gen<-7", "gen < -7"),
            ("ray.io/accelerator-type=A100", "ray.io/accelerator-type in (A100)"),
        ];
        for (text, printed) in cases {
            let rule = label_rule(text).unwrap();
            assert_eq!(rule.to_string(), printed);
            assert_eq!(label_rule(&rule.to_string()).unwrap(), rule, "prints what it reads");
        }
    }

    #[test]
    fn what_is_no_rule_says_what_would_be_one() {
        let why = |text: &str| label_rule(text).unwrap_err();
        assert_eq!(why("arch"), format!("\"arch\" is no rule; {FORMS}"));
        assert_eq!(why("arch like x"), format!("\"arch like x\" is no rule; {FORMS}"));
        assert_eq!(why("=x"), format!("\"=x\" does not begin with the key of a label; {FORMS}"));
        assert_eq!(why("arch="), "has an empty value");
        assert_eq!(why("arch=a(b"), "has a value that holds '('");
        assert_eq!(
            why("zone in a, b"),
            "needs its values in parentheses, such as `zone in (a, b)`"
        );
        assert_eq!(why("zone in ()"), "has an empty value");
        assert_eq!(why("gen > many"), "compares with \"many\", which is not a whole number");
        assert_eq!(why(&"a".repeat(5_000)), "has 5000 bytes, 4096 are allowed");
    }
}
