//! `hardn sandbox`: one program under the limits every test runs under.

use std::path::Path;

use hardn_sandbox::{CompiledRun, Limits, Outcome as Run, Sandbox, run_twice_on_timeout};
use hardn_types::Language;

use super::read_text;
use crate::{
    args::SandboxArgs,
    failure::{FOUND, Failure, Outcome},
    limits::limits,
    output,
};

pub(crate) fn run(args: SandboxArgs) -> Outcome {
    let program = read_text(&args.file)?;
    let language = language(&args)?;
    let limits = Limits {
        cpu_ms: args.cpu_secs.saturating_mul(1000),
        wall_ms: args.cpu_secs.saturating_mul(4000),
        memory_bytes: args.memory_mib << 20,
        ..limits()
    };
    let sandbox = Sandbox::new(limits)?;
    let run = run_twice_on_timeout(|| sandbox.run_text(&program, language))?;
    let outcome = run.outcome();
    if args.json {
        return output::put_json(outcome);
    }
    output::put(&outcome.stdout)?;
    output::say(outcome.stderr.trim_end());
    output::say(&describe(&run));
    if run.success() { Ok(()) } else { Err(Failure::silent(FOUND)) }
}

fn language(args: &SandboxArgs) -> Outcome<Language> {
    args.language.or_else(|| Language::of_path(Path::new(&args.file))).ok_or_else(|| {
        Failure::new(format!("cannot tell the language of {}", args.file.display()))
            .help("say it with --language python, c or cpp")
    })
}

/// How a program ended, in one line.
fn describe(run: &CompiledRun) -> String {
    let Run { exit, signal, timed_out, out_of_memory, cpu_ms, wall_ms, tier, .. } = run.outcome();
    let how = match (run, exit, signal) {
        (CompiledRun::NotCompiled(_), ..) => "does not compile".to_owned(),
        _ if *timed_out => "ran out of time".to_owned(),
        _ if *out_of_memory => "ran out of memory".to_owned(),
        (_, Some(exit), _) => format!("exit status {exit}"),
        (_, None, Some(signal)) => format!("ended by signal {signal}"),
        _ => "ended".to_owned(),
    };
    format!("{how}; {cpu_ms} ms CPU, {wall_ms} ms in all; protected by {tier}")
}
