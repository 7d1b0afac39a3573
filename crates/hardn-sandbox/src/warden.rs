//! The two processes of a run, between `clone` and `exec`.
//!
//! The *warden* is a copy of the caller that only supervises: it enters the namespaces, starts the program, waits,
//! ends every process of the run and reports. The *program* process puts every limit on itself and turns into the
//! program. Both run in a copy of a process that may have had many threads, so they make system calls on data
//! prepared beforehand and nothing else: no allocation, no locks, and none of the C library's wrappers that
//! synchronise threads (`setresuid`).

use std::{
    ffi::{CString, c_char, c_int, c_long, c_void},
    os::fd::RawFd,
    ptr,
};

use seccompiler::BpfProgram;

/// Everything the two processes need, made by the caller.
pub(crate) struct Plan {
    pub(crate) namespaces: bool,
    /// `uid_map` and `gid_map` for a user namespace.
    pub(crate) id_maps: Option<(Vec<u8>, Vec<u8>)>,
    pub(crate) drop_capabilities: bool,
    pub(crate) uid: Option<u32>,
    pub(crate) work: CString,
    pub(crate) executable: CString,
    /// Ends with a null pointer.
    pub(crate) argv: Vec<*const c_char>,
    /// Ends with a null pointer.
    pub(crate) envp: Vec<*const c_char>,
    pub(crate) stdio: [RawFd; 3],
    /// The warden's report goes here.
    pub(crate) report: RawFd,
    /// Readable or closed: end the run.
    pub(crate) control: RawFd,
    pub(crate) ruleset: Option<RawFd>,
    /// Ranges of descriptors that the warden closes: all but the above.
    pub(crate) close: Vec<(u32, u32)>,
    pub(crate) filters: &'static [BpfProgram],
    pub(crate) rlimits: Vec<(u32, u64)>,
    /// The top of a stack for the program process.
    pub(crate) stack_top: *mut c_void,
    /// Set everything up and exit with status 0 instead of running the program.
    pub(crate) probe: bool,
    /// Where setting up failed; written by both processes in their copy.
    pub(crate) failure: Failure,
}

/// A step that failed, and the error number.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Failure {
    /// 0, or an index into [`STEPS`] plus 1.
    pub(crate) step: u32,
    pub(crate) errno: i32,
}

/// What the warden writes when everything is over.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Report {
    pub(crate) failure: Failure,
    /// As `wait` gives it; -1 if the program was ended before it could be waited for.
    pub(crate) status: i32,
    /// CPU time of all processes of the run, in microseconds.
    pub(crate) cpu_us: u64,
}

macro_rules! steps {
    ($($name:ident = $text:literal),* $(,)?) => {
        #[derive(Clone, Copy)]
        enum Step { $($name),* }
        /// What each step sets up, for messages.
        pub(crate) const STEPS: &[&str] = &[$($text),*];
    };
}

steps! {
    Session = "own session",
    UserNamespace = "user namespace",
    PrivateMounts = "mount namespace",
    BindWork = "mount of the program's folder",
    ReadOnly = "read-only mounts",
    WritableWork = "writable folder",
    Subreaper = "process supervision",
    StartProgram = "process creation",
    Stdio = "standard streams",
    Folder = "working folder",
    Resources = "resource limits",
    Capabilities = "dropping capabilities",
    User = "changing the user id",
    NoNewPrivileges = "no-new-privileges",
    Landlock = "landlock",
    CloseFiles = "closing files",
    Seccomp = "seccomp",
    Execute = "starting the program",
    Watch = "watching the program",
}

/// That step of a failure which means that the program itself could not be started.
pub(crate) const EXECUTE: u32 = Step::Execute as u32 + 1;

/// `struct mount_attr` of `mount_setattr`.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent: i32,
}

/// `LANDLOCK_RULE_PATH_BENEATH`.
const PATH_BENEATH: c_int = 1;
/// Landlock: read files and list folders.
const READ_FILE_AND_DIR: u64 = (1 << 2) | (1 << 3);

fn errno() -> i32 {
    // SAFETY: the C library's per-thread error number, always valid.
    unsafe { *libc::__errno_location() }
}

impl Plan {
    /// Notes a failure unless one is noted already.
    fn check(&mut self, result: c_long, step: Step) -> Result<(), ()> {
        if result >= 0 {
            return Ok(());
        }
        if self.failure.step == 0 {
            self.failure = Failure { step: step as u32 + 1, errno: errno() };
        }
        Err(())
    }
}

