//! The caller's side of a run: prepares, starts the warden, collects output and watches the limits.

use std::{
    ffi::{CString, c_char, c_int},
    fs::File,
    io::{self, PipeReader, Read, Write},
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
    ptr,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use crate::{
    Limits, Outcome, Result, SandboxError,
    error::last_error,
    files::{self, Visible},
    mode::{Mode, Rights},
    seccomp,
    warden::{EXECUTE, Plan, Report, STEPS, warden},
    watch,
    workspace::Workspace,
};

/// How often usage is looked at.
const TICK: Duration = Duration::from_millis(10);
/// How long a warden may take to end a run before it is killed itself.
const GRACE: Duration = Duration::from_secs(5);
/// Stack of each of the two processes, in units of 16 bytes.
const STACK_WORDS: usize = 8 * 1024;
/// The first of the user ids that programs get when root runs them; far above those of people and services.
const FIRST_UID: u32 = 2_000_000_000;

/// One program, resolved.
pub(crate) struct Launch<'a> {
    pub(crate) mode: Mode,
    pub(crate) limits: &'a Limits,
    pub(crate) executable: PathBuf,
    pub(crate) argv: &'a [String],
    pub(crate) env: &'a [(String, String)],
    pub(crate) stdin: &'a [u8],
    pub(crate) workspace: &'a Workspace,
    /// Folders beside the system's and the workspace that the program may read.
    pub(crate) read: &'a [PathBuf],
    /// Give the program a user id of its own; only where every user may read all it needs.
    pub(crate) own_uid: bool,
}

/// Tries a mode without running anything.
pub(crate) fn probe(mode: Mode) -> Result<()> {
    let workspace = Workspace::new()?;
    let launch = Launch {
        mode,
        limits: &Limits::default(),
        executable: PathBuf::from("/"),
        argv: &[],
        env: &[],
        stdin: b"",
        workspace: &workspace,
        read: &[],
        own_uid: mode.rights == Rights::Root
            && crate::workspace::open_to_all(&std::env::temp_dir()),
    };
    launch.start(true).map(drop)
}

/// What the supervising side ended a run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Excess {
    Time,
    Memory,
    Processes,
}

