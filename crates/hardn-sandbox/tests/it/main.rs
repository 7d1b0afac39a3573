//! Programs that try what the sandbox must prevent.

use std::{path::Path, time::Duration};

use hardn_sandbox::{
    CFlags, CompiledRun, Limits, Outcome, Program, Sandbox, SandboxError, run_twice_on_timeout,
};
use hardn_types::{Language, testing::skipped};

/// Runs Python under the limits; `None` where there is no Python.
#[track_caller]
fn python_within(limits: Limits, text: &str) -> Option<Outcome> {
    match Sandbox::new(limits).unwrap().run_python(text) {
        Ok(outcome) => Some(outcome),
        Err(SandboxError::Missing { .. }) => {
            skipped("python3 is not installed");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn python(text: &str) -> Option<Outcome> {
    python_within(Limits::default(), text)
}

/// Compiles and runs C; `None` where there is no compiler.
#[track_caller]
fn c(text: &str, sanitize: bool) -> Option<CompiledRun> {
    let sandbox = Sandbox::new(Limits::default()).unwrap();
    match sandbox.compile_and_run_c(text, CFlags { sanitize }, Language::C) {
        Ok(run) => Some(run),
        Err(SandboxError::Missing { .. }) => {
            skipped("gcc is not installed");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Asserts that the program exits with status 0; the program asserts the rest.
#[track_caller]
fn check(text: &str) {
    if let Some(outcome) = python(text) {
        assert!(outcome.success(), "{outcome:?}");
    }
}

#[test]
fn exit_status_signal_and_output_are_passed_through() {
    let Some(outcome) =
        python("import sys\nprint('out')\nprint('err', file=sys.stderr)\nsys.exit(7)")
    else {
        return;
    };
    assert_eq!((outcome.exit, outcome.signal), (Some(7), None));
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
    assert!(!outcome.timed_out && !outcome.stdout_truncated);
    for (signal, text) in
        [(15, "import os\nos.kill(os.getpid(), 15)"), (6, "import os\nos.abort()")]
    {
        let outcome = python(text).unwrap();
        assert_eq!((outcome.exit, outcome.signal), (None, Some(signal)), "{outcome:?}");
    }
}

#[test]
fn the_tier_names_the_layers() {
    let sandbox = Sandbox::new(Limits::default()).unwrap();
    let tier = sandbox.tier();
    for layer in ["landlock", "seccomp", "rlimits"] {
        assert!(tier.contains(layer), "{tier}");
    }
    let outcome = sandbox.run(&Program::new(["true"])).unwrap();
    assert_eq!((outcome.exit, outcome.tier), (Some(0), tier));
}

#[test]
fn the_working_folder_is_empty_writable_home_and_tmp() {
    check(
        "import os, tempfile
assert os.listdir('.') == []
assert os.environ['HOME'] == os.environ['TMPDIR'] == os.getcwd()
open('a', 'w').write('x')
os.mkdir('d'); os.rename('a', 'd/b'); os.symlink('d/b', 'l'); os.link('d/b', 'h')
os.chmod('d/b', 0o600)
assert os.stat('d/b').st_mode & 0o777 == 0o600
with tempfile.TemporaryDirectory() as t:
    open(t + '/x', 'w').close()
",
    );
}

#[test]
fn ordinary_programs_work() {
    check(
        "import sqlite3, subprocess, threading, json, hashlib, re, socket, ssl, datetime, multiprocessing
db = sqlite3.connect(':memory:'); db.execute('create table t (a)')
db = sqlite3.connect('file.db'); db.execute('create table t (a)'); db.commit()
assert subprocess.run('echo a | tr a b', shell=True, capture_output=True, text=True).stdout == 'b\\n'
t = threading.Thread(target=print, args=('x',)); t.start(); t.join()
assert {'b', 'a'} is not None and open('/etc/passwd').read()
open('/dev/null', 'w').write('x'); assert len(open('/dev/urandom', 'rb').read(4)) == 4
",
    );
}

#[test]
fn sets_are_walked_in_the_same_order() {
    let text = "print({'alpha', 'beta', 'gamma', 'delta'})";
    if let Some(first) = python(text) {
        assert_eq!(first.stdout, python(text).unwrap().stdout);
    }
}

#[test]
fn input_files_and_variables_reach_the_program() {
    let mut program = Program::new(["sh", "-c", "cat; cat name; echo $COLOUR"]);
    program.stdin = b"in ".to_vec();
    program.files = vec![("name".to_owned(), b"file ".to_vec())];
    program.env = vec![("COLOUR".to_owned(), "red".to_owned())];
    let outcome = Sandbox::new(Limits::default()).unwrap().run(&program).unwrap();
    assert_eq!(outcome.stdout, "in file red\n", "{outcome:?}");
}

#[test]
fn a_missing_program_is_an_error() {
    let sandbox = Sandbox::new(Limits::default()).unwrap();
    for name in ["no-such-program", "/no/such/program", ""] {
        assert!(sandbox.run(&Program::new([name])).is_err(), "{name:?}");
    }
    // Not executable: found, but the system refuses to start it.
    let error = sandbox.run(&Program::new(["/etc/passwd"])).unwrap_err().to_string();
    assert!(error.contains("starting /etc/passwd"), "{error}");
}

#[test]
fn the_network_is_denied() {
    check(
        "import socket
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            socket.socket(family, kind)
        except PermissionError:
            continue
        raise SystemExit(f'{family} {kind}')
a, b = socket.socketpair()
a.send(b'x'); assert b.recv(1) == b'x'
",
    );
}

#[test]
fn dangerous_system_calls_are_denied() {
    check(
        "import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def refused(name, *args):
    ctypes.set_errno(0)
    assert getattr(libc, name)(*args) == -1, name
    assert ctypes.get_errno() in (1, 38), (name, ctypes.get_errno())
refused('unshare', 0x10000000)
refused('ptrace', 16, os.getppid(), 0, 0)
refused('mount', b'none', b'/', b'tmpfs', 0, None)
refused('chroot', b'.')
refused('syscall', 425, 1, 0)    # io_uring_setup
refused('syscall', 435, 0, 0)    # clone3
refused('syscall', 0x40000000 + 41, 2, 1, 0)    # socket by the x32 convention
status = open('/proc/self/status').read()
caps = [line.split()[1] for line in status.splitlines() if line.startswith(('CapEff', 'CapPrm', 'CapBnd'))]
assert set(caps[:2]) == {'0' * 16}, caps
assert 'NoNewPrivs:\\t1' in status
",
    );
}

#[test]
fn writing_outside_is_denied() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    std::fs::write(&victim, "kept").unwrap();
    std::fs::set_permissions(&victim, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let home = std::env::var("HOME").unwrap_or_else(|_| "/root".to_owned());
    check(&format!(
        "import os, sys
def refused(act):
    try:
        act()
    except OSError:
        return
    raise SystemExit('allowed')
for path in ({victim:?}, '/tmp/hardn-outside', '/etc/hardn', '/usr/hardn', {home:?} + '/hardn', '/var/tmp/x', '/dev/shm/x', sys.argv[0]):
    refused(lambda: open(path, 'w'))
    refused(lambda: open(path, 'a'))
refused(lambda: os.unlink({victim:?}))
refused(lambda: os.truncate({victim:?}, 0))
refused(lambda: os.chmod({victim:?}, 0))
refused(lambda: os.utime({victim:?}, (0, 0)))
refused(lambda: os.rename({victim:?}, 'mine'))
refused(lambda: os.link({victim:?}, 'mine'))
refused(lambda: os.mkdir('/tmp/hardn-outside-dir'))
",
    ));
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "kept");
    assert!(!Path::new("/tmp/hardn-outside").exists());
}

#[test]
fn reading_outside_is_denied() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    check(&format!(
        "import os
os.symlink({secret:?}, 'link')
for path in ({secret:?}, 'link', '/etc/shadow', '/etc/hostname', '/proc/1/environ', '/proc/1/cmdline', f'/proc/{{os.getppid()}}/environ', '/proc/self/root{}'):
    try:
        open(path).read()
    except OSError:
        continue
    raise SystemExit(path)
for path in ('/root', '/home', '/tmp', '/', {:?}, '/proc', '/var', '/work'):
    try:
        os.listdir(path)
    except OSError:
        continue
    raise SystemExit(path)
open('/proc/self/maps').read()
",
        secret.display(),
        outside.path(),
    ));
}

#[test]
fn the_callers_environment_is_not_visible() {
    // The harness itself has variables that programs must not see.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    check(
        "import os
assert set(os.environ) <= {'PATH', 'HOME', 'TMPDIR', 'LANG', 'LC_ALL', 'TZ', 'PYTHONHASHSEED', 'LC_CTYPE'}, os.environ
",
    );
}

#[test]
fn an_endless_loop_runs_out_of_cpu_time() {
    let limits = Limits { cpu_ms: 300, wall_ms: 20_000, ..Limits::default() };
    let Some(outcome) = python_within(limits, "while True: pass") else { return };
    assert!(outcome.timed_out && !outcome.out_of_memory, "{outcome:?}");
    assert!((300..2_000).contains(&outcome.cpu_ms), "{outcome:?}");
}

#[test]
fn an_endless_wait_runs_out_of_time() {
    let limits = Limits { wall_ms: 300, ..Limits::default() };
    let Some(outcome) = python_within(limits, "import time\ntime.sleep(100)") else { return };
    assert!(outcome.timed_out, "{outcome:?}");
    assert!((300..5_000).contains(&outcome.wall_ms), "{outcome:?}");
}

#[test]
fn children_count_towards_cpu_time() {
    let limits = Limits { cpu_ms: 500, ..Limits::default() };
    let text = "import os\nfor _ in range(4):\n    if os.fork() == 0:\n        while True: pass\nos.wait()";
    let Some(outcome) = python_within(limits, text) else { return };
    assert!(outcome.timed_out && outcome.wall_ms < 5_000, "{outcome:?}");
}

#[test]
fn a_memory_hog_is_ended() {
    let limits = Limits { memory_bytes: 128 << 20, ..Limits::default() };
    let hogs = [
        "a = []\nwhile True: a.append(bytearray(1 << 20))",
        "import os\nfor _ in range(6):\n    if os.fork() == 0:\n        a = b'x' * (60 << 20); import time; time.sleep(9)\nos.wait()",
        "a = bytearray(1 << 40)",
    ];
    for hog in hogs {
        let Some(outcome) = python_within(limits.clone(), hog) else { return };
        assert!(outcome.out_of_memory && !outcome.timed_out, "{hog}: {outcome:?}");
    }
}

#[test]
fn a_fork_bomb_is_contained() {
    let limits = Limits { wall_ms: 3_000, ..Limits::default() };
    let text =
        "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass";
    let Some(outcome) = python_within(limits, text) else { return };
    assert!(outcome.timed_out || outcome.too_many_processes, "{outcome:?}");
}

#[test]
fn a_flood_of_output_is_cut() {
    let limits = Limits { output_bytes: 10_001, cpu_ms: 500, ..Limits::default() };
    let text = "import sys\nwhile True: sys.stdout.write('é' * 1000); sys.stderr.write('x')";
    let Some(outcome) = python_within(limits, text) else { return };
    assert!(outcome.timed_out && outcome.stdout_truncated, "{}", outcome.cpu_ms);
    assert_eq!((outcome.stdout.len(), outcome.stdout.chars().all(|c| c == 'é')), (10_000, true));
}

#[test]
fn a_large_file_is_refused() {
    let limits = Limits { file_bytes: 1 << 20, ..Limits::default() };
    let text = "open('big', 'wb').write(bytes(2 << 20))";
    let Some(outcome) = python_within(limits, text) else { return };
    assert!(!outcome.success() && outcome.stderr.contains("too large"), "{outcome:?}");
}

#[test]
fn background_processes_end_with_the_run() {
    // The grandchild leaves the session and would write a mark after the run; a name in its arguments finds it.
    let mark = format!("hardn-orphan-{}", std::process::id());
    let text = format!(
        "import os, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv('/bin/sh', ['sh', '-c', 'sleep 60; : {mark}'])
    os._exit(0)
import time; time.sleep(0.2)
"
    );
    let Some(outcome) = python(&text) else { return };
    assert!(outcome.success() && outcome.wall_ms < 10_000, "{outcome:?}");
    std::thread::sleep(Duration::from_millis(50));
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&line).contains(&mark), "{:?}", entry.path());
    }
}

