//! `evenkeel server drain`: waits for the receipt, over an upgrade in place too.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use admin::Client;
use admin::client::{ClientError, segment};
use serde_json::Value;

use super::{Done, Failed, ask, number, path, text};
use crate::cli::Which;
use crate::exit;

/// For how long the process that goes on is asked again, and how often: the one before may take a word of it for a moment.
const ASKED_MAX: Duration = Duration::from_secs(5);
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// Another process goes on with the drain.
const ELSEWHERE: u16 = 307;

pub(super) async fn run(
    client: &Client,
    which: &Which,
    timeout: Option<&str>,
    force: bool,
) -> Result<Done, Failed> {
    let query = timeout.map_or_else(String::new, |timeout| {
        format!("&timeout={}", segment(timeout))
    });
    let request = format!("{}/drain?force={force}{query}", path(which));
    let (mut receipt, mut status) = match client.post(&request).await {
        // The process may have died amid an upgrade: the next one has the receipt.
        Err(ClientError::Ended(why)) => go_on(client, which).await.map_err(|_| {
            let server = &which.server;
            Failed::Refused(format!(
                "{why}; no receipt is to be had, `evenkeel status` says whether {server} drains"
            ))
        })?,
        answer => ask(answer?, &[200, ELSEWHERE])?,
    };
    while status == ELSEWHERE || receipt.get("handed_over").is_some() {
        let (newest, newer) = go_on(client, which).await.map_err(|failed| {
            Failed::Refused(format!(
                "an upgrade has put another process in place, which goes on with the drain of {} and its deadline; it \
                 gives no receipt: {}",
                which.server,
                failed.why(),
            ))
        })?;
        receipt = sum(&receipt, newest);
        status = newer;
    }
    let is_drained = receipt.get("left").is_none() && cut_count(&receipt) == 0;
    Ok(Done {
        text: format!("{}: {}\n", which.server, receipt_text(&receipt)),
        code: if !is_drained {
            ExitCode::from(exit::WRONG)
        } else {
            exit::WELL
        },
        json: receipt,
    })
}