impl Launch<'_> {
    /// Runs the program.
    pub(crate) fn run(&self) -> Result<Outcome> {
        self.start(false)
    }

    fn start(&self, probe: bool) -> Result<Outcome> {
        let system = |doing| move |source| SandboxError::System { doing, source };
        let pipe = || io::pipe().map_err(system("making a pipe"));
        let stdin = input(self.stdin)?;
        let (stdout, stdout_writer) = pipe()?;
        let (stderr, stderr_writer) = pipe()?;
        let (report, report_writer) = pipe()?;
        let (control, control_writer) = pipe()?;

        let work = self.workspace.work();
        let uid = if self.own_uid { Some(next_uid()) } else { None };
        if let Some(uid) = uid {
            self.workspace.give_to(uid)?;
        }
        let mut read = self.read.to_vec();
        read.push(self.workspace.program());
        let ruleset = match self.mode.landlock {
            0 => None,
            version => Some(files::ruleset(version, Visible { read: &read, write: &work })?),
        };
        let words = self.argv.iter().map(|word| c_string(word)).collect::<Result<Vec<_>>>()?;
        let env = self
            .environment(&work)
            .iter()
            .map(|(name, value)| c_string(&format!("{name}={value}")))
            .collect::<Result<Vec<_>>>()?;
        let mut stacks = vec![0_u128; 2 * STACK_WORDS];
        let stack_top = stacks.as_mut_ptr_range().end;
        let stdio = [stdin.as_raw_fd(), stdout_writer.as_raw_fd(), stderr_writer.as_raw_fd()];
        let mut kept = vec![report_writer.as_raw_fd(), control.as_raw_fd()];
        kept.extend(stdio);
        kept.extend(ruleset.as_ref().map(AsRawFd::as_raw_fd));
        let mut plan = Plan {
            namespaces: self.mode.namespaces,
            id_maps: (self.mode.rights == Rights::UserNamespace).then(id_maps),
            drop_capabilities: self.mode.rights != Rights::User,
            uid,
            work: c_string(&path_text(&work)?)?,
            executable: c_string(&path_text(&self.executable)?)?,
            argv: pointers(&words),
            envp: pointers(&env),
            stdio,
            report: report_writer.as_raw_fd(),
            control: control.as_raw_fd(),
            ruleset: ruleset.as_ref().map(AsRawFd::as_raw_fd),
            close: gaps(kept),
            filters: seccomp::filters(self.mode.extra(uid.is_some()))?,
            rlimits: self.rlimits(uid),
            // SAFETY: the middle of the allocation.
            stack_top: unsafe { stack_top.sub(STACK_WORDS) }.cast(),
            probe,
            failure: crate::warden::Failure::default(),
        };
        let started = Instant::now();
        let pid = self.clone_warden(&mut plan, stack_top.cast())?;
        let mut supervised = Supervised {
            pid,
            control: Some(control_writer),
            collected: false,
            limits: self.limits,
            started,
            excess: None,
        };
        drop((stdin, stdout_writer, stderr_writer, report_writer, control, ruleset));
        let (report, out, err) = supervised.watch(stdout, stderr, report)?;
        let excess = supervised.excess;
        drop(supervised);
        let report = report.ok_or_else(|| SandboxError::System {
            doing: "supervising the program",
            source: io::Error::other("the supervising process died"),
        })?;
        if report.failure.step > 0 {
            return Err(failure(&report, &self.executable));
        }
        Ok(self.outcome(&report, excess, out, err, started, uid.is_some()))
    }

    fn clone_warden(&self, plan: &mut Plan, stack_top: *mut libc::c_void) -> Result<c_int> {
        let mut flags = libc::SIGCHLD;
        if self.mode.namespaces {
            flags |=
                libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWNS;
        }
        if self.mode.rights == Rights::UserNamespace {
            flags |= libc::CLONE_NEWUSER;
        }
        // SAFETY: signals are blocked so that no handler of ours runs in the copy; the copy gets its own stack and
        // uses the plan alone, which outlives the call.
        let pid = unsafe {
            let mut all = std::mem::zeroed::<libc::sigset_t>();
            let mut before = std::mem::zeroed::<libc::sigset_t>();
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            let pid = libc::clone(warden_entry, stack_top, flags, ptr::from_mut(plan).cast());
            let error = io::Error::last_os_error();
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut());
            if pid < 0 {
                return Err(SandboxError::Layer {
                    layer: "process and namespace creation".to_owned(),
                    why: error.to_string(),
                });
            }
            pid
        };
        Ok(pid)
    }

    fn environment(&self, work: &Path) -> Vec<(String, String)> {
        let work = work.display().to_string();
        let own = [
            ("PATH", SEARCH_PATH),
            ("HOME", &work),
            ("TMPDIR", &work),
            ("LANG", "C.UTF-8"),
            ("LC_ALL", "C.UTF-8"),
            ("TZ", "UTC"),
        ];
        own.iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .chain(self.env.iter().cloned())
            .collect()
    }

    fn rlimits(&self, uid: Option<u32>) -> Vec<(u32, u64)> {
        let limits = self.limits;
        let mut list = vec![
            (libc::RLIMIT_CORE, 0),
            (libc::RLIMIT_CPU, limits.cpu_ms.div_ceil(1000) + 1),
            (libc::RLIMIT_FSIZE, limits.file_bytes),
            (libc::RLIMIT_NOFILE, limits.open_files),
            (libc::RLIMIT_MEMLOCK, 1 << 20),
            (libc::RLIMIT_MSGQUEUE, 0),
            (libc::RLIMIT_SIGPENDING, 1024),
        ];
        if !limits.address_space_unlimited {
            list.push((libc::RLIMIT_AS, limits.memory_bytes.saturating_mul(2)));
            list.push((libc::RLIMIT_DATA, limits.memory_bytes.saturating_mul(2)));
        }
        // The kernel counts per user and user namespace: only where one of them is this run's alone can there be a
        // limit. Otherwise the watch counts. The warden is in the namespace too.
        if uid.is_some_and(|uid| uid >= FIRST_UID) || self.mode.rights == Rights::UserNamespace {
            list.push((libc::RLIMIT_NPROC, limits.processes + 1));
        }
        list
    }

    fn outcome(
        &self,
        report: &Report,
        excess: Option<Excess>,
        stdout: Captured,
        stderr: Captured,
        started: Instant,
        own_uid: bool,
    ) -> Outcome {
        let status = report.status;
        let signal = (status >= 0 && libc::WIFSIGNALED(status)).then(|| libc::WTERMSIG(status));
        let cpu_ms = report.cpu_us / 1000;
        let cpu_signal = matches!(signal, Some(libc::SIGXCPU | libc::SIGKILL));
        Outcome {
            tier: self.mode.tier(own_uid),
            exit: (status >= 0 && libc::WIFEXITED(status)).then(|| libc::WEXITSTATUS(status)),
            signal: signal.or((status < 0).then_some(libc::SIGKILL)),
            timed_out: excess == Some(Excess::Time)
                || (excess.is_none() && cpu_signal && cpu_ms >= self.limits.cpu_ms),
            out_of_memory: excess == Some(Excess::Memory),
            too_many_processes: excess == Some(Excess::Processes),
            stdout_truncated: stdout.truncated,
            stderr_truncated: stderr.truncated,
            stdout: stdout.text(),
            stderr: stderr.text(),
            cpu_ms,
            wall_ms: started.elapsed().as_millis() as u64,
        }
    }
}