#[test]
fn nothing_is_left_behind() {
    let Some(outcome) = python("import os\nos.mkdir('d'); os.chmod('d', 0)\nprint(os.getcwd())")
    else {
        return;
    };
    assert!(!Path::new(outcome.stdout.trim()).exists());
}

#[test]
fn c_that_does_not_compile_is_told_apart() {
    let Some(run) = c("int main(void) { return x; }", false) else { return };
    let CompiledRun::NotCompiled(outcome) = run else { panic!("{run:?}") };
    assert!(outcome.stderr.contains("undeclared"), "{outcome:?}");
}

#[test]
fn c_runs_in_an_empty_folder() {
    let text = "#include <dirent.h>\n#include <stdio.h>\n#include <math.h>\n\
        int main(void) { int n = 0; DIR *d = opendir(\".\"); while (readdir(d)) n++; printf(\"%d %.0f\\n\", n, sqrt(n + 2)); return 3; }";
    let Some(run) = c(text, false) else { return };
    let CompiledRun::Ran(outcome) = run else { panic!("{run:?}") };
    assert_eq!((outcome.exit, outcome.stdout.as_str()), (Some(3), "2 2\n"));
}

#[test]
fn sanitizers_work() {
    let cases = [
        ("int main(void) { return 0; }", true, ""),
        (
            "#include <stdlib.h>\nint main(void) { volatile char *p = malloc(4); p[4] = 1; return 0; }",
            false,
            "insufficient space",
        ),
        (
            "int main(int n, char **v) { volatile int x = 2147483647; x += n; return 0; }",
            false,
            "signed integer overflow",
        ),
    ];
    for (text, holds, message) in cases {
        let Some(run) = c(text, true) else { return };
        assert_eq!(run.success(), holds, "{run:?}");
        assert!(run.outcome().stderr.contains(message), "{run:?}");
    }
}

