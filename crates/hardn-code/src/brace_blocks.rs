//! Where functions end in languages with braces, read from text that may be unfinished or wrong.

/// How many bytes of the completion belong to the function the prompt opened: through the brace that closes it.
///
/// A function within a class or namespace ends by itself. Where none is open at the prompt's end, it is everything
/// through the end of the first function of the completion. A function that is never closed takes all.
pub(crate) fn function_end(prompt: &str, completion: &str) -> usize {
    let text = format!("{prompt}{completion}");
    let bytes = text.as_bytes();
    let mut open_braces: Vec<bool> = Vec::new(); // true: a function's
    let mut head = Head::default();
    let mut at = 0;
    let mut line_start = true;
    while let Some(&byte) = bytes.get(at) {
        if line_start && byte == b'#' {
            at = directive_end(bytes, at);
            continue;
        }
        line_start = byte == b'\n' || (line_start && byte.is_ascii_whitespace());
        match byte {
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                at += position(&bytes[at..], b"\n");
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => {
                at += 2;
                at += position(&bytes[at..], b"*/") + 2;
                continue;
            }
            b'"' | b'\'' | b'`' => {
                at = literal_end(bytes, at);
                continue;
            }
            b'{' => open_braces.push(std::mem::take(&mut head).is_function()),
            b'}' => {
                let function = open_braces.pop().unwrap_or(false);
                if function && !open_braces.contains(&true) && at >= prompt.len() {
                    return at + 1 - prompt.len();
                }
                head = Head::default();
            }
            b';' => head = Head::default(),
            _ => head.push(byte),
        }
        at += 1;
    }
    completion.len()
}

/// What stands before a brace since the statement began.
#[derive(Default)]
struct Head {
    has_parenthesis: bool,
    last: u8,
}

impl Head {
    fn push(&mut self, byte: u8) {
        self.has_parenthesis |= byte == b'(';
        if !byte.is_ascii_whitespace() {
            self.last = byte;
        }
    }

    /// Types and namespaces have no parameter list, and a value's brace follows `=`.
    fn is_function(&self) -> bool {
        self.has_parenthesis && self.last != b'='
    }
}

fn position(bytes: &[u8], pattern: &[u8]) -> usize {
    bytes.windows(pattern.len()).position(|window| window == pattern).unwrap_or(bytes.len())
}

/// Behind the line of a preprocessor directive, continued lines included.
fn directive_end(bytes: &[u8], mut at: usize) -> usize {
    loop {
        at += position(&bytes[at..], b"\n");
        let continued = at < bytes.len() && at > 0 && bytes[at - 1] == b'\\';
        if !continued {
            return at;
        }
        at += 1;
    }
}

/// Where a text or character literal is over; one in `"` or `'` ends at the line's end at the latest.
fn literal_end(bytes: &[u8], at: usize) -> usize {
    let quote = bytes[at];
    let mut i = at + 1;
    while let Some(&byte) = bytes.get(i) {
        match byte {
            b'\\' => i += 2,
            b'\n' if quote != b'`' => return i,
            _ if byte == quote => return i + 1,
            _ => i += 1,
        }
    }
    bytes.len()
}
