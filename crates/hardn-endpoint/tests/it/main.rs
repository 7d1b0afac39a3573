//! Servers that misbehave: each is an error that says what, soon.

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use hardn_endpoint::{Abilities, Endpoint, EndpointError, EndpointOptions, Token};

const MODELS: &str = r#"{"data": [{"id": "base", "max_model_len": 2048}, {"id": "other"}]}"#;
const ANSWER: &str = r#"{"choices": [{"text": "x", "finish_reason": "length", "token_ids": [3],
    "logprobs": {"tokens": ["x"], "token_logprobs": [-0.5], "top_logprobs": [{"x": -0.5}]}}]}"#;

/// What a server does with a connection that asks for a completion.
#[derive(Clone, Copy)]
enum Act {
    /// Status, further header lines, body.
    Say(u16, &'static str, &'static str),
    /// Promises more bytes than it sends.
    Half,
    /// Says nothing.
    Wait,
}

struct Server {
    url: String,
    n_asked: Arc<AtomicUsize>,
    seen: Arc<Mutex<String>>,
}

/// Does what the list says, one act a request; the last one stays.
fn serve(acts: &'static [Act]) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let (n_asked, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(String::new())));
    let server = Server { url, n_asked: n_asked.clone(), seen: seen.clone() };
    thread::spawn(move || {
        let mut waiting = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
            // A head, and a body that ends with its object.
            while let Ok(n) = stream.read(&mut part) {
                bytes.extend_from_slice(&part[..n]);
                let is_whole = bytes.ends_with(b"}") || bytes.starts_with(b"GET");
                if n == 0 || (bytes.windows(4).any(|part| part == b"\r\n\r\n") && is_whole) {
                    break;
                }
            }
            let request = String::from_utf8_lossy(&bytes).into_owned();
            let is_list = request.starts_with("GET");
            seen.lock().unwrap().push_str(&request);
            let act = if is_list {
                Act::Say(200, "", MODELS)
            } else {
                acts[n_asked.fetch_add(1, Ordering::SeqCst).min(acts.len() - 1)]
            };
            let (status, headers, body, length) = match act {
                Act::Say(status, headers, body) => (status, headers, body, body.len()),
                Act::Half => (200, "", &ANSWER[..40], ANSWER.len()),
                Act::Wait => {
                    waiting.push(stream);
                    continue;
                }
            };
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n"
            );
            let _ = stream.write_all(&[head.as_bytes(), body.as_bytes()].concat());
        }
    });
    server
}

fn options(url: &str) -> EndpointOptions {
    EndpointOptions {
        key: Token::new("sk-very-secret"),
        timeout: Duration::from_millis(800),
        retries: 2,
        retry_wait: Duration::from_millis(5),
        ..EndpointOptions::new(url, "base")
    }
}

fn connect(url: &str) -> Result<Abilities, EndpointError> {
    Endpoint::connect(options(url), &[1, 2]).map(|(_, abilities)| abilities)
}

#[track_caller]
fn fails(acts: &'static [Act], n_asked: usize, said: &str, help: &str) {
    let server = serve(acts);
    let start = Instant::now();
    let error = connect(&server.url).unwrap_err();
    let text = format!("{error} ({error:?})");
    assert!(error.to_string().contains(said), "{text}; expected {said}");
    assert!(error.help().unwrap_or_default().contains(help), "{:?}", error.help());
    assert!(!text.contains("sk-very-secret"), "{text}");
    assert_eq!(server.n_asked.load(Ordering::SeqCst), n_asked, "{text}");
    assert!(start.elapsed() < Duration::from_secs(20), "{text}");
    assert!(server.seen.lock().unwrap().contains("Bearer sk-very-secret"));
}

#[test]
fn what_is_wrong_is_said() {
    const HTML: &str = "<html><body>Welcome</body></html>";
    const LONG: &str = "Retry-After: 0\r\n";
    const KEY: &str =
        r#"{"error": {"message": "Incorrect API key: sk-very-secret\nsee the docs"}}"#;
    const UNKNOWN: &str = r#"{"object": "error", "message": "The model `base` does not exist."}"#;
    const TEXT: &str = r#"{"error": "prompt must be a string"}"#;
    fails(&[Act::Say(200, "Content-Type: text/html\r\n", HTML)], 1, "text/html", "OpenAI");
    fails(&[Act::Say(500, "", "")], 3, "answered 500", "try again later");
    fails(&[Act::Say(429, LONG, "{}")], 3, "answered 429", "overloaded");
    fails(&[Act::Say(302, "Location: http://elsewhere/\r\n", "")], 1, "302", "redirects");
    fails(&[Act::Say(401, "", KEY)], 1, "Incorrect API key: ... see", "--api-key-env");
    fails(&[Act::Say(404, "", UNKNOWN)], 1, "does not exist", "v1");
    fails(&[Act::Say(400, "", TEXT)], 2, "takes no token ids as a prompt: prompt must be", "vLLM");
    fails(&[Act::Say(200, "", r#"{"choices": []}"#)], 1, "no `choices`", "base model");
    fails(&[Act::Half], 3, "broke off", "try again");
    fails(&[Act::Wait], 1, "in time", "--endpoint-timeout");
    let server = serve(&[Act::Say(404, "", UNKNOWN)]);
    let other = EndpointOptions { model: "gone".to_owned(), ..options(&server.url) };
    let error = Endpoint::connect(other, &[1, 2]).map(|_| ()).unwrap_err();
    assert!(matches!(error, EndpointError::NoModel { .. }), "{error}");
    assert_eq!(error.help().unwrap(), "it serves base, other");
}

#[test]
fn no_server_is_said_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = connect(&url).unwrap_err();
    assert!(matches!(error, EndpointError::Unreachable { .. }), "{error}");
    for (url, said) in [("localhost:8000", "http://"), ("http://a@b/v1", "user"), ("", "read")] {
        let message = connect(url).unwrap_err().to_string();
        assert!(message.contains(said), "{message}");
    }
}

#[test]
fn what_passes_is_waited_out() {
    static ACTS: [Act; 5] = [
        Act::Say(503, "", "{}"),
        Act::Half,
        Act::Say(200, "", ANSWER),
        Act::Say(500, "", r#"{"error": {"message": "Only no echo is supported"}}"#),
        Act::Say(200, "", ANSWER),
    ];
    let server = serve(&ACTS);
    let abilities = connect(&server.url).unwrap();
    // A refused echo is no failure, and is not asked for twice.
    assert!(!abilities.scores());
    assert_eq!((abilities.longest_text, server.n_asked.load(Ordering::SeqCst)), (Some(2048), 4));
}
