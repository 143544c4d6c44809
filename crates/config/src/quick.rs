//! The config of someone who has no file yet.

/// The YAML that `evenkeel balance LISTEN SERVER…` runs and `--print-config` shows.
///
/// Every text is quoted where YAML or a variable could take it for something else, so that what is
/// wrong in it is found by [`load`](crate::load) like any other error.
pub fn quick(
    listen: &str,
    servers: &[String],
    tcp: bool,
    algorithm: Option<&str>,
    health_path: Option<&str>,
) -> String {
    let mut yaml = String::from("listeners:\n  main:\n");
    let mut line = |indent: usize, text: String| {
        yaml.push_str(&" ".repeat(indent));
        yaml.push_str(&text);
        yaml.push('\n');
    };
    line(4, format!("bind: {}", quoted(listen)));
    if tcp {
        line(4, "protocol: tcp".to_owned());
    }
    line(4, "pool: servers".to_owned());
    line(0, "pools:".to_owned());
    line(2, "servers:".to_owned());
    if let Some(algorithm) = algorithm {
        line(4, format!("balance: {}", plain_or_quoted(algorithm)));
    }
    if let Some(path) = health_path {
        line(4, format!("health_check: {{ path: {} }}", quoted(path)));
    }
    line(4, "servers:".to_owned());
    for server in servers {
        line(6, format!("- {}", plain_or_quoted(server)));
    }
    yaml
}

/// As it is if it is an ordinary word or address, else in quotes.
fn plain_or_quoted(text: &str) -> String {
    let ordinary =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/' | b':');
    let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    let ends = text.ends_with(|c: char| c.is_ascii_alphanumeric());
    if starts && ends && text.bytes().all(ordinary) {
        text.to_owned()
    } else {
        quoted(text)
    }
}

/// A double-quoted YAML scalar whose `${` stays as it is.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.replace("${", "$${").chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\U{:08X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
