//! Longest-block matching of two sequences, as Python 3.11's difflib defines it.
//!
//! Published token masks were made with difflib, so its choices (which of several longest blocks wins, which
//! elements are too popular to anchor a block) are part of the data format. Only the behaviour is difflib's;
//! junk functions are left out, because no published mask uses them.

use std::{collections::HashMap, hash::Hash, ops::Range};

/// From this length on, elements of the second sequence can be too popular to anchor a block.
const POPULARITY_MIN_LEN: usize = 200;

/// A run of equal elements: `a[a..a + len]` equals `b[b..b + len]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the type's sentence says it")]
pub struct Block {
    pub a: usize,
    pub b: usize,
    pub len: usize,
}

/// What turns a stretch of the first sequence into one of the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum OpTag {
    Equal,
    Replace,
    Delete,
    Insert,
}

/// One step from the first sequence to the second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opcode {
    /// What happens.
    pub tag: OpTag,
    /// The stretch of the first sequence.
    pub a: Range<usize>,
    /// The stretch of the second sequence.
    pub b: Range<usize>,
}

/// Two sequences, ready to be compared.
#[derive(Clone, Debug)]
pub struct SequenceMatcher {
    /// The sequences, with equal elements numbered alike.
    a: Vec<usize>,
    b: Vec<usize>,
    /// Where each number stands in `b`, ascending; empty for elements too popular to anchor.
    anchors: Vec<Vec<usize>>,
}

impl SequenceMatcher {
    /// Compares `a` with `b`. With `autojunk` (Python's default) and 200 or more elements in `b`, an element
    /// that stands there more than `len / 100 + 1` times starts no block; it can only extend one.
    pub fn new<T: Eq + Hash>(a: &[T], b: &[T], autojunk: bool) -> Self {
        let mut numbers: HashMap<&T, usize> = HashMap::new();
        let mut numbered = Vec::with_capacity(a.len() + b.len());
        for item in a.iter().chain(b) {
            let next = numbers.len();
            numbered.push(*numbers.entry(item).or_insert(next));
        }
        let second = numbered.split_off(a.len());

        let mut anchors = vec![Vec::new(); numbers.len()];
        for (j, &symbol) in second.iter().enumerate() {
            anchors[symbol].push(j);
        }
        if autojunk && second.len() >= POPULARITY_MIN_LEN {
            let most = second.len() / 100 + 1;
            for places in anchors.iter_mut().filter(|places| places.len() > most) {
                places.clear();
            }
        }
        Self { a: numbered, b: second, anchors }
    }

    /// The longest block within the two stretches: of several, the one that starts first in `a`, then in `b`.
    /// Its length is 0 where nothing matches.
    pub fn find_longest_match(&self, a: Range<usize>, b: Range<usize>) -> Block {
        let mut best = Block { a: a.start, b: b.start, len: 0 };
        // `ending[j + 1]` is the length of the run of anchors that ends at the row before and at b[j].
        let mut ending = vec![0_usize; self.b.len() + 1];
        let mut row: Vec<(usize, usize)> = Vec::new();
        for i in a.clone() {
            let places = &self.anchors[self.a[i]];
            let first = places.partition_point(|&j| j < b.start);
            let in_range = places[first..].iter().copied().take_while(|&j| j < b.end);
            let next: Vec<(usize, usize)> = in_range.map(|j| (j, ending[j] + 1)).collect();
            for &(j, _) in &row {
                ending[j + 1] = 0;
            }
            for &(j, len) in &next {
                ending[j + 1] = len;
                if len > best.len {
                    best = Block { a: i + 1 - len, b: j + 1 - len, len };
                }
            }
            row = next;
        }
        self.extend(best, &a, &b)
    }

    /// Lengthens a block on both ends over equal elements, popular or not.
    fn extend(&self, mut block: Block, a: &Range<usize>, b: &Range<usize>) -> Block {
        while block.a > a.start && block.b > b.start && self.a[block.a - 1] == self.b[block.b - 1] {
            block = Block { a: block.a - 1, b: block.b - 1, len: block.len + 1 };
        }
        while block.a + block.len < a.end
            && block.b + block.len < b.end
            && self.a[block.a + block.len] == self.b[block.b + block.len]
        {
            block.len += 1;
        }
        block
    }

    /// All blocks in order, none of them touching the next on both sides; the last is the empty block at both ends.
    pub fn matching_blocks(&self) -> Vec<Block> {
        let mut found = Vec::new();
        let mut open = vec![(0..self.a.len(), 0..self.b.len())];
        while let Some((a, b)) = open.pop() {
            let block = self.find_longest_match(a.clone(), b.clone());
            if block.len == 0 {
                continue;
            }
            let (a_end, b_end) = (block.a + block.len, block.b + block.len);
            if a.start < block.a && b.start < block.b {
                open.push((a.start..block.a, b.start..block.b));
            }
            if a_end < a.end && b_end < b.end {
                open.push((a_end..a.end, b_end..b.end));
            }
            found.push(block);
        }
        found.sort_unstable();
        let mut joined: Vec<Block> = Vec::with_capacity(found.len() + 1);
        for block in found {
            match joined.last_mut() {
                Some(last) if last.a + last.len == block.a && last.b + last.len == block.b => {
                    last.len += block.len;
                }
                _ => joined.push(block),
            }
        }
        joined.push(Block { a: self.a.len(), b: self.b.len(), len: 0 });
        joined
    }

