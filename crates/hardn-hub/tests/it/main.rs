//! A local server plays the hub: whole, broken, wrong, forbidden and absent.

#[allow(dead_code, reason = "the command's tests use the rest")]
mod server;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use hardn_hub::{HubError, HubOptions, ModelSource, Progress, Resolved, Token, resolve};
use server::{Fault, Hub, Seen};

const REPO: &str = "owner/name";
const WEIGHTS: &str = "model.safetensors";

/// Bytes that differ everywhere.
fn bytes(n: usize) -> Vec<u8> {
    (0..n as u32).flat_map(|i| (i.wrapping_mul(2_654_435_761) >> 8).to_le_bytes()).take(n).collect()
}

struct Place {
    hub: Hub,
    folder: tempfile::TempDir,
    options: HubOptions,
}

/// A hub with one small model, and an empty cache.
fn place() -> (Place, String) {
    let hub = Hub::start();
    let folder = tempfile::tempdir().unwrap();
    let options = HubOptions {
        endpoint: hub.endpoint.clone(),
        cache: folder.path().join("hub"),
        token: None,
        offline: false,
        stale_if_unreachable: true,
        retries: 3,
        retry_wait: Duration::from_millis(1),
        timeout: Duration::from_secs(5),
        stop: Arc::default(),
    };
    let weights = bytes(300_000);
    let commit = hub.commit(
        REPO,
        &[
            ("config.json", b"{}"),
            ("tokenizer.json", b"{\"model\": {}}"),
            ("README.md", b"never fetched"),
            ("modeling.py", b"never fetched"),
            ("empty.txt", b""),
            ("merges.txt", b""),
            (WEIGHTS, &weights),
            ("pytorch_model.bin", &weights),
        ],
    );
    (Place { hub, folder, options }, commit)
}

impl Place {
    fn get(&self, name: &str) -> Result<Resolved, HubError> {
        resolve(&ModelSource::parse(name).unwrap(), &self.options, &mut |_| {})
    }

    fn events(&self, name: &str) -> (Result<Resolved, HubError>, Vec<String>) {
        let mut events = Vec::new();
        let source = ModelSource::parse(name).unwrap();
        let result = resolve(&source, &self.options, &mut |event| {
            let text = format!("{event:?}");
            if !matches!(event, Progress::Bytes { .. }) {
                events.push(text);
            }
        });
        (result, events)
    }

    #[track_caller]
    fn fails(&self, name: &str, said: &str, help: &str) -> HubError {
        let error = self.get(name).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
        let helped = error.help().unwrap_or_default();
        assert!(helped.contains(help), "{helped}");
        error
    }

    fn blobs(&self) -> Vec<PathBuf> {
        let folder = self.options.cache.join("models--owner--name/blobs");
        let mut found: Vec<PathBuf> =
            fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
        found.sort();
        found
    }

    fn partial(&self) -> Option<PathBuf> {
        self.blobs().into_iter().find(|path| path.extension().is_some_and(|e| e == "incomplete"))
    }

