//! The base model behind a server: a table that answers over HTTP, as each kind of server does.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, atomic::AtomicUsize},
    thread,
};

use hardn_endpoint::{EndpointError, EndpointOptions};
use serde_json::{Value, json};

use super::*;
use crate::{Fidelity, remote::RemoteBase};

/// As which server a table answers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Vllm,
    Sglang,
    LlamaCpp,
    /// Old: tokens by their text alone, no more than OpenAI's fields and five likely tokens.
    OpenAi,
}

/// How a server lies once it was probed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lie {
    Nothing,
    /// Another tokenizer from the start.
    Words,
    Above,
    Nan,
    Shorter,
    OtherTokens,
    NoEcho,
    Unknown,
}

struct TableServer {
    kind: Kind,
    lie: Lie,
    table: Table,
    n_asked: AtomicUsize,
}

impl TableServer {
    /// Listens until the process ends; answers each connection in a thread of its own.
    fn start(self) -> (String, Arc<Self>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Arc::new(self);
        let own = server.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = own.clone();
                thread::spawn(move || server.serve(stream));
            }
        });
        (url, server)
    }

    fn serve(&self, stream: TcpStream) -> Option<()> {
        stream.set_nodelay(true).ok()?;
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        loop {
            let (mut first, mut n_bytes) = (String::new(), 0);
            reader.read_line(&mut first).ok().filter(|n| *n > 0)?;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).ok()?;
                let line = line.trim().to_ascii_lowercase();
                if let Some(n) = line.strip_prefix("content-length:") {
                    n_bytes = n.trim().parse().ok()?;
                }
                if line.is_empty() {
                    break;
                }
            }
            let mut body = vec![0; n_bytes];
            reader.read_exact(&mut body).ok()?;
            let (status, answer) = if first.starts_with("GET") {
                (200, json!({"data": [{"id": "table", "max_model_len": 4096}]}))
            } else {
                self.answer(&serde_json::from_slice(&body).ok()?)
            };
            let mut text = answer.to_string();
            if self.lies(Lie::Nan) {
                text = text.replace("\"token_logprobs\":[", "\"token_logprobs\":[NaN,");
            }
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", text.len());
            (&stream).write_all(&[head.as_bytes(), text.as_bytes()].concat()).ok()?;
        }
    }

    /// Only after the two or three questions of the probe.
    fn lies(&self, lie: Lie) -> bool {
        self.lie == lie && (lie == Lie::Words || self.n_asked.load(Ordering::Relaxed) > 2)
    }

    fn answer(&self, body: &Value) -> (u16, Value) {
        self.n_asked.fetch_add(1, Ordering::Relaxed);
        let refused = |message: &str| (400, json!({"error": {"message": message}}));
        let echo = body["echo"] == true;
        let top = body["logprobs"].as_u64().unwrap() as usize;
        let limit = if self.kind == Kind::OpenAi { 5 } else { 20 };
        if self.kind == Kind::OpenAi && body.get("top_k").is_some() {
            return refused("unrecognized request argument: top_k");
        }
        if self.kind == Kind::LlamaCpp && echo {
            return (500, json!({"error": {"message": "Only no echo is supported"}}));
        }
        if top > limit {
            return refused("too many logprobs");
        }
        let prompt: Vec<u32> = serde_json::from_value(body["prompt"].clone()).unwrap();
        let u = body["seed"].as_f64().unwrap() / f64::from(1_u32 << 31);
        let logits = self.table.logits(&prompt);
        let mut drawn = draw(&distribution(&logits, &prompt, &Sampling::default()), u);
        if self.lies(Lie::Unknown) {
            drawn = 4000;
        }
        let echoed = echo && !self.lies(Lie::NoEcho);
        let mut tokens: Vec<(u32, Option<Vec<f32>>)> = Vec::new();
        if echoed {
            for (i, &id) in prompt.iter().enumerate() {
                tokens.push((id, (i > 0).then(|| self.table.logits(&prompt[..i]))));
            }
        }
        tokens.push((drawn, Some(logits)));
        if self.lies(Lie::Shorter) {
            tokens.remove(0);
            tokens.truncate(tokens.len().saturating_sub(1).max(2));
        }
        (
            200,
            json!({"choices": [self.choice(body, &prompt, &tokens, top)], "usage": {"prompt_tokens": prompt.len()}}),
        )
    }

    fn choice(
        &self,
        body: &Value,
        prompt: &[u32],
        tokens: &[(u32, Option<Vec<f32>>)],
        top: usize,
    ) -> Value {
        let bytes = |id: u32| TOKENS.get(id as usize).map_or(&b"?"[..], |bytes| bytes);
        let as_ids = self.kind == Kind::Vllm && body["return_tokens_as_token_ids"] == true;
        let name = |id: u32| {
            let id = if self.lies(Lie::OtherTokens) { (id + 1) % 6 } else { id };
            if as_ids {
                format!("token_id:{id}")
            } else if self.lies(Lie::Words) && bytes(id).len() > 1 {
                "word".to_owned()
            } else if self.kind == Kind::OpenAi && std::str::from_utf8(bytes(id)).is_err() {
                let parts = bytes(id).iter().map(|byte| format!("\\x{byte:02x}"));
                format!("bytes:{}", parts.collect::<String>())
            } else {
                String::from_utf8_lossy(bytes(id)).into_owned()
            }
        };
        let of = |logits: &[f32], id: u32| match logits.get(id as usize) {
            Some(_) => log_prob(logits, id) + if self.lies(Lie::Above) { 50.0 } else { 0.0 },
            None => -1.0,
        };
        let likeliest = |logits: &[f32]| {
            let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
            ids.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
            ids.truncate(top);
            ids
        };
        if self.kind == Kind::LlamaCpp {
            let entry = |logits: &[f32], id: u32| json!({"id": id, "token": name(id), "bytes": bytes(id), "logprob": of(logits, id)});
            let content = tokens.iter().map(|(id, logits)| {
                let logits = logits.as_deref().unwrap();
                let mut own = entry(logits, *id);
                own["top_logprobs"] =
                    likeliest(logits).into_iter().map(|id| entry(logits, id)).collect();
                own
            });
            return json!({"finish_reason": "length", "logprobs": {"content": content.collect::<Vec<_>>()}});
        }
        let log_probs = tokens.iter().map(|(id, logits)| Some(of(logits.as_deref()?, *id)));
        let tops = tokens.iter().map(|(id, logits)| {
            let logits = logits.as_deref()?;
            let entry = |id: u32| (name(id), json!(of(logits, id)));
            let own = (self.kind == Kind::Vllm).then(|| entry(*id));
            Some(
                own.into_iter()
                    .chain(likeliest(logits).into_iter().map(entry))
                    .collect::<serde_json::Map<_, _>>(),
            )
        });
        let mut choice = json!({
            "finish_reason": "length",
            "logprobs": {
                "tokens": tokens.iter().map(|(id, _)| name(*id)).collect::<Vec<_>>(),
                "token_logprobs": log_probs.collect::<Vec<_>>(),
                "top_logprobs": tops.collect::<Vec<_>>(),
            },
        });
        if body["return_token_ids"] == true {
            choice["prompt_token_ids"] = json!(prompt);
            choice["token_ids"] = json!([tokens[tokens.len() - 1].0]);
        }
        choice
    }
}