/// Where commands without a slash are looked up.
pub(crate) const SEARCH_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A warden that is running; ended and collected when dropped.
struct Supervised<'a> {
    pid: c_int,
    /// Closing it ends the run.
    control: Option<io::PipeWriter>,
    collected: bool,
    limits: &'a Limits,
    started: Instant,
    excess: Option<Excess>,
}

impl Supervised<'_> {
    fn watch(
        &mut self,
        stdout: PipeReader,
        stderr: PipeReader,
        mut report: PipeReader,
    ) -> Result<(Option<Report>, Captured, Captured)> {
        let mut out = Captured::new(stdout, self.limits.output_bytes)?;
        let mut err = Captured::new(stderr, self.limits.output_bytes)?;
        let mut give_up: Option<Instant> = None;
        let mut looked = self.started;
        loop {
            let mut fds = [out.poll(), err.poll(), poll_fd(report.as_raw_fd())];
            // SAFETY: an array and its length.
            let n_ready = unsafe { libc::poll(fds.as_mut_ptr(), 3, TICK.as_millis() as c_int) };
            if n_ready < 0 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                return Err(last_error("waiting for the program"));
            }
            if fds[0].revents != 0 {
                out.read_some();
            }
            if fds[1].revents != 0 {
                err.read_some();
            }
            if fds[2].revents != 0 {
                break;
            }
            let now = Instant::now();
            if self.excess.is_none() && now - looked >= TICK {
                looked = now;
                self.excess = self.exceeded();
                if self.excess.is_some() {
                    self.control = None;
                    give_up = Some(now + GRACE);
                }
            }
            if give_up.is_some_and(|end| now > end) {
                break;
            }
        }
        let report = if give_up.is_some_and(|end| Instant::now() > end) {
            None
        } else {
            let mut bytes = [0_u8; size_of::<Report>()];
            // SAFETY: the report is plain numbers, written whole by the warden.
            report
                .read_exact(&mut bytes)
                .ok()
                .map(|()| unsafe { ptr::read_unaligned(bytes.as_ptr().cast::<Report>()) })
        };
        out.read_rest();
        err.read_rest();
        self.end(report.is_none());
        Ok((report, out, err))
    }

    fn exceeded(&self) -> Option<Excess> {
        if self.started.elapsed() > Duration::from_millis(self.limits.wall_ms) {
            return Some(Excess::Time);
        }
        let usage = watch::usage_below(self.pid);
        if usage.processes > self.limits.processes {
            Some(Excess::Processes)
        } else if usage.resident_bytes > self.limits.memory_bytes {
            Some(Excess::Memory)
        } else if usage.cpu_ms > self.limits.cpu_ms {
            Some(Excess::Time)
        } else {
            None
        }
    }

    fn end(&mut self, kill: bool) {
        self.control = None;
        if self.collected {
            return;
        }
        self.collected = true;
        // SAFETY: our own child, not collected yet.
        unsafe {
            if kill {
                libc::kill(self.pid, libc::SIGKILL);
            }
            while libc::waitpid(self.pid, ptr::null_mut(), 0) < 0
                && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
            {}
        }
    }
}

impl Drop for Supervised<'_> {
    fn drop(&mut self) {
        self.end(true);
    }
}

/// The beginning of an output stream.
struct Captured {
    pipe: Option<PipeReader>,
    bytes: Vec<u8>,
    limit: usize,
    truncated: bool,
}