    /// Requests for the weights' bytes.
    fn transfers(&self) -> Vec<Seen> {
        let is_transfer = |seen: &Seen| seen.method == "GET" && seen.path.contains("/cdn/");
        self.hub.take_seen().into_iter().filter(is_transfer).collect()
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut found: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    found
}

#[test]
fn a_model_comes_whole_and_only_what_is_needed() {
    let (place, commit) = place();
    let found = place.get(REPO).unwrap();
    assert!(found.path.ends_with(format!("models--owner--name/snapshots/{commit}")));
    let expected = ["config.json", "merges.txt", WEIGHTS, "tokenizer.json"];
    assert_eq!(names(&found.path), expected);
    assert_eq!(fs::read(found.path.join(WEIGHTS)).unwrap(), bytes(300_000));
    let link = fs::read_link(found.path.join(WEIGHTS)).unwrap();
    assert!(link.starts_with("../../blobs"), "{}", link.display());
    let refs = place.options.cache.join("models--owner--name/refs/main");
    assert_eq!(fs::read_to_string(refs).unwrap(), commit);
    let origin = found.origin.unwrap();
    assert_eq!(origin.pinned().to_string(), format!("owner/name@{commit}"));
    assert!(origin.files.iter().all(|file| file.fetched));

    // The second time the hub is only asked which commit is meant.
    place.hub.take_seen();
    let again = place.get(REPO).unwrap();
    assert_eq!(place.hub.take_seen().len(), 1);
    assert!(again.origin.unwrap().files.iter().all(|file| !file.fetched));
}

#[test]
fn a_dropped_connection_goes_on_where_it_stopped() {
    let (place, _) = place();
    place.hub.fault(WEIGHTS, Fault::Cut { after: 100_000, times: 2 });
    let (found, events) = place.events(REPO);
    assert_eq!(fs::read(found.unwrap().path.join(WEIGHTS)).unwrap(), bytes(300_000));
    assert_eq!(events.iter().filter(|event| event.starts_with("Retry")).count(), 2, "{events:?}");
    let transfers = place.transfers();
    let ranges: Vec<_> = transfers.iter().map(|seen| seen.range.as_deref()).collect();
    assert_eq!(ranges, [None, Some("bytes=100000-"), Some("bytes=200000-")]);
    assert_eq!(transfers.iter().map(|seen| seen.sent).sum::<usize>(), 300_000);
}

#[test]
fn a_connection_that_falls_silent_is_given_up() {
    let (mut place, _) = place();
    place.options.timeout = Duration::from_millis(500);
    place.hub.fault(WEIGHTS, Fault::Stall { after: 100_000, times: 1 });
    let found = place.get(REPO).unwrap();
    assert_eq!(fs::read(found.path.join(WEIGHTS)).unwrap(), bytes(300_000));
    assert_eq!(place.transfers()[1].range.as_deref(), Some("bytes=100000-"));
}

#[test]
fn the_next_call_goes_on_where_the_last_gave_up() {
    let (mut place, _) = place();
    place.options.retries = 0;
    place.hub.fault(WEIGHTS, Fault::Cut { after: 100_000, times: 1 });
    place.fails(REPO, "broke off at byte 100000 of 300000", "run the same command");
    assert_eq!(place.partial().unwrap().metadata().unwrap().len(), 100_000);
    place.hub.take_seen();
    let (found, events) = place.events(REPO);
    assert_eq!(fs::read(found.unwrap().path.join(WEIGHTS)).unwrap(), bytes(300_000));
    assert!(events[0].contains("bytes: 300000, already: 100000"), "{events:?}");
    let transfers = place.transfers();
    assert_eq!(transfers.len(), 1);
    assert_eq!(
        (transfers[0].range.as_deref(), transfers[0].sent),
        (Some("bytes=100000-"), 200_000)
    );
}

#[test]
fn a_server_without_ranges_sends_all_again() {
    let (place, _) = place();
    let source = ModelSource::parse(REPO).unwrap();
    place.hub.fault(WEIGHTS, Fault::Cut { after: 100_000, times: 1 });
    resolve(&source, &HubOptions { retries: 0, ..place.options.clone() }, &mut |_| {}).unwrap_err();
    place.hub.fault(WEIGHTS, Fault::NoRanges);
    place.hub.take_seen();
    let found = place.get(REPO).unwrap();
    assert_eq!(fs::read(found.path.join(WEIGHTS)).unwrap(), bytes(300_000));
    assert_eq!(place.transfers()[0].sent, 300_000);
}

#[test]
fn a_wrong_hash_is_thrown_away() {
    let (place, _) = place();
    place.hub.fault(WEIGHTS, Fault::WrongByte);
    let error = place.fails(REPO, "wrong hash", "thrown away");
    assert!(matches!(error, HubError::WrongHash { file, .. } if file == WEIGHTS));
    assert_eq!(place.partial(), None);
    assert!(place.blobs().iter().all(|path| path.metadata().unwrap().len() < 1_000));
    place.hub.fault("config.json", Fault::WrongByte);
    fs::remove_dir_all(&place.options.cache).unwrap();
    place.fails(REPO, "config.json arrived with the wrong hash", "");
    place.hub.heal();
    place.get(REPO).unwrap();
}

#[test]
fn a_broken_partial_file_costs_one_fresh_start() {
    let (mut place, _) = place();
    place.options.retries = 0;
    place.hub.fault(WEIGHTS, Fault::Cut { after: 100_000, times: 1 });
    place.get(REPO).unwrap_err();
    let partial = place.partial().unwrap();
    for broken in [vec![7; 100_000], vec![7; 300_000], vec![7; 400_000]] {
        fs::write(&partial, &broken).unwrap();
        let found = place.get(REPO).unwrap();
        assert_eq!(fs::read(found.path.join(WEIGHTS)).unwrap(), bytes(300_000));
        assert_eq!(place.partial(), None);
        fs::remove_file(found.path.join(WEIGHTS)).unwrap();
        let large = |path: &PathBuf| path.metadata().unwrap().len() > 1_000;
        fs::remove_file(place.blobs().into_iter().find(large).unwrap()).unwrap();
    }
}

#[test]
fn a_body_that_stays_short_is_never_taken_for_whole() {
    let (place, _) = place();
    place.hub.fault(WEIGHTS, Fault::Cut { after: 0, times: usize::MAX });
    place.fails(REPO, "broke off at byte 0 of 300000", "run the same command");
    assert_eq!(place.transfers().len(), 4);
    let mut offline = place;
    offline.options.offline = true;
    offline.fails(REPO, "it was never fetched", "hardn fetch model owner/name@main");
}

#[test]
fn a_busy_server_is_asked_again() {
    let (place, _) = place();
    place.hub.fault(WEIGHTS, Fault::Status { status: 503, times: 2 });
    place.get(REPO).unwrap();
    assert_eq!(place.transfers().len(), 3);
}

#[test]
fn sizes_are_checked_where_the_hub_names_no_hash() {
    let (place, _) = place();
    place.hub.fault(WEIGHTS, Fault::NoHash);
    let (found, events) = place.events(REPO);
    assert_eq!(fs::read(found.unwrap().path.join(WEIGHTS)).unwrap(), bytes(300_000));
    assert!(events.iter().any(|event| event.starts_with("Unverified")), "{events:?}");
}

#[test]
fn what_does_not_exist_is_named() {
    let (place, _) = place();
    place.fails("owner/other", "no repository `owner/other`", "spelling");
    place.fails("owner/name@v9", "no revision `v9`", "branch");
    place.hub.commit("owner/quantised", &[("q4.gguf", b"1"), ("q8.gguf", b"2")]);
    place.fails(
        "owner/quantised",
        "no weights",
        "owner/quantised:q4.gguf or owner/quantised:q8.gguf",
    );
    place.fails("owner/quantised:q5.gguf", "no file `q5.gguf`", "q4.gguf, q8.gguf");
    place.hub.commit("owner/broken", &[("model.safetensors.index.json", b"{}")]);
    place.fails("owner/broken", "`weight_map`", "at fault");
}

#[test]
fn the_token_goes_to_the_hub_and_nowhere_else() {
    let (mut place, _) = place();
    place.hub.make_private(REPO, "secret");
    place.fails(REPO, "(401)", "set HF_TOKEN");
    place.options.token = Token::new("wrong");
    place.fails(REPO, "(401)", "still valid");
    place.hub.take_seen();
    place.options.token = Token::new("secret");
    place.get(REPO).unwrap();
    for seen in place.hub.take_seen() {
        let expected = (!seen.path.contains("/cdn/")).then_some("Bearer secret");
        assert_eq!(seen.token.as_deref(), expected, "{seen:?}");
    }
    place.hub.commit("owner/gated", &[("config.json", b"{}"), (WEIGHTS, b"x")]);
    place.hub.make_gated("owner/gated");
    place.fails("owner/gated", "(403)", "accept its terms");
}

#[test]
fn a_hub_that_cannot_be_reached() {
    let (mut place, commit) = place();
    let endpoint = std::mem::replace(&mut place.options.endpoint, "http://127.0.0.1:1".to_owned());
    place.fails(REPO, "cannot reach http://127.0.0.1:1", "HF_ENDPOINT");
    place.options.endpoint = endpoint;
    place.get(REPO).unwrap();
    place.options.endpoint = "http://127.0.0.1:1".to_owned();
    let (found, events) = place.events(REPO);
    assert_eq!(found.unwrap().origin.unwrap().commit, commit);
    assert!(events.iter().any(|event| event.starts_with("Stale")), "{events:?}");
    place.options.stale_if_unreachable = false;
    place.fails(REPO, "cannot reach", "");
}

#[test]
fn offline_uses_what_is_there_and_says_what_is_not() {
    let (mut place, commit) = place();
    place.options.offline = true;
    place.fails(REPO, "it was never fetched", "unset HF_HUB_OFFLINE");
    place.options.offline = false;
    let found = place.get(REPO).unwrap();
    place.options.offline = true;
    place.hub.take_seen();
    assert_eq!(place.get(REPO).unwrap().path, found.path);
    assert_eq!(place.get(&format!("{REPO}@{commit}")).unwrap().path, found.path);
    assert!(place.hub.take_seen().is_empty());
    fs::remove_file(found.path.join("tokenizer.json")).unwrap();
    place.fails(REPO, "tokenizer.json is missing", "");
}

#[test]
fn a_pinned_commit_is_not_asked_for_twice_and_does_not_move() {
    let (place, old) = place();
    place.hub.branch(REPO, "refs/pr/1", &old);
    let new = place.hub.commit(REPO, &[("config.json", b"{\"new\": 1}"), (WEIGHTS, b"new")]);
    let pinned = format!("{REPO}@{old}");
    assert_eq!(fs::read(place.get(&pinned).unwrap().path.join("config.json")).unwrap(), b"{}");
    place.hub.take_seen();
    assert!(place.get(&pinned).unwrap().path.ends_with(&old));
    assert!(place.hub.take_seen().is_empty());
    assert!(place.get(REPO).unwrap().path.ends_with(&new));
    assert!(place.get("owner/name@refs/pr/1").unwrap().path.ends_with(&old));
    assert!(place.options.cache.join("models--owner--name/refs/refs/pr/1").is_file());
    assert!(!place.options.cache.join("models--owner--name/refs").join(&old).exists());
}

#[test]
fn a_cache_that_python_filled_serves_offline() {
    let (mut place, commit) = place();
    let found = place.get(REPO).unwrap();
    fs::remove_dir_all(place.options.cache.join("models--owner--name/.hardn")).unwrap();
    place.options.offline = true;
    assert_eq!(place.get(REPO).unwrap().path, found.path);
    fs::remove_file(found.path.join(WEIGHTS)).unwrap();
    place.fails(&format!("{REPO}@{commit}"), "its weights file is missing", "");
}

#[test]
fn shards_come_from_the_index() {
    let (place, _) = place();
    let index = br#"{"weight_map": {"a": "w-1.safetensors", "b": "w-2.safetensors"}}"#;
    let files: &[(&str, &[u8])] = &[
        ("config.json", b"{}"),
        ("model.safetensors.index.json", index),
        ("w-1.safetensors", b"one"),
        ("w-2.safetensors", b"two"),
        ("w-3.safetensors", b"unused"),
    ];
    place.hub.commit("owner/shards", files);
    let expected =
        ["config.json", "model.safetensors.index.json", "w-1.safetensors", "w-2.safetensors"];
    assert_eq!(names(&place.get("owner/shards").unwrap().path), expected);
    place.hub.commit("owner/lost", &files[..3]);
    place.fails("owner/lost", "w-2.safetensors", "at fault");
}

#[test]
fn one_named_file() {
    let (mut place, _) = place();
    place.hub.commit("owner/quantised", &[("sub/q4.gguf", b"4"), ("q8.gguf", b"8")]);
    let found = place.get("owner/quantised:sub/q4.gguf").unwrap();
    assert_eq!(fs::read(&found.path).unwrap(), b"4");
    assert_eq!(found.origin.unwrap().files.len(), 1);
    place.options.offline = true;
    assert_eq!(place.get("owner/quantised:sub/q4.gguf").unwrap().path, found.path);
    place.fails("owner/quantised:q8.gguf", "q8.gguf is missing", "");
}

#[test]
fn a_stop_keeps_what_has_arrived() {
    let (place, _) = place();
    let stop = Arc::clone(&place.options.stop);
    let source = ModelSource::parse(REPO).unwrap();
    let stopped = resolve(&source, &place.options, &mut |event| {
        if matches!(event, Progress::Bytes { file: WEIGHTS, .. }) {
            stop.store(true, Ordering::Relaxed);
        }
    });
    assert!(matches!(stopped, Err(HubError::Stopped)), "{stopped:?}");
    let kept = place.partial().unwrap().metadata().unwrap().len();
    stop.store(false, Ordering::Relaxed);
    place.hub.take_seen();
    place.get(REPO).unwrap();
    assert_eq!(place.transfers()[0].sent as u64, 300_000 - kept);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_said_and_the_rest_is_fetched_later() {
    let (place, _) = place();
    place.hub.fault(WEIGHTS, Fault::Cut { after: 100_000, times: usize::MAX });
    let source = ModelSource::parse(REPO).unwrap();
    resolve(&source, &HubOptions { retries: 0, ..place.options.clone() }, &mut |_| {}).unwrap_err();
    let partial = place.partial().unwrap();
    fs::remove_file(&partial).unwrap();
    std::os::unix::fs::symlink("/dev/full", &partial).unwrap();
    place.fails(REPO, "No space left on device", "free some space");
    fs::remove_file(&partial).unwrap();
    place.hub.heal();
    place.get(REPO).unwrap();
}

#[test]
fn another_process_is_waited_for() {
    let (place, _) = place();
    place.get(REPO).unwrap();
    let large = |path: &PathBuf| path.metadata().unwrap().len() > 1_000;
    let blob = place.blobs().into_iter().find(large).unwrap();
    let kept = place.folder.path().join("kept");
    fs::rename(&blob, &kept).unwrap();
    let name = format!("{}.lock", blob.file_name().unwrap().to_str().unwrap());
    let lock =
        fs::File::open(place.options.cache.join(".locks/models--owner--name").join(name)).unwrap();
    lock.lock().unwrap();
    place.hub.take_seen();
    let mut lock = Some(lock);
    let source = ModelSource::parse(REPO).unwrap();
    let found = resolve(&source, &place.options, &mut |event| {
        if matches!(event, Progress::Waiting { .. }) {
            // The other process gives the blob its name and lets go.
            fs::rename(&kept, &blob).unwrap();
            drop(lock.take());
        }
    });
    assert_eq!(fs::read(found.unwrap().path.join(WEIGHTS)).unwrap(), bytes(300_000));
    assert!(lock.is_none() && place.transfers().is_empty());
}

#[test]
fn a_path_that_is_gone_is_no_question_for_the_hub() {
    let (place, _) = place();
    let gone = ModelSource::Local(place.folder.path().join("gone"));
    let error = resolve(&gone, &place.options, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("no file or folder"), "{error}");
    assert!(place.hub.take_seen().is_empty());
}
