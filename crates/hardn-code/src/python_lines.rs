//! Python's logical lines and blocks, read from text that may be unfinished or wrong.
//!
//! A parser gives up, or guesses, on text that a model left in the middle of a line. Where a block ends is decided
//! by indentation alone, so a scan for strings, comments and brackets is enough, and never fails.

/// The start of a logical line: a line that does not begin within a bracket, a string or a continued line.
struct LogicalLine<'a> {
    /// Byte offset of the line's first column.
    start: usize,
    /// Byte offset of its first character that is not white space.
    content: usize,
    /// Columns before it; a tab goes to the next multiple of 8.
    indent: usize,
    /// Its first word; empty for a line that starts with a sign.
    word: &'a str,
    is_comment: bool,
    /// Its last character outside comments and white space.
    last: u8,
}

/// A block that is open at the end of a prompt.
#[derive(Clone, Copy)]
struct Block {
    indent: usize,
    is_function: bool,
}

/// Words that open a block.
const OPENERS: [&str; 14] = [
    "def", "class", "async", "if", "elif", "else", "for", "while", "try", "except", "finally",
    "with", "match", "case",
];

/// Words that go on with a block at the same indentation.
const BRANCHES: [&str; 4] = ["elif", "else", "except", "finally"];

/// How many bytes of the completion belong to the block the prompt opened.
///
/// That block is the outermost function that is open at the prompt's end, else the outermost open block. Where
/// none is open, it is everything through the end of the first function or class of the completion.
pub(crate) fn block_end(prompt: &str, completion: &str) -> usize {
    let text = format!("{prompt}{completion}");
    let lines = logical_lines(&text);
    let first = lines.iter().position(|line| line.content >= prompt.len()).unwrap_or(lines.len());
    let (before, mut rest) = lines.split_at(first);

    let mut open: Vec<Block> = Vec::new();
    for line in before {
        open.retain(|block| block.indent < line.indent);
        if line.opens_block() {
            let is_function = matches!(line.word, "def" | "async");
            open.push(Block { indent: line.indent, is_function });
        }
    }
    let outermost = open.iter().find(|block| block.is_function).or(open.first());
    let block = if let Some(&block) = outermost {
        block
    } else {
        let opener =
            |line: &LogicalLine| line.indent == 0 && matches!(line.word, "def" | "class" | "async");
        let Some(at) = rest.iter().position(opener) else { return completion.len() };
        rest = &rest[at + 1..];
        Block { indent: 0, is_function: true }
    };

    // Comments at the margin belong to the block only if it goes on behind them.
    let mut end = None;
    for line in rest {
        if line.indent > block.indent {
            end = None;
            continue;
        }
        let goes_on =
            !block.is_function && line.indent == block.indent && BRANCHES.contains(&line.word);
        if goes_on {
            end = None;
            continue;
        }
        end.get_or_insert(line.start);
        if !line.is_comment {
            break;
        }
    }
    end.map_or(completion.len(), |end| end.saturating_sub(prompt.len()))
}

impl LogicalLine<'_> {
    fn opens_block(&self) -> bool {
        OPENERS.contains(&self.word) && self.last == b':'
    }
}

fn logical_lines(text: &str) -> Vec<LogicalLine<'_>> {
    let bytes = text.as_bytes();
    let mut lines = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let (content, indent) = margin(bytes, at);
        match bytes.get(content) {
            None => break,
            Some(b'\n') => {
                at = content + 1;
                continue;
            }
            Some(_) => {}
        }
        let (next, last) = scan_line(bytes, content);
        lines.push(LogicalLine {
            start: at,
            content,
            indent,
            word: word_at(text, content),
            is_comment: bytes[content] == b'#',
            last,
        });
        at = next;
    }
    lines
}

/// Where the line that starts at `at` has its first character, and in which column.
fn margin(bytes: &[u8], mut at: usize) -> (usize, usize) {
    let mut indent = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b' ' => indent += 1,
            b'\t' => indent = (indent / 8 + 1) * 8,
            b'\r' | b'\x0c' => {}
            _ => break,
        }
        at += 1;
    }
    (at, indent)
}

fn word_at(text: &str, at: usize) -> &str {
    let rest = &text[at..];
    let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
    &rest[..end]
}

/// Reads one logical line; returns where the next starts and this one's last character of code.
fn scan_line(bytes: &[u8], mut at: usize) -> (usize, u8) {
    let (mut depth, mut last) = (0_usize, 0);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'#' => {
                at = line_end(bytes, at);
                continue;
            }
            b'\n' if depth == 0 => return (at + 1, last),
            b'\n' if starts_definition(bytes, at + 1) => {
                // No expression holds a definition: the bracket was forgotten.
                return (at + 1, last);
            }
            b'\\' if bytes.get(at + 1) == Some(&b'\n') => at += 1,
            b'"' | b'\'' => {
                at = string_end(bytes, at);
                last = byte;
                continue;
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if !byte.is_ascii_whitespace() {
            last = byte;
        }
        at += 1;
    }
    (bytes.len(), last)
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |length| at + length)
}

fn starts_definition(bytes: &[u8], at: usize) -> bool {
    let (content, _) = margin(bytes, at);
    [&b"def "[..], b"class ", b"async def "].iter().any(|word| bytes[content..].starts_with(word))
}

/// Where the string literal that starts at `at` is over; a short one ends at the line's end at the latest.
fn string_end(bytes: &[u8], at: usize) -> usize {
    let quote = bytes[at];
    let triple = [quote; 3];
    let long = bytes[at..].starts_with(&triple);
    let mut i = at + if long { 3 } else { 1 };
    while let Some(&byte) = bytes.get(i) {
        match byte {
            b'\\' => i += 2,
            b'\n' if !long => return i,
            _ if long && bytes[i..].starts_with(&triple) => return i + 3,
            _ if !long && byte == quote => return i + 1,
            _ => i += 1,
        }
    }
    bytes.len()
}
