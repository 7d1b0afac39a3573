//! A rough lexer for Python and C, good enough to compare texts: words, numbers, strings and marks.

/// What a lexeme is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Word,
    Number,
    Text,
    Mark,
    /// The end of a line, or the indentation of the next.
    Line,
}

/// Words that belong to the syntax; all others are names.
const KEYWORDS: [&str; 62] = [
    "and", "as", "assert", "async", "await", "break", "case", "char", "class", "const", "continue",
    "def", "default", "del", "do", "double", "elif", "else", "except", "enum", "extern", "False",
    "finally", "float", "for", "from", "global", "goto", "if", "import", "in", "include", "int",
    "is", "lambda", "long", "None", "nonlocal", "not", "or", "pass", "raise", "return", "short",
    "signed", "sizeof", "static", "struct", "switch", "True", "try", "typedef", "union",
    "unsigned", "void", "volatile", "while", "with", "yield", "NULL", "size_t", "self",
];

/// Splits a text. Comments are words and marks like everything else.
pub(crate) fn lex(text: &str) -> Vec<(Kind, &str)> {
    let bytes = text.as_bytes();
    let mut lexemes = Vec::with_capacity(text.len() / 3);
    let mut i = 0;
    while i < bytes.len() {
        let start = i;
        let kind = match bytes[i] {
            b'\n' => {
                i += 1;
                Kind::Line
            }
            b' ' if i > 0 && bytes[i - 1] == b'\n' => {
                while i < bytes.len() && bytes[i] == b' ' {
                    i += 1;
                }
                Kind::Line
            }
            byte if byte.is_ascii_whitespace() => {
                i += 1;
                continue;
            }
            b'"' | b'\'' => {
                i = end_of_string(bytes, i);
                if i == start + 1 { Kind::Mark } else { Kind::Text }
            }
            byte if byte.is_ascii_digit() => {
                i = end_of_word(bytes, i);
                Kind::Number
            }
            byte if is_word(byte) => {
                i = end_of_word(bytes, i);
                Kind::Word
            }
            _ => {
                i += 1;
                Kind::Mark
            }
        };
        lexemes.push((kind, text.get(start..i).unwrap_or_default()));
    }
    lexemes
}

/// The text with names, numbers and strings replaced by what they are.
pub(crate) fn shape(text: &str) -> String {
    let mut shape = String::with_capacity(text.len());
    for (kind, lexeme) in lex(text) {
        match kind {
            Kind::Word if KEYWORDS.contains(&lexeme) => shape.push_str(lexeme),
            Kind::Word => shape.push('x'),
            Kind::Number => shape.push('0'),
            Kind::Text => shape.push('"'),
            Kind::Mark | Kind::Line => shape.push_str(lexeme),
        }
        shape.push(' ');
    }
    shape
}

fn is_word(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric() || byte >= 0x80
}

fn end_of_word(bytes: &[u8], mut i: usize) -> usize {
    while i < bytes.len() && is_word(bytes[i]) {
        i += 1;
    }
    i
}

/// The end of the string that starts at `i`; of an apostrophe without a partner on its line, just behind it.
fn end_of_string(bytes: &[u8], i: usize) -> usize {
    let quote = bytes[i];
    let long = bytes[i..].starts_with(&[quote; 3]);
    let mut end = if long { i + 3 } else { i + 1 };
    while end < bytes.len() {
        match bytes[end] {
            b'\\' => end += 1,
            b'\n' if !long => return i + 1,
            byte if byte == quote && !long => return end + 1,
            _ if long && bytes[end..].starts_with(&[quote; 3]) => return end + 3,
            _ => {}
        }
        end += 1;
    }
    if long { bytes.len() } else { i + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_forget_names_and_keep_syntax() {
        let one = "def find(cur, name):\n    return cur.get(name, 3)\n";
        let two = "def look(db, key):\n    return db.pop(key, 7)\n";
        assert_eq!(shape(one), shape(two));
        assert_ne!(shape(one), shape("def look(db, key):\n    return db.pop(key)\n"));
    }

    #[test]
    fn strings_end_where_they_should() {
        let texts: Vec<&str> = lex("a = \"it's\" # don't\nb = '''x\ny''' + \"\\\"\"")
            .into_iter()
            .filter(|l| l.0 == Kind::Text)
            .map(|l| l.1)
            .collect();
        assert_eq!(texts, ["\"it's\"", "'''x\ny'''", "\"\\\"\""]);
    }
}
