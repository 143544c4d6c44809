//! `evenkeel server drain`: waits for the receipt, over an upgrade in place too.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use admin::Client;
use admin::client::segment;
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
    let (mut receipt, mut status) = ask(client.post(&request).await?, &[200, ELSEWHERE])?;
    while status == ELSEWHERE || receipt.get("handed_over").is_some() {
        let (newest, newer) = go_on(client, which).await?;
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
    let why = loop {
        let answer = client.post(&request).await.map_err(Failed::from);
        match answer.and_then(|answer| ask(answer, &[200, ELSEWHERE])) {
            Ok(answer) => return Ok(answer),
            Err(Failed::Refused(_)) if since.elapsed() < ASKED_MAX => {}
            Err(failed) => break failed,
        }
        tokio::time::sleep(ASK_AGAIN).await;
    };
    Err(Failed::Refused(format!(
        "an upgrade has put another process in place, which goes on with the drain of {} and its deadline; it gives no \
         receipt: {}",
        which.server,
        why.why(),
    )))
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
    use serde_json::json;

    use super::{receipt_text, sum};

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