    /// The steps from `a` to `b`, in order; together they cover both sequences.
    pub fn opcodes(&self) -> Vec<Opcode> {
        let mut steps = Vec::new();
        let (mut i, mut j) = (0, 0);
        for block in self.matching_blocks() {
            let tag = match (i < block.a, j < block.b) {
                (true, true) => Some(OpTag::Replace),
                (true, false) => Some(OpTag::Delete),
                (false, true) => Some(OpTag::Insert),
                (false, false) => None,
            };
            if let Some(tag) = tag {
                steps.push(Opcode { tag, a: i..block.a, b: j..block.b });
            }
            (i, j) = (block.a + block.len, block.b + block.len);
            if block.len > 0 {
                steps.push(Opcode { tag: OpTag::Equal, a: block.a..i, b: block.b..j });
            }
        }
        steps
    }

    /// Similarity in `[0, 1]`: twice the matched elements over all elements; 1 for two empty sequences.
    pub fn ratio(&self) -> f64 {
        self.share(self.matching_blocks().iter().map(|block| block.len).sum())
    }

    /// An upper bound of [`Self::ratio`] that ignores order.
    pub fn quick_ratio(&self) -> f64 {
        let mut left = vec![0_usize; self.anchors.len()];
        for &symbol in &self.b {
            left[symbol] += 1;
        }
        let mut shared = 0;
        for &symbol in &self.a {
            if left[symbol] > 0 {
                left[symbol] -= 1;
                shared += 1;
            }
        }
        self.share(shared)
    }

    /// An upper bound of [`Self::quick_ratio`] that knows only the lengths.
    pub fn real_quick_ratio(&self) -> f64 {
        self.share(self.a.len().min(self.b.len()))
    }

    fn share(&self, matched: usize) -> f64 {
        match self.a.len() + self.b.len() {
            0 => 1.0,
            all => 2.0 * matched as f64 / all as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(a: &str, b: &str) -> SequenceMatcher {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        SequenceMatcher::new(&chars(a), &chars(b), true)
    }

    #[track_caller]
    fn check(a: &str, b: &str, opcodes: &str, ratio: f64) {
        let matcher = matcher(a, b);
        let shown: Vec<String> = matcher
            .opcodes()
            .iter()
            .map(|op| {
                let tag = match op.tag {
                    OpTag::Equal => '=',
                    OpTag::Replace => '~',
                    OpTag::Delete => '-',
                    OpTag::Insert => '+',
                };
                format!("{tag}{}:{},{}:{}", op.a.start, op.a.end, op.b.start, op.b.end)
            })
            .collect();
        assert_eq!(shown.join(" "), opcodes, "{a} -> {b}");
        assert!((matcher.ratio() - ratio).abs() < 1e-12, "{}", matcher.ratio());
        assert!(matcher.ratio() <= matcher.quick_ratio());
        assert!(matcher.quick_ratio() <= matcher.real_quick_ratio());
    }

    #[test]
    fn opcodes_and_ratio() {
        check("", "", "", 1.0);
        check("", "ab", "+0:0,0:2", 0.0);
        check("ab", "", "-0:2,0:0", 0.0);
        check("qabxcd", "abycdf", "-0:1,0:0 =1:3,0:2 ~3:4,2:3 =4:6,3:5 +6:6,5:6", 2.0 / 3.0);
        // Two blocks of length 1: the first one of `a`, and of `b`, wins.
        check("xay", "aba", "-0:1,0:0 =1:2,0:1 ~2:3,1:3", 1.0 / 3.0);
        // 12345 against 51234: the block 1234, and the 5 stays unmatched.
        check("12345", "51234", "+0:0,0:1 =0:4,1:5 -4:5,5:5", 0.8);
    }

    #[test]
    fn popular_elements_only_extend_blocks() {
        let b = "a".repeat(250);
        // `a` stands 250 times, more than 250 / 100 + 1 = 3, so it anchors nothing ...
        let crowded = matcher("xa", &b);
        assert_eq!(crowded.matching_blocks().len(), 1);
        // ... yet extends the empty block at the very start,
        assert_eq!(matcher("a", &b).matching_blocks()[0], Block { a: 0, b: 0, len: 1 });
        // ... and below 200 elements nothing is popular.
        assert_eq!(matcher("xa", &b[..199]).matching_blocks()[0], Block { a: 1, b: 0, len: 1 });
        // Three occurrences are still allowed.
        let rare: String = (0..200_u32).map(|i| if i < 3 { 'z' } else { 'a' }).collect();
        assert_eq!(matcher("xz", &rare).matching_blocks()[0], Block { a: 1, b: 0, len: 1 });
    }
}
