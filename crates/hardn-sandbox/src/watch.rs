//! What a tree of processes uses, read from `/proc`.

use std::fs;

/// Usage of a process and all its descendants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Processes and threads below the root.
    pub(crate) processes: u64,
    /// Resident memory below the root that no file backs, in bytes; pages that processes share count for each.
    pub(crate) resident_bytes: u64,
    /// CPU time below the root, in milliseconds.
    pub(crate) cpu_ms: u64,
}

/// Usage of everything below `root`, which itself counts only for the children it has collected.
///
/// Processes that end while we look are left out.
pub(crate) fn usage_below(root: i32) -> Usage {
    let mut usage =
        Usage { cpu_ms: Stat::read(root).map_or(0, |s| s.children_ms), ..Usage::default() };
    let mut waiting = children(root);
    while let Some(pid) = waiting.pop() {
        if let Some(stat) = Stat::read(pid) {
            usage.processes += stat.threads.max(1);
            usage.resident_bytes += resident_bytes(pid);
            usage.cpu_ms += stat.own_ms + stat.children_ms;
        }
        waiting.extend(children(pid));
    }
    usage
}

/// The children of all threads of a process.
fn children(pid: i32) -> Vec<i32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|list| {
            list.split_ascii_whitespace().filter_map(|n| n.parse().ok()).collect::<Vec<_>>()
        })
        .collect()
}

/// Anonymous and shared memory of a process; file pages can be taken back by the kernel at any time.
fn resident_bytes(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    resident_kib(&text) * 1024
}

fn resident_kib(status: &str) -> u64 {
    status
        .lines()
        .filter_map(|line| line.strip_prefix("RssAnon:").or_else(|| line.strip_prefix("RssShmem:")))
        .filter_map(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok())
        .sum()
}

/// The fields of `/proc/PID/stat` that we need.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    own_ms: u64,
    children_ms: u64,
    threads: u64,
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        // SAFETY: asks for a constant.
        let hertz = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(&text, hertz.max(1) as u64)
    }

    /// Fields are counted from the end of the name, which may hold blanks and brackets itself.
    fn parse(text: &str, hertz: u64) -> Option<Self> {
        let rest = &text[text.rfind(')')? + 1..];
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // `proc(5)` numbers the field after the name 3.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            own_ms: (field(14)? + field(15)?) * 1000 / hertz,
            children_ms: (field(16)? + field(17)?) * 1000 / hertz,
            threads: field(20)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_brackets_do_not_shift_fields() {
        let line = "7 (a) b) R 1 7 7 0 -1 0 0 0 0 0 10 20 3 4 20 0 2 0 99 4096 5 0";
        let expected = Stat { own_ms: 300, children_ms: 70, threads: 2 };
        assert_eq!(Stat::parse(line, 100), Some(expected));
        assert_eq!(Stat::parse("7 (x) R 1", 100), None);
    }

    #[test]
    fn file_pages_do_not_count() {
        let status = "Name:\tx\nRssAnon:\t  12 kB\nRssFile:\t 999 kB\nRssShmem:\t   3 kB\n";
        assert_eq!(resident_kib(status), 15);
    }
}
