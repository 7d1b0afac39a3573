//! `hardn doctor`: what this machine offers, what is missing, and how to get it.

use std::{fmt::Write as _, process::Command};

use hardn_sandbox::{CFlags, Sandbox};
use serde::Serialize;

use crate::{
    failure::{FOUND, Failure, Outcome},
    limits::limits,
    output,
};

#[derive(Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    needed_for: &'static str,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<&'static str>,
}

pub(crate) fn run(json: bool) -> Outcome {
    let checks = checks();
    if json {
        output::put_json(&serde_json::json!({
            "hardn": env!("CARGO_PKG_VERSION"),
            "ok": checks.iter().all(|check| check.ok),
            "checks": checks,
        }))?;
    } else {
        let mut text = format!("hardn {}\n", env!("CARGO_PKG_VERSION"));
        for check in &checks {
            let mark = if check.ok { "ok  " } else { "MISS" };
            let _ = writeln!(text, "{mark}  {:<18} {}", check.name, check.found);
            if let Some(help) = check.help.filter(|_| !check.ok) {
                let _ = writeln!(text, "        needed for {}; {help}", check.needed_for);
            }
        }
        output::put(&text)?;
    }
    if checks.iter().all(|check| check.ok) { Ok(()) } else { Err(Failure::silent(FOUND)) }
}

fn checks() -> Vec<Check> {
    let tools = "run scripts/install-tools.sh";
    let program = |name, needed_for, command: &str| {
        let found = version(command);
        Check {
            name,
            ok: found.is_some(),
            needed_for,
            found: found.unwrap_or_else(|| "not found".to_owned()),
            help: Some(tools),
        }
    };
    let mut checks = vec![
        program("python3", "validity and tests of Python", "python3"),
        program("gcc", "validity and tests of C", "gcc"),
        program("g++", "validity of C++", "g++"),
        sanitizers(tools),
        sandbox(),
        processor(),
    ];
    let folder = crate::assets::cache_folder();
    let writable = std::fs::create_dir_all(&folder).is_ok() && tempfile_in(&folder);
    checks.push(Check {
        name: "cache folder",
        ok: writable,
        needed_for: "unpacking the shipped models",
        found: if writable { "can be written".to_owned() } else { "cannot be written".to_owned() },
        help: Some("set XDG_CACHE_HOME to a folder that can be written"),
    });
    let models = crate::assets::shipped();
    checks.push(Check {
        name: "shipped models",
        ok: !models.is_empty(),
        needed_for: "hardn demo",
        found: models.join(", "),
        help: None,
    });
    checks
}

/// The first line of `PROGRAM --version`.
fn version(program: &str) -> Option<String> {
    let output =
        Command::new(program).arg("--version").output().ok().filter(|o| o.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().map(str::to_owned)
}

fn sanitizers(help: &'static str) -> Check {
    let source = "int main(void) { return 0; }\n";
    let flags = CFlags { sanitize: true };
    let run = Sandbox::new(limits())
        .and_then(|sandbox| sandbox.compile_and_run_c(source, flags, hardn_types::Language::C));
    let (ok, found) = match run {
        Ok(run) if run.success() => {
            (true, "AddressSanitizer, UndefinedBehaviorSanitizer".to_owned())
        }
        Ok(run) => (false, run.outcome().stderr.lines().next().unwrap_or("do not run").to_owned()),
        Err(error) => (false, error.to_string()),
    };
    Check { name: "sanitizers", ok, needed_for: "attack tests in C", found, help: Some(help) }
}

fn sandbox() -> Check {
    let (ok, found) = match Sandbox::new(limits()) {
        Ok(sandbox) => (true, sandbox.tier()),
        Err(error) => (false, error.to_string()),
    };
    Check {
        name: "sandbox",
        ok,
        needed_for: "running tests",
        found,
        help: Some("a Linux kernel with Landlock (5.13 or newer) and seccomp is needed"),
    }
}

fn processor() -> Check {
    #[cfg(target_arch = "x86_64")]
    let (ok, features) = {
        let avx2 = std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("fma");
        let avx512 = std::arch::is_x86_feature_detected!("avx512f");
        (
            avx2,
            if avx512 {
                "AVX-512"
            } else if avx2 {
                "AVX2, FMA"
            } else {
                "no AVX2"
            },
        )
    };
    #[cfg(not(target_arch = "x86_64"))]
    let (ok, features) = (true, std::env::consts::ARCH);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Check {
        name: "processor",
        ok,
        needed_for: "the default build",
        found: format!("{threads} threads, {features}"),
        help: Some("remove target-cpu from .cargo/config.toml and build again"),
    }
}

fn tempfile_in(folder: &std::path::Path) -> bool {
    let path = folder.join(format!(".doctor.{}", std::process::id()));
    let ok = std::fs::write(&path, b"x").is_ok();
    let _ = std::fs::remove_file(path);
    ok
}
