//! The base model behind a server, from the command line: all tokens are equally likely to it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    thread,
};

use hardn_models::Tokenizer;
use serde_json::{Value, json};

use super::{fails, hardn, succeeds, workplace};

/// Serves a model of `n` tokens; `scores` says whether it scores given ones.
fn serve(n: u64, scores: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut first, mut n_bytes) = (String::new(), 0);
            reader.read_line(&mut first).unwrap();
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
                let lower = line.to_ascii_lowercase();
                if let Some(length) = lower.strip_prefix("content-length:") {
                    n_bytes = length.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; n_bytes];
            reader.read_exact(&mut body).unwrap();
            let (status, answer) = if first.starts_with("GET") {
                (200, json!({"data": [{"id": "uniform", "max_model_len": 512}]}))
            } else {
                answer(&serde_json::from_slice(&body).unwrap(), n, scores)
            };
            let text = answer.to_string();
            let head = "Content-Type: application/json\r\nConnection: close";
            let head =
                format!("HTTP/1.1 {status} X\r\n{head}\r\nContent-Length: {}\r\n\r\n", text.len());
            let _ = stream.write_all(format!("{head}{text}").as_bytes());
        }
    });
    url
}

fn answer(body: &Value, n: u64, scores: bool) -> (u16, Value) {
    let refused = |message: &str| (400, json!({"error": {"message": message}}));
    if body["model"] != "uniform" {
        return refused("no such model");
    }
    if body["echo"] == true && !scores {
        return refused("Only no echo is supported");
    }
    let prompt: Vec<u64> = serde_json::from_value(body["prompt"].clone()).unwrap();
    let mut ids = if body["echo"] == true { prompt.clone() } else { Vec::new() };
    // Not the tokens at the beginning, of which one ends texts.
    ids.push(100 + body["seed"].as_u64().unwrap() % (n - 100));
    let top: u64 = body["logprobs"].as_u64().unwrap().min(n);
    let log_prob = -(n as f64).ln();
    let likeliest: serde_json::Map<String, Value> =
        (0..top).map(|id| (format!("token_id:{id}"), json!(log_prob))).collect();
    let mut choice = json!({"finish_reason": "length", "token_ids": [ids[ids.len() - 1]], "logprobs": {
        "tokens": ids.iter().map(|id| format!("token_id:{id}")).collect::<Vec<_>>(),
        "token_logprobs": vec![log_prob; ids.len()], "top_logprobs": vec![likeliest; ids.len()],
    }});
    if body["echo"] == true {
        choice["prompt_token_ids"] = json!(prompt);
    }
    (200, json!({"choices": [choice], "usage": {"prompt_tokens": prompt.len()}}))
}

#[test]
fn answers_say_how_they_relate_to_the_law() {
    let place = workplace();
    let folder = place.path();
    let n = Tokenizer::load(&folder.join("model")).unwrap().vocab_size() as u64;
    let url = serve(n, true);
    let with = |url: &str, more: &[&str]| {
        let args = ["complete", "def f(a):\n", "--endpoint", url, "--endpoint-model", "uniform"];
        let models = ["--security-model", "model", "--decoder", "co-decoding", "-n", "2"];
        let sets = ["--set", "max_new_tokens=20", "--set", "threshold=.9"];
        let all = args.iter().chain(&models).chain(&sets).chain(more);
        all.map(|&arg| arg.to_owned()).collect::<Vec<String>>()
    };
    let rows = |url: &str, more: &[&str]| -> Vec<Value> {
        let args = with(url, &[&["--json"], more].concat());
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let text = succeeds(folder, &args);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let exact = rows(&url, &["--set", "draft=1"]);
    assert_eq!(exact.len(), 2);
    for row in &exact {
        assert_eq!(row["fidelity"], "exact in distribution");
        assert!(row["chosen_by"].as_array().unwrap().contains(&json!("base")), "{row}");
    }
    assert_eq!(rows(&url, &["--set", "draft=8"]), exact);
    let about = |url: &str, more: &[&str]| {
        let rows = rows(url, more);
        let fidelity = rows[0]["fidelity"].as_str().unwrap().to_owned();
        assert!(fidelity.starts_with("approximate: "), "{fidelity}");
    };
    about(&url, &["--set", "preset=cosec-warped"]);
    about(&serve(n, false), &[]);
    let shown = with(&url, &[]);
    let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
    let output = hardn(folder, &shown);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("exact in distribution"), "{said}");
}

#[test]
fn what_does_not_fit_is_said() {
    let place = workplace();
    let folder = place.path();
    let url = serve(320, true);
    let start = ["complete", "x", "--endpoint", &url, "--endpoint-model"];
    let run = |more: &[&str], said: &str| fails(folder, &[&start, more].concat(), 2, said);
    let rest = ["--security-model", "model", "--decoder", "co-decoding"];
    run(&[&["gone"], &rest[..]].concat(), "it serves uniform");
    run(&["uniform"], "--security-model");
    run(&[&["uniform", "--model", "model"], &rest[..]].concat(), "--model");
    run(&["uniform", "--security-model", "model"], "--decoder co-decoding");
    run(&[&["uniform", "--api-key-env", "HARDN_NO_KEY"], &rest[..]].concat(), "HARDN_NO_KEY");
    let form = ["--set", "constraint.regex=[a-z]+"];
    run(&[&["uniform"], &rest[..], &form].concat(), "behind a server");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let args = ["complete", "x", "--endpoint", &url, "--endpoint-model", "m"];
    fails(folder, &[&args, &rest[..]].concat(), 2, "is the server running");
    fails(folder, &["complete", "x"], 2, "give --model");
}
