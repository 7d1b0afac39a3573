//! Text from token bytes as they come, and where it stops.

/// The text of a growing list of tokens. Characters are never split: bytes wait until theirs is complete.
#[derive(Clone, Debug, Default)]
pub struct TextStream {
    text: String,
    waiting: Vec<u8>,
    token_chars: Vec<u32>,
}

impl TextStream {
    /// Adds one token's bytes and returns the text they completed, which may be empty.
    ///
    /// A character made by several tokens counts for the last of them. Bytes that cannot be part of UTF-8 become U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> &str {
        let start = self.text.len();
        self.waiting.extend_from_slice(bytes);
        let mut rest = self.waiting.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.text.push_str(text);
                    rest = &[];
                }
                Err(error) => {
                    let (good, bad) = rest.split_at(error.valid_up_to());
                    self.text.push_str(&String::from_utf8_lossy(good));
                    rest = bad;
                    if let Some(length) = error.error_len() {
                        self.text.push(char::REPLACEMENT_CHARACTER);
                        rest = &rest[length..];
                        continue;
                    }
                }
            }
            break;
        }
        self.waiting = rest.to_vec();
        let new = &self.text[start..];
        self.token_chars.push(new.chars().count() as u32);
        new
    }

    /// The text so far, without characters that are not complete yet.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How many characters of the text each token completed.
    pub fn token_chars(&self) -> &[u32] {
        &self.token_chars
    }

    /// The token that completed the character at a byte offset, or that comes after the text.
    pub fn token_at(&self, offset: usize) -> usize {
        let n_before = self.text.char_indices().take_while(|(at, _)| *at < offset).count() as u32;
        let mut sum = 0;
        let found = self.token_chars.iter().position(|chars| {
            sum += chars;
            sum > n_before
        });
        found.unwrap_or(self.token_chars.len())
    }

    /// The byte offset at which a token's text begins.
    pub fn token_start(&self, token: usize) -> usize {
        let n_before: u32 = self.token_chars.iter().take(token).sum();
        self.text.char_indices().nth(n_before as usize).map_or(self.text.len(), |(at, _)| at)
    }

    /// Ends the text at a byte offset. Tokens that gave nothing to what is left are dropped from the end.
    pub fn cut(&mut self, end: usize) {
        self.waiting.clear();
        let mut surplus = self.text[end..].chars().count() as u32;
        self.text.truncate(end);
        if surplus == 0 {
            return;
        }
        while let Some(chars) = self.token_chars.last_mut() {
            let taken = surplus.min(*chars);
            *chars -= taken;
            surplus -= taken;
            if *chars > 0 || surplus == 0 {
                break;
            }
            self.token_chars.pop();
        }
        while self.token_chars.last() == Some(&0) {
            self.token_chars.pop();
        }
    }

    /// The text, and how many characters each token gave to it.
    pub fn finish(self) -> (String, Vec<u32>) {
        (self.text, self.token_chars)
    }
}

/// Token ids and strings that end a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stops {
    /// Any of these tokens ends the text and is not part of it.
    pub tokens: Vec<u32>,
    /// Any of these strings ends the text before it.
    pub strings: Vec<String>,
}

impl Stops {
    /// The byte offset of the first stop string that ends after `seen` bytes of the text.
    pub fn find(&self, text: &str, seen: usize) -> Option<usize> {
        self.strings
            .iter()
            .filter(|stop| !stop.is_empty())
            .filter_map(|stop| {
                let mut from = (seen + 1).saturating_sub(stop.len());
                while !text.is_char_boundary(from) {
                    from -= 1;
                }
                text[from..].find(stop.as_str()).map(|offset| from + offset)
            })
            .min()
    }

    /// How much of the text's end may yet turn out to be the beginning of a stop string, in bytes.
    pub fn pending(&self, text: &str) -> usize {
        let longest = |stop: &String| {
            (1..stop.len()).rev().find(|&n| {
                stop.is_char_boundary(n) && text.as_bytes().ends_with(&stop.as_bytes()[..n])
            })
        };
        self.strings.iter().filter_map(longest).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_wait_until_they_are_complete() {
        let mut stream = TextStream::default();
        let euro = "€".as_bytes();
        assert_eq!(stream.push(b"a"), "a");
        assert_eq!(stream.push(&euro[..1]), "");
        assert_eq!(stream.push(&euro[1..2]), "");
        assert_eq!(stream.push(&[euro[2], b'b']), "€b");
        assert_eq!(stream.push(&euro[..2]), "");
        assert_eq!(stream.finish(), ("a€b".to_owned(), vec![1, 0, 0, 2, 0]));
    }

    #[test]
    fn tokens_are_found_by_their_place() {
        let mut stream = TextStream::default();
        for part in ["ab", "\u{20ac}", "", "cd"] {
            stream.push(part.as_bytes());
        }
        let found: Vec<usize> = [0, 1, 2, 5, 6, 7].map(|at| stream.token_at(at)).to_vec();
        assert_eq!(found, [0, 0, 1, 3, 3, 4]);
        assert_eq!([0, 1, 3, 4].map(|token| stream.token_start(token)), [0, 2, 5, 7]);
    }

    #[test]
    fn bad_bytes_are_replaced_as_usual() {
        for bytes in [&b"a\xffb"[..], b"\xe2\x82x", b"\xf0\x9f\x92\xc3\xa9", b"\x80\x80"] {
            let mut stream = TextStream::default();
            for byte in bytes {
                stream.push(&[*byte]);
            }
            assert_eq!(stream.text(), String::from_utf8_lossy(bytes), "{bytes:?}");
        }
    }

    #[test]
    fn cutting_keeps_counts_and_text_together() {
        let cut = |end: usize| {
            let mut stream = TextStream::default();
            for part in ["ab", "", "€d", "e"] {
                stream.push(part.as_bytes());
            }
            stream.cut(end);
            stream.finish()
        };
        assert_eq!(cut(7), ("ab€de".to_owned(), vec![2, 0, 2, 1]));
        assert_eq!(cut(6), ("ab€d".to_owned(), vec![2, 0, 2]));
        assert_eq!(cut(5), ("ab€".to_owned(), vec![2, 0, 1]));
        assert_eq!(cut(2), ("ab".to_owned(), vec![2]));
        assert_eq!(cut(0), (String::new(), vec![]));
    }

    #[test]
    fn stop_strings_are_found_across_tokens() {
        let stops =
            Stops { tokens: vec![], strings: vec!["\ndef".to_owned(), "€€".to_owned()] };
        assert_eq!(stops.find("x\ndef", 4), Some(1));
        assert_eq!(stops.find("x\nde", 4), None);
        assert_eq!(stops.find("a€€\ndef", 4), Some(1));
        assert_eq!(stops.find("a€b€", 6), None);
        for (text, pending) in [("x", 0), ("x\n", 1), ("x\nde", 3), ("€", 3), ("€x", 0), ("", 0)]
        {
            assert_eq!(stops.pending(text), pending, "{text:?}");
        }
    }
}