/// A server with a case's base model, and the case's view of it.
fn connect(case: &Case, kind: Kind, lie: Lie) -> Result<(RemoteBase, Arc<TableServer>)> {
    let base = &case.base;
    let table = Table::new(base.vocab_size, base.seed, base.like, base.window);
    let server = TableServer { kind, lie, table, n_asked: AtomicUsize::new(0) };
    let (url, server) = server.start();
    let options = EndpointOptions {
        retries: 1,
        retry_wait: std::time::Duration::from_millis(1),
        ..EndpointOptions::new(&url, "table")
    };
    let vocabulary = Arc::new(Bytes(TOKENS[..base.vocab_size].to_vec()));
    let remote =
        RemoteBase::connect_with(options, vocabulary, base.vocab_size, None, &[0, 2, 3, 1])?;
    Ok((remote, server))
}

impl Case {
    /// All samples with the base model behind a server.
    fn remote(
        &self,
        kind: Kind,
        lie: Lie,
        draft: DraftLength,
    ) -> Result<(Vec<Found>, Fidelity, Arc<TableServer>)> {
        let law = self.co_decoding.law(&self.sampling);
        let (mut remote, server) = connect(self, kind, lie)?;
        remote.prepare(&law)?;
        let found = self.engine_with(law, draft, 8, None, None, Some(&remote))?;
        Ok((found, remote.fidelity().clone(), server))
    }
}

/// A server whose draws depend on the seed alone gives, token for token, what the model at hand gives.
#[test]
fn a_server_changes_nothing() {
    let (mut n_exact, mut n_about) = (0, 0);
    for seed in 0..120 {
        let mut case = Case::random(seed);
        // Log-probabilities are not logits: a penalty on them is another one.
        case.sampling.repetition_penalty = 1.0;
        let warped = case.co_decoding.preset == Preset::CosecWarped && case.sampling.changes();
        // SGLang's names of likely tokens do not tell parts of characters apart.
        let kind = match seed % 3 {
            0 => Kind::LlamaCpp,
            1 if !warped => Kind::Sglang,
            _ => Kind::Vllm,
        };
        let mut chance = Chance::new(!seed);
        let draft = DraftLength::Fixed(1 + chance.below(8));
        let (found, fidelity, _) = case.remote(kind, Lie::Nothing, draft).unwrap();
        let exact = kind != Kind::LlamaCpp && !warped;
        assert_eq!(fidelity == Fidelity::Exact, exact, "case {seed}: {fidelity}");
        *(if exact { &mut n_exact } else { &mut n_about }) += 1;
        let expected = case.reference();
        assert_eq!(
            texts(found.clone()),
            texts(expected.clone()),
            "case {seed}, {kind:?}, {draft:?}"
        );
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(
                (&found.authors, found.finish),
                (&expected.authors, expected.finish),
                "case {seed}"
            );
            let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-5;
            assert!(found.log_probs.iter().zip(&expected.log_probs).all(near), "case {seed}");
        }
    }
    assert!(n_exact > 30 && n_about > 30, "{n_exact} exact, {n_about} not");
}

