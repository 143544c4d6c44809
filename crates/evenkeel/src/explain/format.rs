//! An explanation in plain text.

use super::{Answered, Explained, Refused, Rejected, Share};
use crate::table::aligned;

/// Several lines, each ended.
pub(super) fn text(explained: &Explained) -> String {
    let mut out = String::new();
    let mut line = |name: &str, text: String| {
        out.push_str(format!("{name:<9} {text}").trim_end());
        out.push('\n');
    };
    line(
        "request",
        format!("{} from {}", explained.request, explained.source),
    );
    let note = explained.note.as_deref();
    line(
        "listener",
        format!(
            "{} on {}{}",
            explained.listener,
            explained.binds.join(", "),
            note.map_or_else(String::new, |note| format!("  ({note})"))
        ),
    );
    if let Some(route) = &explained.route {
        line("route", route.clone());
    }
    out.push_str(&rejected(&explained.rejected));
    if !explained.filters.is_empty() {
        out.push_str("filters\n");
        let effect =
            |effect: &super::Effect| vec![effect.filter.to_string(), effect.effect.clone()];
        let rows: Vec<_> = explained.filters.iter().map(effect).collect();
        out.push_str(&aligned(&rows, 2));
    }
    if let Some(refused) = &explained.refused {
        out.push_str(&refusal(refused));
    }
    if let Some(answered) = &explained.answer {
        out.push_str(&answer(answered));
    }
    if let Some(arm) = &explained.arm {
        out.push_str(&format!("arm       {arm}\n"));
    }
    for share in &explained.pools {
        out.push_str(&pool(share));
    }
    out
}

fn rejected(rejected: &[Rejected]) -> String {
    let rows: Vec<_> = rejected
        .iter()
        .map(|it| vec![format!("not {}", it.route), it.why.clone()])
        .collect();
    aligned(&rows, 2)
}

fn refusal(refused: &Refused) -> String {
    format!(
        "answered  {} {}: {}\n",
        refused.status, refused.reason, refused.why
    )
}

fn answer(answer: &Answered) -> String {
    let mut out = format!("answered  {} by the last filter\n", answer.status);
    let mut rows: Vec<_> = answer
        .headers
        .iter()
        .map(|(name, value)| vec![format!("{name}:"), value.clone()])
        .collect();
    if !answer.body.is_empty() {
        rows.push(vec!["body".to_owned(), format!("{:?}", answer.body)]);
    }
    out.push_str(&aligned(&rows, 2));
    out
}

fn pool(share: &Share) -> String {
    let pick = &share.pick;
    let percent = if share.share < 100.0 {
        format!(", {} % of the route", share.share)
    } else {
        String::new()
    };
    let key = pick
        .key
        .as_ref()
        .map_or_else(String::new, |key| format!(", {key}"));
    let labels = pick
        .labels
        .as_ref()
        .map_or_else(String::new, |labels| format!(", {labels}"));
    let mut out = format!(
        "pool      {} ({}{key}{labels}){percent}\n",
        pick.pool, pick.balance
    );
    if let Some(bind) = &pick.affinity {
        out.push_str(&format!(
            "affinity  {}: {}  ({})\n",
            bind.by, bind.read, bind.why
        ));
    }
    out.push_str(&match &pick.server {
        Some(server) => format!("server    {server}  ({})\n", pick.note),
        None => {
            let instead = pick.instead.as_deref().unwrap_or("503 no_usable_server");
            format!("server    none: {instead}\n")
        }
    });
    out.push_str(&format!("retries   {}\n", pick.retries));
    let others: Vec<_> = pick
        .servers
        .iter()
        .filter(|server| Some(&server.name) != pick.server.as_ref())
        .map(|server| {
            let address = if server.address == server.name {
                String::new()
            } else {
                server.address.clone()
            };
            vec![format!("not {}", server.name), address, server.why.clone()]
        })
        .collect();
    out.push_str(&aligned(&others, 2));
    out
}
