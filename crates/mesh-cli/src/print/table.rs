//! Tables: columns aligned, two spaces apart, no frames, so that `awk` likes them too.

use comfy_table::{Attribute, CellAlignment, Color, ContentArrangement};

use super::text::{Paint, Style, harmless};

/// Narrower tables are not wrapped.
const WIDTH_MIN: u16 = 40;

/// A cell: its text, and how it looks.
#[derive(Clone, Debug)]
pub struct Cell {
    text: String,
    style: Style,
    right: bool,
}

impl Cell {
    /// In a style; text of others is made harmless.
    pub fn styled(text: impl AsRef<str>, style: Style) -> Self {
        Self { text: harmless(text.as_ref()).into_owned(), style, right: false }
    }

    /// A number, aligned to the right.
    pub fn number(text: impl Into<String>) -> Self {
        Self { text: text.into(), style: Style::Plain, right: true }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(text, Style::Plain)
    }
}

/// Renders a table. On a terminal, long cells wrap within its width.
pub fn render(paint: Paint, head: &[&str], rows: Vec<Vec<Cell>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    // What is narrower than this is no terminal, or one that does not know its size.
    if table.width().is_none_or(|width| width >= WIDTH_MIN) {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table.set_header(head.iter().map(|name| cell(paint, Cell::styled(name, Style::Strong))));
    for row in rows {
        table.add_row(row.into_iter().map(|entry| cell(paint, entry)));
    }
    let last = head.len().saturating_sub(1);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if index == last { 0 } else { 2 }));
    }
    trimmed(&table.to_string())
}

fn cell(paint: Paint, cell: Cell) -> comfy_table::Cell {
    let alignment = if cell.right { CellAlignment::Right } else { CellAlignment::Left };
    let shown = comfy_table::Cell::new(cell.text).set_alignment(alignment);
    if !paint.is_on() {
        return shown;
    }
    match cell.style {
        Style::Plain => shown,
        Style::Good => shown.fg(Color::Green),
        Style::Bad => shown.fg(Color::Red),
        Style::Active => shown.fg(Color::Cyan),
        Style::Dim => shown.add_attribute(Attribute::Dim),
        Style::Strong => shown.add_attribute(Attribute::Bold),
    }
}

/// A list of facts: names on the left, values on the right.
pub fn facts(paint: Paint, rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let line = |(name, value): &(&str, String)| {
        let name = paint.apply(Style::Dim, &format!("{name:width$}"));
        format!("{name}  {}", harmless(value))
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn trimmed(text: &str) -> String {
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_bare() {
        let rows = vec![
            vec!["t1".into(), Cell::number("5"), "a name".into()],
            vec!["t1000".into(), Cell::number("12.5"), "evil\x1b[0m".into()],
        ];
        insta::assert_snapshot!(render(Paint::when(false), &["ID", "PRIO", "NAME"], rows), @r"
        ID     PRIO  NAME
        t1        5  a name
        t1000  12.5  evil\u{1b}[0m
        ");
    }

    #[test]
    fn facts_stand_under_each_other() {
        let rows = [("id", "t1".to_owned()), ("cluster", "mac".to_owned())];
        insta::assert_snapshot!(facts(Paint::when(false), &rows), @r"
        id       t1
        cluster  mac
        ");
    }
}
