//! `evenkeel server drain`: waits for the receipt, over an upgrade in place too.

use std::process::ExitCode;
use std::time::Duration;

use admin::Client;
use admin::client::segment;
use serde_json::Value;

use super::{Done, Failed, ask, number, path, text};
use crate::cli::Which;
use crate::exit;

/// How often the process that goes on is asked, and how long later: the one before may take a word of it for a moment.
const ASKED_MAX: u32 = 20;
const ASK_AGAIN: Duration = Duration::from_millis(250);

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
    let (mut receipt, _) = ask(client.post(&request).await?, &[200])?;
    let mut newest = receipt.clone();
    while newest.get("handed_over").is_some() {
        newest = go_on(client, which, &receipt).await?;
        receipt = sum(&receipt, newest.clone());
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
async fn go_on(client: &Client, which: &Which, so_far: &Value) -> Result<Value, Failed> {
    let request = format!("{}/drain/wait", path(which));
    let mut asked = 0;
    let why = loop {
        let answer = client.post(&request).await.map_err(Failed::from);
        match answer.and_then(|answer| ask(answer, &[200])) {
            Ok((receipt, _)) => return Ok(receipt),
            Err(Failed::Refused(_)) if asked < ASKED_MAX => asked += 1,
            Err(failed) => break failed,
        }
        tokio::time::sleep(ASK_AGAIN).await;
    };
    Err(Failed::Refused(format!(
        "an upgrade has put another process in place, which goes on with the drain of {} and its deadline; it cannot be \
         asked for the receipt: {}. Until then: {}",
        which.server,
        why.why(),
        receipt_text(so_far)
    )))
}

/// One receipt of what two processes did, the one before first.
fn sum(before: &Value, mut receipt: Value) -> Value {
    let Some(object) = receipt.as_object_mut() else {
        return receipt;
    };
    for key in ["new_picks", "affinity_picks", "finished", "handed_over"] {
        let own = object.get(key).and_then(Value::as_u64).unwrap_or(0);
        object.insert(key.to_owned(), (own + number(before, key)).into());
    }
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
    let began = match receipt.get("left").and_then(Value::as_u64) {
        Some(left) => format!("not drained: another command ended that, with {left} in use, after"),
        None => "drained in".to_owned(),
    };
    let before = match number(receipt, "handed_over") {
        0 => String::new(),
        left => format!("; {left} in use were left to the process before, which ends them"),
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
        let ended = json!({
            "new_picks": 0, "affinity_picks": 0, "finished": 0, "cut": [], "left": 1, "took_ms": 3
        });
        assert_eq!(
            receipt_text(&ended),
            "not drained: another command ended that, with 1 in use, after 3 ms; 0 new picks, 0 by affinity, \
             0 finished, 0 cut"
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
            receipt_text(&sum(&first, second)),
            "drained in 900 ms; 0 new picks, 4 by affinity, 6 finished, 1 cut (1 by deadline); 2 in use were left to the \
             process before, which ends them"
        );
    }
}
