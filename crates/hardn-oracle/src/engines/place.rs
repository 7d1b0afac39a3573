//! From a tool's lines and columns to spans, which count code points.

use hardn_types::Span;

/// What a tool's columns count. All count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Columns {
    CodePoints,
    Bytes,
    Utf16,
}

/// A place as a tool gives it; the end is exclusive.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    pub(crate) line: u32,
    pub(crate) column: Option<u32>,
    pub(crate) end_line: Option<u32>,
    pub(crate) end_column: Option<u32>,
}

/// The lines of a piece of code.
pub(crate) struct Lines<'a>(Vec<&'a str>);

impl<'a> Lines<'a> {
    pub(crate) fn new(code: &'a str) -> Self {
        Self(code.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).collect())
    }

    /// The span of a place. Without an end it is the word there; without a column the whole line.
    pub(crate) fn span(&self, place: Place, columns: Columns) -> Span {
        let line = place.line.clamp(1, self.0.len() as u32);
        let column = place.column.map_or_else(
            || self.text(line).chars().take_while(|c| c.is_whitespace()).count() as u32 + 1,
            |column| self.column(line, column, columns),
        );
        let end_line = place.end_line.unwrap_or(line).clamp(line, self.0.len() as u32);
        let end_column = match (place.end_column, place.column) {
            (Some(end), _) => self.column(end_line, end, columns),
            (None, Some(_)) if end_line == line => self.word_end(line, column),
            _ => self.text(end_line).chars().count() as u32 + 1,
        };
        let behind = end_line > line || end_column > column;
        Span { line, column, end_line, end_column: if behind { end_column } else { column + 1 } }
    }

    fn text(&self, line: u32) -> &'a str {
        self.0.get(line as usize - 1).copied().unwrap_or_default()
    }

    fn column(&self, line: u32, column: u32, columns: Columns) -> u32 {
        let before = column.saturating_sub(1) as usize;
        let text = self.text(line);
        let mut units = 0;
        let points = text
            .chars()
            .take_while(|c| {
                let fits = units < before;
                units += match columns {
                    Columns::CodePoints => 1,
                    Columns::Bytes => c.len_utf8(),
                    Columns::Utf16 => c.len_utf16(),
                };
                fits
            })
            .count();
        points as u32 + 1
    }

    fn word_end(&self, line: u32, column: u32) -> u32 {
        let word = self
            .text(line)
            .chars()
            .skip(column as usize - 1)
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .count();
        column + word.max(1) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(columns: Columns, place: (u32, u32), expected: (u32, u32, u32, u32)) {
        let lines = Lines::new("é𝒳 = eval(x)\r\nlast");
        let place = Place { line: place.0, column: Some(place.1), ..Place::default() };
        let span = lines.span(place, columns);
        assert_eq!((span.line, span.column, span.end_line, span.end_column), expected);
    }

    #[test]
    fn columns_become_code_points() {
        check(Columns::CodePoints, (1, 6), (1, 6, 1, 10));
        check(Columns::Bytes, (1, 10), (1, 6, 1, 10));
        check(Columns::Utf16, (1, 7), (1, 6, 1, 10));
        check(Columns::Bytes, (9, 1), (2, 1, 2, 5));
        check(Columns::Bytes, (2, 99), (2, 5, 2, 6));
    }
}
