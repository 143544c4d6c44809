//! Certificates in `evenkeel status`.

use serde_json::Value;

use super::number;
use crate::table::aligned;

/// Names that are shown of one certificate.
const NAMES_MAX: usize = 3;

/// All of them in aligned plain text; nothing where there are none.
pub(super) fn table(certificates: &Value) -> String {
    let rows = certificates.as_array().into_iter().flatten().map(row);
    let mut all = vec![
        ["CERTIFICATE", "FROM", "STATE", "UNTIL", "NEXT", "PROBLEM"]
            .map(str::to_owned)
            .to_vec(),
    ];
    all.extend(rows);
    match all.len() {
        1 => String::new(),
        _ => aligned(&all, 0),
    }
}

/// The text of a key; empty where there is none.
fn text<'a>(certificate: &'a Value, key: &str) -> &'a str {
    let found = certificate.get(key).and_then(Value::as_str);
    found.unwrap_or_default()
}

fn row(certificate: &Value) -> Vec<String> {
    let names = certificate.get("names").and_then(Value::as_array);
    let names: Vec<&str> = names
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut shown = names
        .iter()
        .take(NAMES_MAX)
        .copied()
        .collect::<Vec<_>>()
        .join(",");
    if names.len() > NAMES_MAX {
        shown.push_str(",…");
    }
    let or_dash = |key: &str| match text(certificate, key) {
        "" => "-".to_owned(),
        text => text.to_owned(),
    };
    let is_ordering = certificate.get("ordering").and_then(Value::as_bool) == Some(true);
    let problem = match (
        number(certificate, "failures"),
        text(certificate, "problem"),
    ) {
        (0, _) => String::new(),
        (1, problem) => problem.to_owned(),
        (count, problem) => format!("{problem} ({count} times)"),
    };
    vec![
        if shown.is_empty() {
            "-".to_owned()
        } else {
            shown
        },
        match text(certificate, "authority") {
            "" => text(certificate, "file").to_owned(),
            authority => authority.to_owned(),
        },
        text(certificate, "state").to_owned(),
        or_dash("not_after"),
        if is_ordering {
            "now".to_owned()
        } else {
            or_dash("next_order")
        },
        problem,
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_of_certificates() {
        assert_eq!(table(&json!([])), "");
        let certificates = json!([
            { "names": ["a.example"], "authority": "ca.example", "file": "s/a.pem", "state": "missing",
              "ordering": false, "failures": 2, "next_order": "2026-01-01T00:00:00.000Z",
              "problem": "dns: no such name" },
            { "names": ["b", "c", "d", "e"], "file": "b.pem", "state": "valid", "ordering": false, "failures": 0,
              "not_after": "2027-01-01T00:00:00.000Z" },
        ]);
        assert_eq!(
            table(&certificates),
            "\
CERTIFICATE  FROM        STATE    UNTIL                     NEXT                      PROBLEM
a.example    ca.example  missing  -                         2026-01-01T00:00:00.000Z  dns: no such name (2 times)
b,c,d,…      b.pem       valid    2027-01-01T00:00:00.000Z  -
"
        );
    }
}