/// The warden's whole life.
///
/// # Safety
/// `argument` is a `Plan` that nobody else uses in this process; runs in a fresh copy of the caller's memory.
pub(crate) unsafe extern "C" fn warden(argument: *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    let plan = unsafe { &mut *argument.cast::<Plan>() };
    let mut report = Report { status: -1, ..Report::default() };
    // SAFETY: system calls on the plan's data.
    unsafe {
        for &(low, high) in &plan.close {
            libc::syscall(libc::SYS_close_range, low, high, 0);
        }
        if enter(plan).is_ok() {
            // We hold a copy of the caller's memory. Not before `enter`: the id maps belong to root otherwise.
            libc::prctl(libc::PR_SET_DUMPABLE, 0);
            let program = libc::clone(
                program,
                plan.stack_top,
                libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
                argument,
            );
            if plan.check(c_long::from(program), Step::StartProgram).is_ok() {
                wait_for(plan, program, &mut report);
                end_all(plan, program, &mut report);
            }
        }
        report.failure = plan.failure;
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        let micros = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
        report.cpu_us = micros(usage.ru_utime) + micros(usage.ru_stime);
        libc::write(plan.report, (&raw const report).cast(), size_of::<Report>());
        libc::_exit(0)
    }
}

/// Session, namespaces and mounts.
unsafe fn enter(plan: &mut Plan) -> Result<(), ()> {
    // SAFETY: system calls on the plan's data.
    unsafe {
        // Away from the terminal's Ctrl-C: the caller decides when a run ends.
        plan.check(c_long::from(libc::setsid()), Step::Session)?;
        if let Some((uid_map, gid_map)) = plan.id_maps.take() {
            let done = write_file(c"/proc/self/setgroups", b"deny")
                .min(write_file(c"/proc/self/uid_map", &uid_map))
                .min(write_file(c"/proc/self/gid_map", &gid_map));
            plan.id_maps = Some((uid_map, gid_map));
            plan.check(done, Step::UserNamespace)?;
        }
        if !plan.namespaces {
            let result = libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
            return plan.check(c_long::from(result), Step::Subreaper);
        }
        let none = ptr::null::<c_char>();
        let private = libc::MS_REC | libc::MS_PRIVATE;
        let result = libc::mount(none, c"/".as_ptr(), none, private, ptr::null());
        plan.check(c_long::from(result), Step::PrivateMounts)?;
        let work = plan.work.as_ptr();
        let result = libc::mount(work, work, none, libc::MS_BIND, ptr::null());
        plan.check(c_long::from(result), Step::BindWork)?;
        let read_only = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID;
        let everything = set_mount(c"/".as_ptr(), libc::AT_RECURSIVE, read_only, 0);
        plan.check(everything, Step::ReadOnly)?;
        let folder = set_mount(work, 0, libc::MOUNT_ATTR_NODEV, libc::MOUNT_ATTR_RDONLY);
        plan.check(folder, Step::WritableWork)
    }
}

unsafe fn set_mount(path: *const c_char, flags: c_int, set: u64, clear: u64) -> c_long {
    let attributes = MountAttributes { set, clear, propagation: 0, user_namespace: 0 };
    // SAFETY: the path is a C string, and the attributes live until the call returns.
    unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path,
            flags,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    }
}

unsafe fn write_file(path: &std::ffi::CStr, text: &[u8]) -> c_long {
    // SAFETY: a C string and a slice with its own length.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd < 0 {
            return -1;
        }
        let written = libc::write(fd, text.as_ptr().cast(), text.len());
        libc::close(fd);
        written as c_long
    }
}

/// Waits until the program has ended or the caller wants an end; reaps orphans meanwhile.
unsafe fn wait_for(plan: &mut Plan, program: c_int, report: &mut Report) {
    // SAFETY: system calls on local data.
    unsafe {
        let handle = libc::syscall(libc::SYS_pidfd_open, program, 0);
        if plan.check(handle, Step::Watch).is_err() {
            return;
        }
        let mut watched = [
            libc::pollfd { fd: handle as c_int, events: libc::POLLIN, revents: 0 },
            libc::pollfd { fd: plan.control, events: libc::POLLIN, revents: 0 },
        ];
        loop {
            libc::poll(watched.as_mut_ptr(), 2, 100);
            reap(program, report);
            if watched[0].revents != 0 || watched[1].revents != 0 || report.status >= 0 {
                return;
            }
        }
    }
}

/// Collects ended processes; true when there are no children left.
unsafe fn reap(program: c_int, report: &mut Report) -> bool {
    loop {
        let mut status = 0;
        // SAFETY: waits without blocking.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WALL) };
        if pid == program {
            report.status = status;
        } else if pid <= 0 {
            return pid < 0 && errno() == libc::ECHILD;
        }
    }
}

/// Ends every process of the run, also those that went into the background.
unsafe fn end_all(plan: &Plan, program: c_int, report: &mut Report) {
    // SAFETY: system calls; in a process namespace -1 means everyone in it but us.
    unsafe {
        while !reap(program, report) {
            if plan.namespaces {
                libc::kill(-1, libc::SIGKILL);
            } else {
                kill_children();
            }
            // Sleeps until a child has ended, without collecting it.
            let mut info = std::mem::zeroed::<libc::siginfo_t>();
            let flags = libc::WEXITED | libc::WNOWAIT | libc::__WALL;
            libc::waitid(libc::P_ALL, 0, &raw mut info, flags);
        }
    }
}

