//! A small server that plays the hub, and the CDN behind it, on two ports of this machine.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// What goes wrong with a file's bytes.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The connection is closed after so many bytes of an answer; so many times.
    Cut { after: usize, times: usize },
    /// Nothing more comes after so many bytes, and the connection stays open; so many times.
    Stall { after: usize, times: usize },
    /// The answer takes its time.
    Slow { wait: Duration },
    /// One byte is another.
    WrongByte,
    /// A status instead of bytes; so many times.
    Status { status: u16, times: usize },
    /// `Range` is not understood.
    NoRanges,
    /// The hub names no hash.
    NoHash,
}

/// A request, and how many bytes of body went back.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) range: Option<String>,
    pub(crate) token: Option<String>,
    pub(crate) sent: usize,
}

#[derive(Default)]
struct State {
    /// By repository and commit, then by file.
    commits: BTreeMap<(String, String), BTreeMap<String, Vec<u8>>>,
    /// By repository and branch.
    branches: BTreeMap<(String, String), String>,
    /// By repository: the token it asks for.
    private: BTreeMap<String, String>,
    gated: Vec<String>,
    faults: BTreeMap<String, Fault>,
    seen: Vec<Seen>,
}

/// The server; it lives as long as the test's process.
#[derive(Clone)]
pub(crate) struct Hub {
    pub(crate) endpoint: String,
    cdn: String,
    state: Arc<Mutex<State>>,
}

impl Hub {
    pub(crate) fn start() -> Self {
        let (hub, cdn) = (listen(), listen());
        let state = Arc::default();
        let this = Self { endpoint: address(&hub), cdn: address(&cdn), state };
        for listener in [hub, cdn] {
            let this = this.clone();
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let this = this.clone();
                    thread::spawn(move || {
                        let _ = this.answer(stream);
                    });
                }
            });
        }
        this
    }

    /// Adds a commit to a repository's main branch and gives its hash.
    pub(crate) fn commit(&self, repo: &str, files: &[(&str, &[u8])]) -> String {
        let mut state = self.state.lock().unwrap();
        let mut hash = Sha1::new();
        for (name, bytes) in files {
            hash.update(name);
            hash.update(bytes);
        }
        let commit = hex(&hash.finalize());
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec()));
        state.commits.insert((repo.to_owned(), commit.clone()), files.collect());
        state.branches.insert((repo.to_owned(), "main".to_owned()), commit.clone());
        commit
    }

    pub(crate) fn branch(&self, repo: &str, name: &str, commit: &str) {
        let mut state = self.state.lock().unwrap();
        state.branches.insert((repo.to_owned(), name.to_owned()), commit.to_owned());
    }

    pub(crate) fn fault(&self, file: &str, fault: Fault) {
        self.state.lock().unwrap().faults.insert(file.to_owned(), fault);
    }

    pub(crate) fn heal(&self) {
        self.state.lock().unwrap().faults.clear();
    }

    pub(crate) fn make_private(&self, repo: &str, token: &str) {
        self.state.lock().unwrap().private.insert(repo.to_owned(), token.to_owned());
    }

    pub(crate) fn make_gated(&self, repo: &str) {
        self.state.lock().unwrap().gated.push(repo.to_owned());
    }

    /// Every request so far, and forgets them.
    pub(crate) fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state.lock().unwrap().seen)
    }

    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
        let mut words = first.split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut headers = BTreeMap::new();
        for line in lines {
            let line = line?;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let get = |name: &str| headers.get(name).cloned();
        let seen = Seen {
            method: method.clone(),
            path: path.clone(),
            range: get("range"),
            token: get("authorization"),
            sent: 0,
        };
        let at = {
            let mut state = self.state.lock().unwrap();
            state.seen.push(seen.clone());
            state.seen.len() - 1
        };
        let mut reply = self.reply(&seen);
        thread::sleep(reply.wait);
        let length = reply.length.unwrap_or(reply.body.len());
        let mut head = format!(
            "HTTP/1.1 {} X\r\nContent-Length: {length}\r\nConnection: close\r\n",
            reply.status
        );
        for (name, value) in &reply.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        if method != "HEAD" {
            if let Some(entry) = self.state.lock().unwrap().seen.get_mut(at) {
                entry.sent = reply.body.len();
            }
            let rest = reply.body.split_off(reply.stall.unwrap_or(reply.body.len()));
            stream.write_all(&reply.body)?;
            stream.flush()?;
            if !rest.is_empty() {
                thread::sleep(Duration::from_mins(10));
            }
        }
        stream.flush()
    }

    fn reply(&self, seen: &Seen) -> Reply {
        let mut state = self.state.lock().unwrap();
        let path = seen.path.trim_start_matches('/');
        if let Some(rest) = path.strip_prefix("cdn/") {
            let parts: Vec<&str> = rest.splitn(4, '/').collect();
            let [owner, name, commit, file] = parts[..] else { return Reply::status(404) };
            return state.bytes(&format!("{owner}/{name}"), commit, file, seen);
        }
        if let Some(rest) = path.strip_prefix("api/models/") {
            let parts: Vec<&str> = rest.split('/').collect();
            let repo = parts.get(..2).map(|parts| parts.join("/")).unwrap_or_default();
            let revision = parts.get(3).map_or("main".to_owned(), |text| text.replace("%2F", "/"));
            return state.info(&repo, &revision, seen);
        }
        let parts: Vec<&str> = path.splitn(5, '/').collect();
        let [owner, name, "resolve", revision, file] = parts[..] else { return Reply::status(404) };
        state.resolve(&format!("{owner}/{name}"), revision, file, seen, &self.cdn)
    }
}

struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// What `Content-Length` says, if not the body's.
    length: Option<usize>,
    wait: Duration,
    /// After how many bytes of body nothing more comes.
    stall: Option<usize>,
}

impl Reply {
    fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
            length: None,
            wait: Duration::ZERO,
            stall: None,
        }
    }

    fn error(status: u16, code: &str, message: &str) -> Self {
        let headers =
            vec![("X-Error-Code", code.to_owned()), ("X-Error-Message", message.to_owned())];
        Self { headers, ..Self::status(status) }
    }
}

impl State {
    fn commit_of(&self, repo: &str, revision: &str) -> Result<String, Reply> {
        let key = |revision: &str| (repo.to_owned(), revision.to_owned());
        if !self.commits.keys().any(|(name, _)| name == repo) {
            return Err(Reply::error(404, "RepoNotFound", "Repository not found"));
        }
        if self.commits.contains_key(&key(revision)) {
            return Ok(revision.to_owned());
        }
        self.branches
            .get(&key(revision))
            .cloned()
            .ok_or_else(|| Reply::error(404, "RevisionNotFound", "Invalid rev id"))
    }

    fn forbidden(&self, repo: &str, seen: &Seen) -> Option<Reply> {
        let wanted = format!("Bearer {}", self.private.get(repo)?);
        (seen.token.as_ref() != Some(&wanted))
            .then(|| Reply::error(401, "", "Invalid username or password."))
    }

    fn info(&self, repo: &str, revision: &str, seen: &Seen) -> Reply {
        if let Some(reply) = self.forbidden(repo, seen) {
            return reply;
        }
        let commit = match self.commit_of(repo, revision) {
            Ok(commit) => commit,
            Err(reply) => return reply,
        };
        let siblings: Vec<serde_json::Value> = self.commits[&(repo.to_owned(), commit.clone())]
            .keys()
            .map(|name| serde_json::json!({"rfilename": name}))
            .collect();
        let body = serde_json::json!({"id": repo, "sha": commit, "siblings": siblings}).to_string();
        Reply { body: body.into_bytes(), ..Reply::status(200) }
    }

    fn resolve(&mut self, repo: &str, revision: &str, file: &str, seen: &Seen, cdn: &str) -> Reply {
        if let Some(reply) = self.forbidden(repo, seen) {
            return reply;
        }
        if self.gated.iter().any(|gated| gated == repo) {
            return Reply::error(403, "GatedRepo", "Access to this model is restricted");
        }
        let commit = match self.commit_of(repo, revision) {
            Ok(commit) => commit,
            Err(reply) => return reply,
        };
        let Some(bytes) = self.commits[&(repo.to_owned(), commit.clone())].get(file) else {
            return Reply::error(404, "EntryNotFound", "Entry not found");
        };
        let no_hash = matches!(self.faults.get(file), Some(Fault::NoHash));
        let named =
            |hash: String| if no_hash { "\"no-hash\"".to_owned() } else { format!("\"{hash}\"") };
        let is_large = [".safetensors", ".bin", ".gguf"].iter().any(|end| file.ends_with(end));
        let mut headers = vec![("X-Repo-Commit", commit.clone())];
        if is_large {
            headers.push(("X-Linked-Etag", named(hex(&Sha256::digest(bytes)))));
            headers.push(("X-Linked-Size", bytes.len().to_string()));
            headers.push(("Location", format!("{cdn}/cdn/{repo}/{commit}/{file}")));
            return Reply { headers, ..Reply::status(302) };
        }
        let mut hash = Sha1::new_with_prefix(format!("blob {}\0", bytes.len()));
        hash.update(bytes);
        headers.push(("ETag", named(hex(&hash.finalize()))));
        if seen.method == "HEAD" {
            return Reply { headers, length: Some(bytes.len()), ..Reply::status(200) };
        }
        let mut reply = self.bytes(repo, &commit, file, seen);
        reply.headers.extend(headers);
        reply
    }

    /// A file's bytes, from `Range` on, with the file's fault.
    fn bytes(&mut self, repo: &str, commit: &str, file: &str, seen: &Seen) -> Reply {
        let Some(files) = self.commits.get(&(repo.to_owned(), commit.to_owned())) else {
            return Reply::status(404);
        };
        let mut bytes = files[file].clone();
        let size = bytes.len();
        let fault = self.faults.get_mut(file);
        let ranges = !matches!(fault, Some(Fault::NoRanges));
        let start = seen
            .range
            .as_deref()
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok())
            .filter(|_| ranges);
        if start.is_some_and(|start: usize| start >= size) {
            return Reply::status(416);
        }
        if matches!(fault, Some(Fault::WrongByte)) {
            bytes[size / 2] ^= 1;
        }
        let mut body = bytes.split_off(start.unwrap_or(0));
        let length = Some(body.len());
        let mut reply = Reply::status(200);
        match fault {
            Some(Fault::Stall { after, times }) if *times > 0 => {
                *times -= 1;
                reply.stall = Some(*after);
            }
            Some(Fault::Slow { wait }) => reply.wait = *wait,
            Some(Fault::Cut { after, times }) if *times > 0 => {
                *times -= 1;
                body.truncate(*after);
            }
            Some(Fault::Status { status, times }) if *times > 0 => {
                *times -= 1;
                return Reply::error(*status, "", "not now");
            }
            _ => {}
        }
        if let Some(start) = start {
            reply.status = 206;
            reply.headers.push(("Content-Range", format!("bytes {start}-{}/{size}", size - 1)));
        }
        Reply { body, length, ..reply }
    }
}

fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn address(listener: &TcpListener) -> String {
    format!("http://{}", listener.local_addr().unwrap())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}
