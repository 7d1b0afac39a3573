//! Models by hub name, from a local server that plays the hub.

#[path = "../../../hardn-hub/tests/it/server.rs"]
#[allow(dead_code, reason = "the hub's own tests use the rest")]
mod server;

use std::{
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use server::{Fault, Hub};

const REPO: &str = "owner/name";
const WEIGHTS: &str = "model.safetensors";

/// A hub with the model of a workplace.
fn hub_of(folder: &Path) -> (Hub, String) {
    let hub = Hub::start();
    let files: Vec<(String, Vec<u8>)> = fs::read_dir(folder.join("model"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    let commit = hub.commit(REPO, &files);
    (hub, commit)
}

fn command(folder: &Path, hub: &Hub, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hardn"));
    let unset = ["HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HF_HUB_OFFLINE"];
    for name in unset.iter().chain(&["HUGGINGFACE_HUB_CACHE", "HUGGING_FACE_HUB_TOKEN"]) {
        command.env_remove(name);
    }
    command
        .args(args)
        .current_dir(folder)
        .env("XDG_CACHE_HOME", folder.join(".cache"))
        .env("HF_HOME", folder.join("hf"))
        .env("HF_ENDPOINT", &hub.endpoint)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn start(folder: &Path, hub: &Hub, args: &[&str]) -> Child {
    command(folder, hub, args).spawn().unwrap()
}

#[track_caller]
fn text(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn says(mut command: Command, said: &[&str]) {
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    for said in said {
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_fetched_model_gives_the_logits_of_its_folder() {
    let place = super::workplace();
    let folder = place.path();
    let (hub, commit) = hub_of(folder);
    let run = |args: &[&str]| text(&command(folder, &hub, args).output().unwrap());
    let logits = |model: &str| run(&["inspect", "logits", "--model", model, "--ids", "5,6,7"]);
    let expected = logits("model");
    assert!(hub.take_seen().is_empty());

    let fetched: Value = serde_json::from_str(&run(&["fetch", "model", REPO, "--json"])).unwrap();
    assert_eq!(fetched["commit"], *commit);
    assert_eq!(fetched["pinned"], format!("{REPO}@{commit}"));
    assert_eq!(fetched["bytes"], fetched["bytes_fetched"]);
    assert!(Path::new(fetched["path"].as_str().unwrap()).join(WEIGHTS).is_file());

    hub.take_seen();
    assert_eq!(logits(REPO), expected);
    assert_eq!(hub.take_seen().len(), 1, "the hub is asked which commit is meant, and no more");
    assert_eq!(logits(&format!("{REPO}@{commit}")), expected);
    assert!(hub.take_seen().is_empty());

    run(&["fetch", "model", REPO, "--revision", &commit, "--out", "copy"]);
    run(&["fetch", "model", REPO, "--out", "copy"]);
    assert_eq!(logits("copy"), expected);
    let offline = |args: &[&str]| {
        let mut command = command(folder, &hub, args);
        command.env("HF_HUB_OFFLINE", "1");
        command
    };
    hub.take_seen();
    let args = ["inspect", "logits", "--model", REPO, "--ids", "5,6,7"];
    assert_eq!(text(&offline(&args).output().unwrap()), expected);
    says(offline(&["fetch", "model", "owner/other"]), &["`owner/other`", "never fetched"]);
    assert!(hub.take_seen().is_empty());
}

#[test]
fn what_cannot_be_fetched_is_said() {
    let place = super::workplace();
    let folder = place.path();
    let (hub, _) = hub_of(folder);
    let run = |args: &[&str]| command(folder, &hub, args);
    says(run(&["fetch", "model", "owner/other"]), &["no repository `owner/other`", "help:"]);
    says(run(&["fetch", "model", REPO, "--revision", "v9"]), &["no revision `v9`"]);
    says(run(&["fetch", "model", "./model"]), &["no hub name"]);
    says(run(&["complete", "x", "--model", "./gone"]), &["no model `./gone`", "lab-1m"]);
    let gone = ["complete", "x", "--model", "model", "--adapter", "a/b/c"];
    says(run(&gone), &["no adapter `a/b/c`"]);
    hub.make_private(REPO, "secret");
    says(run(&["fetch", "model", REPO]), &["401", "set HF_TOKEN"]);
    let mut allowed = run(&["fetch", "model", REPO, "--out", "copy"]);
    text(&allowed.env("HF_TOKEN", "secret").output().unwrap());
    fs::write(folder.join("copy/other.bin"), "x").unwrap();
    let mut mixed = run(&["fetch", "model", REPO, "--out", "copy"]);
    mixed.env("HF_TOKEN", "secret");
    says(mixed, &["copy holds other.bin"]);
    hub.make_private(REPO, "other");
    let mut nowhere = run(&["fetch", "model", REPO]);
    nowhere.env("HF_ENDPOINT", "http://127.0.0.1:1");
    says(nowhere, &["cannot reach http://127.0.0.1:1", "HF_ENDPOINT"]);
}

#[test]
fn a_killed_fetch_goes_on_where_it_stopped() {
    let place = super::workplace();
    let folder = place.path();
    let (hub, _) = hub_of(folder);
    let size = fs::metadata(folder.join("model").join(WEIGHTS)).unwrap().len() as usize;
    hub.fault(WEIGHTS, Fault::Stall { after: 1000, times: 1 });
    let mut child = start(folder, &hub, &["fetch", "model", REPO]);
    let blobs = folder.join("hf/hub/models--owner--name/blobs");
    let end = Instant::now() + Duration::from_mins(1);
    let has_arrived = || {
        fs::read_dir(&blobs).into_iter().flatten().flatten().any(|entry| {
            entry.path().extension().is_some_and(|extension| extension == "incomplete")
                && entry.metadata().is_ok_and(|found| found.len() == 1000)
        })
    };
    while !has_arrived() {
        assert!(Instant::now() < end, "no byte has arrived");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    hub.heal();
    hub.take_seen();
    text(&command(folder, &hub, &["fetch", "model", REPO]).output().unwrap());
    let seen = hub.take_seen();
    let bytes: Vec<_> = seen.iter().filter(|seen| seen.path.contains("/cdn/")).collect();
    assert_eq!((bytes.len(), bytes[0].sent), (1, size - 1000), "{bytes:?}");
    assert_eq!(bytes[0].range.as_deref(), Some("bytes=1000-"));
}

#[test]
fn two_processes_at_once_fetch_a_file_once() {
    let place = super::workplace();
    let folder = place.path();
    let (hub, _) = hub_of(folder);
    hub.fault(WEIGHTS, Fault::Slow { wait: Duration::from_secs(1) });
    let children = [(); 2].map(|()| start(folder, &hub, &["fetch", "model", REPO]));
    for child in children {
        text(&child.wait_with_output().unwrap());
    }
    let seen = hub.take_seen();
    assert_eq!(seen.iter().filter(|seen| seen.path.contains("/cdn/")).count(), 1, "{seen:?}");
}