/// Kills our children; their children become ours and are next.
unsafe fn kill_children() {
    // SAFETY: reads into a local buffer.
    unsafe {
        let path = c"/proc/thread-self/children";
        let fd = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if fd < 0 {
            return;
        }
        let mut buffer = [0_u8; 4096];
        let n_read = libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len());
        libc::close(fd);
        let mut pid: c_int = 0;
        for &byte in &buffer[..usize::try_from(n_read).unwrap_or(0)] {
            if byte.is_ascii_digit() {
                pid = pid.saturating_mul(10).saturating_add(c_int::from(byte - b'0'));
            } else if pid > 1 {
                libc::kill(pid, libc::SIGKILL);
                pid = 0;
            }
        }
    }
}

/// The program process: limits itself and becomes the program.
extern "C" fn program(argument: *mut c_void) -> c_int {
    // SAFETY: the warden stands still until we have turned into the program or exited.
    unsafe {
        let plan = &mut *argument.cast::<Plan>();
        if confine(plan).is_ok() {
            if plan.probe {
                libc::_exit(0);
            }
            libc::execve(plan.executable.as_ptr(), plan.argv.as_ptr(), plan.envp.as_ptr());
            let _ = plan.check(-1, Step::Execute);
        }
        libc::_exit(127)
    }
}

unsafe fn confine(plan: &mut Plan) -> Result<(), ()> {
    // SAFETY: system calls on the plan's data.
    unsafe {
        libc::setsid();
        for (target, &source) in plan.stdio.clone().iter().enumerate() {
            let result = libc::dup2(source, target as c_int);
            plan.check(c_long::from(result), Step::Stdio)?;
        }
        let mut action = std::mem::zeroed::<libc::sigaction>();
        action.sa_sigaction = libc::SIG_DFL;
        for signal in 1..=64 {
            libc::sigaction(signal, &raw const action, ptr::null_mut());
        }
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());

        let result = libc::chdir(plan.work.as_ptr());
        plan.check(c_long::from(result), Step::Folder)?;
        libc::umask(0o022);
        // The same addresses every time, so that what a program does with a bad pointer does not vary.
        libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong);
        for index in 0..plan.rlimits.len() {
            let (resource, value) = plan.rlimits[index];
            let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
            let result = libc::setrlimit(resource as _, &raw const limit);
            plan.check(c_long::from(result), Step::Resources)?;
        }
        give_up_rights(plan)?;
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        let result = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        plan.check(c_long::from(result), Step::NoNewPrivileges)?;
        if let Some(ruleset) = plan.ruleset {
            restrict_files(plan, ruleset)?;
        }
        let result = libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0);
        plan.check(result, Step::CloseFiles)?;
        for filter in plan.filters {
            let header = libc::sock_fprog {
                len: filter.len() as u16,
                filter: filter.as_ptr().cast_mut().cast(),
            };
            let mode = libc::SECCOMP_SET_MODE_FILTER;
            let result = libc::syscall(libc::SYS_seccomp, mode, 0, &raw const header);
            plan.check(result, Step::Seccomp)?;
        }
        Ok(())
    }
}

/// Capabilities and the user id. Raw calls: the C library's own would look for threads that are not here.
unsafe fn give_up_rights(plan: &mut Plan) -> Result<(), ()> {
    // SAFETY: system calls on numbers and local data.
    unsafe {
        if plan.drop_capabilities {
            for capability in 0..64 {
                if libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) < 0 {
                    let past_last = errno() == libc::EINVAL && capability > 0;
                    plan.check(if past_last { 0 } else { -1 }, Step::Capabilities)?;
                    break;
                }
            }
        }
        if let Some(uid) = plan.uid {
            let result = libc::syscall(libc::SYS_setgroups, 0, ptr::null::<u32>());
            plan.check(result, Step::User)?;
            plan.check(libc::syscall(libc::SYS_setresgid, uid, uid, uid), Step::User)?;
            plan.check(libc::syscall(libc::SYS_setresuid, uid, uid, uid), Step::User)?;
        }
        if plan.drop_capabilities {
            /// `_LINUX_CAPABILITY_VERSION_3`, whose data is two blocks of three words.
            const VERSION: u32 = 0x2008_0522;
            let header = [VERSION, 0];
            let none = [0_u32; 6];
            let result = libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr());
            plan.check(result, Step::Capabilities)?;
        }
        Ok(())
    }
}

/// Adds the program's own `/proc` entry (sanitizers read their memory map there) and puts Landlock on.
unsafe fn restrict_files(plan: &mut Plan, ruleset: RawFd) -> Result<(), ()> {
    // SAFETY: system calls on local data.
    unsafe {
        let flags = libc::O_PATH | libc::O_CLOEXEC;
        let own = libc::open(c"/proc/self".as_ptr(), flags);
        if own >= 0 {
            let rule = PathBeneath { allowed_access: READ_FILE_AND_DIR, parent: own };
            let number = libc::SYS_landlock_add_rule;
            let result = libc::syscall(number, ruleset, PATH_BENEATH, &raw const rule, 0);
            plan.check(result, Step::Landlock)?;
        }
        plan.check(libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0), Step::Landlock)
    }
}
