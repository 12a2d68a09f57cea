//! Text on a terminal: colours of ours, and nothing of anybody else's.

use std::borrow::Cow;
use std::fmt;

/// Whether colours are used.
#[derive(Clone, Copy, Debug)]
pub struct Paint {
    colours: bool,
}

/// The few styles there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As it is.
    Plain,
    /// It went well.
    Good,
    /// It went wrong.
    Bad,
    /// It goes on.
    Active,
    /// It matters less.
    Dim,
    /// A heading.
    Strong,
}

impl Paint {
    /// With colours, or without.
    pub fn when(colours: bool) -> Self {
        Self { colours }
    }

    /// Whether there are colours.
    pub fn is_on(self) -> bool {
        self.colours
    }

    /// `text` in a style.
    pub fn apply(self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Good => "32",
            Style::Bad => "31",
            Style::Active => "36",
            Style::Dim => "2",
            Style::Strong => "1",
            Style::Plain => return text.to_owned(),
        };
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// The style of a phase, a link state or a breaker state.
pub fn style_of(word: &str) -> Style {
    match word {
        "succeeded" | "ready" | "closed" | "yes" => Style::Good,
        "failed" | "lost" | "open" | "suspect" => Style::Bad,
        "running" | "assigned" | "stopping" => Style::Active,
        "cancelled" | "draining" => Style::Dim,
        _ => Style::Plain,
    }
}

/// One line that cannot move the cursor, change colours, set the title, write to the clipboard or
/// turn the direction of text: control characters and their like are shown as escapes.
pub fn harmless(text: &str) -> Cow<'_, str> {
    if text.chars().any(is_harmful) {
        Cow::Owned(text.chars().fold(String::new(), |mut out, letter| {
            push_escaped(&mut out, letter);
            out
        }))
    } else {
        Cow::Borrowed(text)
    }
}

/// The same for text of many lines, such as a log: line ends and tabs stay.
pub fn harmless_lines(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' | '\t' => out.push(letter),
            // A progress bar returns the carriage; each state of it becomes a line.
            '\r' => out.push('\n'),
            letter => push_escaped(&mut out, letter),
        }
    }
    out
}

fn push_escaped(out: &mut String, letter: char) {
    if is_harmful(letter) {
        out.extend(letter.escape_default());
    } else {
        out.push(letter);
    }
}

fn is_harmful(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// What to print where there is nothing.
pub const NOTHING: &str = "-";

/// Prints nothing as a dash.
#[derive(Debug)]
pub struct OrDash<T>(pub Option<T>);

impl<T: fmt::Display> fmt::Display for OrDash<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(out),
            None => out.write_str(NOTHING),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_cannot_drive_the_terminal() {
        assert_eq!(harmless("plain, ünïcode, 日本"), "plain, ünïcode, 日本");
        assert_eq!(harmless("\x1b]52;c;aGk=\x07"), "\\u{1b}]52;c;aGk=\\u{7}");
        assert_eq!(harmless("a\nb\rc"), "a\\nb\\rc");
        assert_eq!(harmless("abc\u{202e}fed"), "abc\\u{202e}fed");
        assert_eq!(harmless_lines("10 %\r20 %\r\n\tdone\x1b[2J"), "10 %\n20 %\n\tdone\\u{1b}[2J");
    }

    #[test]
    fn colours_appear_only_when_wanted() {
        assert_eq!(Paint::when(false).apply(Style::Bad, "x"), "x");
        assert_eq!(Paint::when(true).apply(Style::Bad, "x"), "\x1b[31mx\x1b[0m");
        assert_eq!(Paint::when(true).apply(Style::Plain, "x"), "x");
    }
}