#[test]
fn frequencies_follow_the_law_through_a_server() {
    for (seed, preset) in [(60, Preset::CosecReleased), (61, Preset::CosecAlgorithm1)] {
        let case = law_case(0.4, preset, seed, 20_000);
        let (found, fidelity, server) =
            case.remote(Kind::Vllm, Lie::Nothing, DraftLength::Fixed(3)).unwrap();
        assert_eq!(fidelity, Fidelity::Exact);
        follows(&case, &found, |text| one_step(&case, text));
        // Three tokens in fewer than three requests on average: drafts save some.
        let n_asked = server.n_asked.load(Ordering::Relaxed);
        assert!(n_asked < 3 * found.len(), "{n_asked} requests for {} texts", found.len());
    }
}

/// The law by five of eight tokens: the others share what is left.
#[test]
fn an_approximation_follows_its_own_law() {
    let case = law_case(0.4, Preset::CosecAlgorithm1, 62, 20_000);
    let (found, fidelity, _) =
        case.remote(Kind::OpenAi, Lie::Nothing, DraftLength::Fixed(4)).unwrap();
    // It scores given tokens, so nothing is approximated.
    assert_eq!(fidelity, Fidelity::Exact);
    follows(&case, &found, |text| one_step(&case, text));
    let mut case = law_case(0.4, Preset::CosecReleased, 63, 20_000);
    case.co_decoding.warp_redraw = Some(true);
    let (found, fidelity, _) =
        case.remote(Kind::OpenAi, Lie::Nothing, DraftLength::Fixed(4)).unwrap();
    assert!(
        fidelity.to_string().starts_with("approximate: the base model is known by its 5"),
        "{fidelity}"
    );
    follows(&case, &found, |text| {
        let law = case.co_decoding.law(&case.sampling);
        let base = case.base.logits(text);
        let mut ids: Vec<u32> = (0..8).collect();
        ids.sort_by(|&a, &b| base[b as usize].total_cmp(&base[a as usize]));
        let (top, others) = ids.split_at(5);
        let left = others.iter().map(|&id| log_prob(&base, id).exp()).sum::<f64>();
        let mut known = vec![f32::NEG_INFINITY; 8];
        for &id in top {
            known[id as usize] = log_prob(&base, id) as f32;
        }
        let mut p = vec![0.0; 8];
        let mut rejected = 0.0;
        for (id, s) in distribution(&case.security.logits(text), text, &law.security) {
            let b = if top.contains(&id) { log_prob(&base, id).exp() } else { left / 3.0 };
            if 0.4 * s < b { p[id as usize] += s } else { rejected += s }
        }
        for (id, b) in distribution(&known, text, &law.redraw) {
            p[id as usize] += rejected * b;
        }
        p
    });
}

#[test]
fn servers_that_lie_are_found_out() {
    let case = law_case(0.5, Preset::CosecReleased, 64, 50);
    for (kind, lie, said) in [
        (Kind::Sglang, Lie::Words, "vocabulary"),
        (Kind::Vllm, Lie::Above, "above 0"),
        (Kind::Vllm, Lie::Nan, "not JSON"),
        (Kind::Vllm, Lie::Shorter, "tokens"),
        (Kind::Vllm, Lie::OtherTokens, "both"),
        (Kind::OpenAi, Lie::OtherTokens, "vocabulary"),
        (Kind::Vllm, Lie::NoEcho, "does not score given tokens"),
        (Kind::LlamaCpp, Lie::Unknown, "no token 4000"),
    ] {
        let error = case.remote(kind, lie, DraftLength::Fixed(2)).err();
        let message = error.map_or("no error".to_owned(), |error| error.to_string());
        assert!(message.contains(said), "{kind:?}, {lie:?}: {message}");
    }
}

#[test]
fn servers_that_are_gone_are_errors() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let vocabulary = Arc::new(Bytes(TOKENS.to_vec()));
    let options = EndpointOptions::new(&url, "table");
    let error = RemoteBase::connect_with(options, vocabulary, 12, None, &[0, 1]).err().unwrap();
    assert!(matches!(error, DecodeError::Endpoint(EndpointError::Unreachable { .. })), "{error}");
}
