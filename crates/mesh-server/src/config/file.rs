//! The layer of the file: TOML with known keys, each value with its line.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Mistake, Origin, Sources, Values, table};

/// Reads the file that was named on the command line or by `SCHEDULEMESH_CONFIG`, which must be
/// there, or `config.toml` in the state directory, which need not.
pub(super) fn read(sources: &Sources, state_dir: &Path, mistakes: &mut Vec<Mistake>) -> Values {
    let named = sources.config.clone();
    let named = named.or_else(|| sources.variable("SCHEDULEMESH_CONFIG").map(PathBuf::from));
    let path = named.clone().unwrap_or_else(|| state_dir.join("config.toml"));
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => {
            if named.is_some() || error.kind() != std::io::ErrorKind::NotFound {
                let origin = match &sources.config {
                    Some(_) => Origin::Flag("--config".into()),
                    None => Origin::Variable("SCHEDULEMESH_CONFIG".into()),
                };
                let what = format!("{} can't be read: {error}", path.display());
                mistakes.push(Mistake { origin, what });
            }
            return Values::new();
        }
    };
    parse(&path, &text, mistakes)
}

fn parse(path: &Path, text: &str, mistakes: &mut Vec<Mistake>) -> Values {
    let at = |offset: usize| Origin::File(path.to_owned(), line(text, offset));
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let offset = error.span().map_or(0, |span| span.start);
        mistakes.push(Mistake { origin: at(offset), what: error.message().to_owned() });
    }
    if !errors.is_empty() {
        return Values::new();
    }
    let mut values = Values::new();
    for (key, value) in root.get_ref() {
        let origin = at(key.span().start);
        let name = key.get_ref().as_ref();
        match (table::find(name), plain(value)) {
            (None, _) => mistakes.push(Mistake { origin, what: table::unknown(name) }),
            (Some(_), None) => {
                let what =
                    format!("{name} must be a text, a number, true, false or a list of texts");
                mistakes.push(Mistake { origin, what });
            }
            (Some(setting), Some(value)) => drop(values.insert(setting.key, (value, origin))),
        }
    }
    values
}

/// A value as one would write it in a variable.
fn plain(value: &Spanned<DeValue<'_>>) -> Option<String> {
    match value.get_ref() {
        DeValue::String(text) => Some(text.clone().into_owned()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Boolean(switch) => Some(switch.to_string()),
        DeValue::Array(items) => {
            let words: Option<Vec<String>> = items.iter().map(plain).collect();
            Some(words?.join(","))
        }
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => None,
    }
}

fn line(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}