/// Waits with the process that has taken over.
async fn go_on(client: &Client, which: &Which) -> Result<(Value, u16), Failed> {
    let request = format!("{}/drain/wait", path(which));
    let since = Instant::now();
    loop {
        let answer = client.post(&request).await.map_err(Failed::from);
        match answer.and_then(|answer| ask(answer, &[200, ELSEWHERE])) {
            Err(Failed::Refused(_)) if since.elapsed() < ASKED_MAX => {}
            settled => return settled,
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// One receipt of what two processes did. That of the later one is of both, unless the one before is of a version that
/// gave what it had until the upgrade (`handed_over`).
fn sum(before: &Value, mut receipt: Value) -> Value {
    let Some(object) = receipt.as_object_mut() else {
        return receipt;
    };
    if before.get("handed_over").is_none() {
        return receipt;
    }
    for key in ["new_picks", "affinity_picks", "finished"] {
        let own = object.get(key).and_then(Value::as_u64).unwrap_or(0);
        object.insert(key.to_owned(), (own + number(before, key)).into());
    }
    object.insert("partial".to_owned(), true.into());
    let cut = before.get("cut").and_then(Value::as_array).cloned();
    if let Some(own) = object.get_mut("cut").and_then(Value::as_array_mut) {
        own.splice(0..0, cut.unwrap_or_default());
    }
    receipt
}

/// A drain's receipt in words.
fn receipt_text(receipt: &Value) -> String {
    let cut: Vec<String> = receipt
        .get("cut")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|cut| format!("{} by {}", number(cut, "count"), text(cut, "reason")))
        .collect();
    let is = |key| receipt.get(key) == Some(&Value::Bool(true));
    let why = match is("ending") {
        true => "the process is ending",
        false => "another command ended that",
    };
    let began = match receipt.get("left").and_then(Value::as_u64) {
        Some(left) => format!("not drained: {why}, with {left} in use, after"),
        None => "drained in".to_owned(),
    };
    let before = match is("partial") {
        true => "; what the process before an upgrade had of it is not counted",
        false => "",
    };
    format!(
        "{began} {} ms; {} new picks, {} by affinity, {} finished, {} cut{}{before}",
        number(receipt, "took_ms"),
        number(receipt, "new_picks"),
        number(receipt, "affinity_picks"),
        number(receipt, "finished"),
        cut_count(receipt),
        if cut.is_empty() {
            String::new()
        } else {
            format!(" ({})", cut.join(", "))
        }
    )
}

fn cut_count(receipt: &Value) -> u64 {
    let cut = receipt.get("cut").and_then(Value::as_array);
    cut.into_iter()
        .flatten()
        .map(|cut| number(cut, "count"))
        .sum()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};

    use admin::Client;
    use serde_json::json;

    use super::{receipt_text, run, sum};
    use crate::cli::Which;
    use crate::remote::{Done, Failed};

    /// What a drain says whose process ends without a word, and whose next process answers this.
    async fn amid_an_end(status: &str, body: &str) -> Result<Done, Failed> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let answer = format!(
            "HTTP/1.1 {status}\r\nServer: evenkeel\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let processes = std::thread::spawn(move || {
            let asked = |stream: &TcpStream| {
                let mut line = String::new();
                BufReader::new(stream).read_line(&mut line).expect("a line");
                line
            };
            let (first, _) = listener.accept().expect("a client");
            assert!(asked(&first).starts_with("POST /api/v1/pools/p/servers/s/drain?"));
            drop(first);
            let (mut second, _) = listener.accept().expect("a client");
            assert!(asked(&second).starts_with("POST /api/v1/pools/p/servers/s/drain/wait "));
            second.write_all(answer.as_bytes()).expect("sent");
        });
        let client = Client { url, token: None };
        let which = Which {
            pool: "p".to_owned(),
            server: "s".to_owned(),
        };
        let done = run(&client, &which, None, false).await;
        processes.join().expect("it was asked as it should be");
        done
    }

    #[tokio::test]
    async fn a_process_that_dies_leaves_the_receipt_to_the_next() {
        let receipt = r#"{"new_picks":0,"affinity_picks":0,"finished":2,"cut":[],"took_ms":7}"#;
        let done = amid_an_end("200 OK", receipt).await;
        let text = done
            .map(|done| done.text)
            .map_err(|failed| failed.why().to_owned());
        let expected = "s: drained in 7 ms; 0 new picks, 0 by affinity, 2 finished, 0 cut\n";
        assert_eq!(text.as_deref(), Ok(expected));
    }

    #[tokio::test]
    async fn who_gets_no_receipt_is_told_where_to_look() {
        let failed = amid_an_end("404 Not Found", r#"{"error":"no drain"}"#).await;
        let why = failed.err().expect("no receipt").why().to_owned();
        let hint = "; no receipt is to be had, `evenkeel status` says whether s drains";
        assert!(why.ends_with(hint), "{why}");
    }

    #[test]
    fn a_receipt_in_words() {
        let receipt = json!({
            "new_picks": 0, "affinity_picks": 1, "finished": 12,
            "cut": [{ "reason": "deadline", "count": 2 }], "took_ms": 840
        });
        assert_eq!(
            receipt_text(&receipt),
            "drained in 840 ms; 0 new picks, 1 by affinity, 12 finished, 2 cut (2 by deadline)"
        );
        let clean =
            json!({ "new_picks": 0, "affinity_picks": 0, "finished": 1, "cut": [], "took_ms": 3 });
        assert_eq!(
            receipt_text(&clean),
            "drained in 3 ms; 0 new picks, 0 by affinity, 1 finished, 0 cut"
        );
        let mut ended = json!({
            "new_picks": 0, "affinity_picks": 0, "finished": 0, "cut": [], "left": 1, "took_ms": 3
        });
        let rest =
            "with 1 in use, after 3 ms; 0 new picks, 0 by affinity, 0 finished, 0 cut".to_owned();
        assert_eq!(
            receipt_text(&ended),
            format!("not drained: another command ended that, {rest}")
        );
        ended["ending"] = true.into();
        assert_eq!(
            receipt_text(&ended),
            format!("not drained: the process is ending, {rest}")
        );
    }

    #[test]
    fn receipts_of_both_processes_add_up() {
        let first = json!({
            "new_picks": 0, "affinity_picks": 3, "finished": 5, "cut": [], "handed_over": 2, "took_ms": 400
        });
        let second = json!({
            "new_picks": 0, "affinity_picks": 1, "finished": 1, "cut": [{ "reason": "deadline", "count": 1 }],
            "took_ms": 900
        });
        assert_eq!(
            receipt_text(&sum(&first, second.clone())),
            "drained in 900 ms; 0 new picks, 4 by affinity, 6 finished, 1 cut (1 by deadline); what the process before an \
             upgrade had of it is not counted"
        );
        let elsewhere = json!({ "error": "another process goes on" });
        assert_eq!(sum(&elsewhere, second.clone()), second);
    }
}