impl Captured {
    fn new(pipe: PipeReader, limit: usize) -> Result<Self> {
        // SAFETY: sets a flag of our own descriptor.
        if unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) } < 0 {
            return Err(last_error("preparing a pipe"));
        }
        Ok(Self { pipe: Some(pipe), bytes: Vec::new(), limit, truncated: false })
    }

    fn poll(&self) -> libc::pollfd {
        poll_fd(self.pipe.as_ref().map_or(-1, AsRawFd::as_raw_fd))
    }

    /// Reads once; false at the end or when nothing is there.
    fn read_some(&mut self) -> bool {
        let mut buffer = [0_u8; 16 << 10];
        let Some(pipe) = &mut self.pipe else { return false };
        match pipe.read(&mut buffer) {
            Ok(0) => {
                self.pipe = None;
                false
            }
            Ok(n_read) => {
                let room = self.limit - self.bytes.len();
                self.bytes.extend_from_slice(&buffer[..n_read.min(room)]);
                self.truncated |= n_read > room;
                true
            }
            Err(error) => error.kind() == io::ErrorKind::Interrupted,
        }
    }

    /// Reads what is left in the pipe; its writers are gone.
    fn read_rest(&mut self) {
        while self.read_some() {}
    }

    fn text(self) -> String {
        let mut bytes = self.bytes;
        if self.truncated {
            // Not in the middle of a character.
            let whole = std::str::from_utf8(&bytes).map_or_else(
                |error| if error.error_len().is_none() { error.valid_up_to() } else { bytes.len() },
                str::len,
            );
            bytes.truncate(whole);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

extern "C" fn warden_entry(argument: *mut libc::c_void) -> c_int {
    // SAFETY: `clone_warden` hands over the plan, and we run in a copy of its memory.
    unsafe { warden(argument) }
}

fn poll_fd(fd: RawFd) -> libc::pollfd {
    libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
}

/// Standard input as a file: without a writer nothing can block.
fn input(content: &[u8]) -> Result<File> {
    if content.is_empty() {
        return File::open("/dev/null")
            .map_err(|source| SandboxError::System { doing: "opening /dev/null", source });
    }
    // SAFETY: a C string; the descriptor is ours.
    let mut file = unsafe {
        let fd = libc::memfd_create(c"stdin".as_ptr(), libc::MFD_CLOEXEC);
        if fd < 0 {
            return Err(last_error("preparing standard input"));
        }
        File::from(OwnedFd::from_raw_fd(fd))
    };
    file.write_all(content)
        .and_then(|()| io::Seek::rewind(&mut file))
        .map_err(|source| SandboxError::System { doing: "preparing standard input", source })?;
    Ok(file)
}

fn failure(report: &Report, executable: &Path) -> SandboxError {
    let source = io::Error::from_raw_os_error(report.failure.errno);
    if report.failure.step == EXECUTE {
        return SandboxError::Io { doing: "starting", path: executable.to_owned(), source };
    }
    let layer = STEPS.get(report.failure.step as usize - 1).copied().unwrap_or("an unknown step");
    SandboxError::Layer { layer: layer.to_owned(), why: source.to_string() }
}

/// A user id that no other run of this machine is likely to have at the same time; `nobody` where a container maps
/// too few ids.
fn next_uid() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let slot = NEXT.fetch_add(1, Ordering::Relaxed) % 1000;
    let uid = FIRST_UID + (std::process::id() % 100_000) * 1000 + slot;
    let mapped = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let inside = mapped.lines().any(|line| {
        let mut numbers = line.split_ascii_whitespace().map(|n| n.parse::<u64>().unwrap_or(0));
        let (first, _, count) = (numbers.next(), numbers.next(), numbers.next());
        first.zip(count).is_some_and(|(first, count)| {
            (first..first.saturating_add(count)).contains(&u64::from(uid))
        })
    });
    if inside { uid } else { 65_534 }
}

/// Maps the user and group to themselves.
fn id_maps() -> (Vec<u8>, Vec<u8>) {
    // SAFETY: asks for numbers.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    (format!("{uid} {uid} 1").into_bytes(), format!("{gid} {gid} 1").into_bytes())
}

/// Ranges of descriptors without the kept ones.
fn gaps(mut kept: Vec<RawFd>) -> Vec<(u32, u32)> {
    kept.sort_unstable();
    let mut next = 0;
    let mut list = Vec::new();
    for fd in kept.into_iter().map(|fd| fd as u32) {
        if fd > next {
            list.push((next, fd - 1));
        }
        next = fd + 1;
    }
    list.push((next, u32::MAX));
    list
}

fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| SandboxError::Argument {
        what: format!("`{}`", text.escape_debug()),
        why: "it holds a null character",
    })
}

fn path_text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| SandboxError::Argument {
        what: format!("the path {}", path.display()),
        why: "it is not UTF-8",
    })
}

/// Pointers to the strings, ended by a null pointer.
fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_leave_out_what_is_kept() {
        assert_eq!(gaps(vec![7, 4, 5]), [(0, 3), (6, 6), (8, u32::MAX)]);
        assert_eq!(gaps(vec![0, 1]), [(2, u32::MAX)]);
    }
}
