//! `hardn doctor`: what this machine offers, what is missing, and how to get it.

use std::{fmt::Write as _, process::Command, time::Duration};

use hardn_oracle::{ENGINES, EngineSettings, EngineTool, external};
use hardn_sandbox::{CFlags, Sandbox};
use serde::Serialize;

use crate::{
    failure::{FOUND, Failure, Outcome},
    limits::limits,
    output,
};

/// How long a tool may take to say its version; some start slowly.
const ENGINE_TIME: Duration = Duration::from_mins(1);

#[derive(Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    /// Nothing of ours stops without it.
    optional: bool,
    needed_for: &'static str,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
}

pub(crate) fn run(json: bool) -> Outcome {
    let checks = checks();
    let complete = checks.iter().all(|check| check.ok || check.optional);
    if json {
        output::put_json(&serde_json::json!({
            "hardn": env!("CARGO_PKG_VERSION"),
            "ok": complete,
            "checks": checks,
        }))?;
    } else {
        let mut text = format!("hardn {}\n", env!("CARGO_PKG_VERSION"));
        for check in &checks {
            let mark = match (check.ok, check.optional) {
                (true, _) => "ok  ",
                (false, true) => "--  ",
                (false, false) => "MISS",
            };
            let _ = writeln!(text, "{mark}  {:<18} {}", check.name, check.found);
            if let Some(help) = check.help.as_ref().filter(|_| !check.ok) {
                let _ = writeln!(text, "        needed for {}; {help}", check.needed_for);
            }
        }
        output::put(&text)?;
    }
    if complete { Ok(()) } else { Err(Failure::silent(FOUND)) }
}

fn checks() -> Vec<Check> {
    let tools = "run scripts/install-tools.sh";
    let program = |name, needed_for, command: &str| {
        let found = version(command);
        Check {
            name,
            ok: found.is_some(),
            optional: false,
            needed_for,
            found: found.unwrap_or_else(|| "not found".to_owned()),
            help: Some(tools.to_owned()),
        }
    };
    let mut checks = vec![
        program("python3", "validity and tests of Python", "python3"),
        program("gcc", "validity and tests of C", "gcc"),
        program("g++", "validity of C++", "g++"),
        sanitizers(tools),
        sandbox(),
        processor(),
        build(),
        hub(),
    ];
    let folder = crate::assets::cache_folder();
    let writable = std::fs::create_dir_all(&folder).is_ok() && tempfile_in(&folder);
    checks.push(Check {
        name: "cache folder",
        ok: writable,
        optional: false,
        needed_for: "unpacking the shipped models",
        found: if writable { "can be written".to_owned() } else { "cannot be written".to_owned() },
        help: Some("set XDG_CACHE_HOME to a folder that can be written".to_owned()),
    });
    let models = crate::assets::shipped();
    checks.push(Check {
        name: "shipped models",
        ok: !models.is_empty(),
        optional: false,
        needed_for: "hardn demo",
        found: models.join(", "),
        help: None,
    });
    checks.extend(ENGINES.iter().map(engine));
    checks
}

/// Another analyser that `hardn scan --oracle` can ask.
fn engine(tool: &EngineTool) -> Check {
    let settings = EngineSettings { timeout: ENGINE_TIME, ..EngineSettings::default() };
    let found = external(tool.id, &settings).map_err(|error| error.to_string());
    let version =
        found.and_then(|engine| engine.version().map(str::to_owned).map_err(str::to_owned));
    Check {
        name: tool.id,
        ok: version.is_ok(),
        optional: true,
        needed_for: "hardn scan --oracle",
        found: match &version {
            Ok(version) => version.clone(),
            Err(why) if why.starts_with("not found") => "not found".to_owned(),
            Err(why) => why.clone(),
        },
        help: Some(tool.install.to_owned()),
    }
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
    let help = Some(help.to_owned());
    Check { name: "sanitizers", ok, optional: false, needed_for: "attack tests in C", found, help }
}

fn sandbox() -> Check {
    let (ok, found) = match Sandbox::new(limits()) {
        Ok(sandbox) => (true, sandbox.tier()),
        Err(error) => (false, error.to_string()),
    };
    Check {
        name: "sandbox",
        ok,
        optional: false,
        needed_for: "running tests",
        found,
        help: Some("a Linux kernel with Landlock (5.13 or newer) and seccomp is needed".to_owned()),
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
        optional: false,
        needed_for: "the default build",
        found: format!("{threads} threads, {features}"),
        help: Some("remove target-cpu from .cargo/config.toml and build again".to_owned()),
    }
}

/// Whether the program was built for the instructions that its loops are written for.
fn build() -> Check {
    let ok = cfg!(any(not(target_arch = "x86_64"), target_feature = "fma"));
    Check {
        name: "build",
        ok,
        optional: true,
        needed_for: "training at full speed",
        found: match (ok, cfg!(debug_assertions)) {
            (false, _) => "without fused multiply-add: training takes several times as long",
            (true, true) => "development profile",
            (true, false) => "release profile",
        }
        .to_owned(),
        help: Some(
            "build inside the repository, whose .cargo/config.toml sets target-cpu=x86-64-v3, \
             and without RUSTFLAGS of your own"
                .to_owned(),
        ),
    }
}

/// Where models named on the hub come from and go to.
fn hub() -> Check {
    let options = crate::hub::options();
    let cache = options.cache.display();
    Check {
        name: "hub",
        ok: !options.offline,
        optional: true,
        needed_for: "models by name that are not cached yet",
        found: if options.offline {
            format!("offline, cache {cache}")
        } else {
            format!("{}, cache {cache}", options.endpoint)
        },
        help: Some("unset HF_HUB_OFFLINE".to_owned()),
    }
}

fn tempfile_in(folder: &std::path::Path) -> bool {
    let path = folder.join(format!(".doctor.{}", std::process::id()));
    let ok = std::fs::write(&path, b"x").is_ok();
    let _ = std::fs::remove_file(path);
    ok
}