#[test]
fn a_compiler_cannot_read_what_programs_cannot() {
    let Some(run) = c("#include \"/etc/shadow\"\nint main(void) { return 0; }", false) else {
        return;
    };
    assert!(matches!(run, CompiledRun::NotCompiled(_)), "{run:?}");
}

#[test]
fn only_timeouts_are_run_again() {
    let sandbox = Sandbox::new(Limits { wall_ms: 200, ..Limits::default() }).unwrap();
    for (command, expected) in [("sleep 9", 2), ("false", 1), ("true", 1)] {
        let mut n_runs = 0;
        let run = run_twice_on_timeout(|| {
            n_runs += 1;
            sandbox.run(&Program::new(["sh", "-c", command])).map(CompiledRun::Ran)
        });
        assert_eq!(n_runs, expected, "{run:?}");
    }
}

#[test]
fn runs_from_several_threads_do_not_disturb_each_other() {
    if python("").is_none() {
        return;
    }
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for round in 0..5 {
                    let outcome = python(&format!("print({thread}, {round})")).unwrap();
                    assert_eq!(outcome.stdout, format!("{thread} {round}\n"));
                }
            });
        }
    });
}

/// Prints the cost of a run beside the program's own; run with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement; cargo test -p hardn-sandbox --test it -- --ignored --nocapture"]
#[expect(clippy::print_stderr, reason = "its output is the point")]
fn overhead() {
    let time = |what: &str, run: &dyn Fn()| {
        run();
        let start = std::time::Instant::now();
        for _ in 0..200 {
            run();
        }
        eprintln!("{what}: {:.2} ms", start.elapsed().as_secs_f64() * 1000.0 / 200.0);
    };
    let sandbox = Sandbox::new(Limits::default()).unwrap();
    eprintln!("{}", sandbox.tier());
    time("sandboxed true", &|| drop(sandbox.run(&Program::new(["true"])).unwrap()));
    time("bare true", &|| drop(std::process::Command::new("/usr/bin/true").output().unwrap()));
    time("sandboxed python", &|| drop(sandbox.run_python("print(1)").unwrap()));
    time("bare python", &|| {
        let arguments = ["-s", "-S", "-B", "-c", "print(1)"];
        drop(std::process::Command::new("/usr/bin/python3").args(arguments).output().unwrap());
    });
}
