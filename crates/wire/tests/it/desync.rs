//! The desync cases that the crate `http_desync_guardian` carries, read from
//! where cargo keeps it; nothing of it is copied.

use std::fs;
use std::path::PathBuf;

use evenkeel_wire::http1::{Decoded, HeadLimits, RequestHead, decode_request};
use saphyr_parser::{Event, Parser};

/// Cases that version 0.1.3 carries; fewer means that they were not read.
const CASES: usize = 159;
/// Those of them that it calls ambiguous or severe.
const DOUBTFUL: usize = 116;

/// Doubtful cases that are accepted all the same, with the reason.
const ACCEPTED: &[(&str, &str)] = &[
    (
        "Get with a body and Content-Length",
        "a body is legal with any method (RFC 9110 §9.3.1), and its end is plain",
    ),
    (
        "Get with a body and Transfer-Encoding",
        "as above; the body is chunked for the server too",
    ),
    ("Head with a body and Content-Length", "as above"),
    ("Head with a body and Transfer-Encoding", "as above"),
    ("Has a CL in GET", "as above"),
    ("Has a TE in GET", "as above"),
];

/// Compliant cases that are refused all the same, with the reason.
const REFUSED: &[(&str, &str)] = &[
    (
        "Different Transfer-Encoding headers",
        "only `chunked` alone is taken (SPEC rule 3); the other codings are 501 or 400",
    ),
    ("Different Transfer-Encoding headers combined", "as above"),
    (
        "Transfer-Encoding with a param: chunked;custom_param",
        "as above; `chunked` has no parameters (RFC 9112 §7.1)",
    ),
    ("Correct TE OK", "as above"),
    ("Transfer-Encoding: identity and chunked OK", "as above"),
    (
        "Multiple transfer encoding headers in a single request OK",
        "as above",
    ),
    ("TE with custom parameters OK", "as above"),
    (
        "Compliant URL",
        "a target has no fragment (RFC 9112 §3.2), and servers cut it off or do not",
    ),
    (
        "International in URI",
        "bytes outside ASCII must be percent-encoded (RFC 3986 §2.1)",
    ),
    (
        "Empty URI",
        "a request target is at least one character (RFC 9112 §3.2)",
    ),
];

struct Case {
    file: String,
    name: String,
    tier: String,
    /// The request in bytes; twice, since a character from U+0080 to U+00FF may
    /// be meant as one byte or as UTF-8.
    requests: [Vec<u8>; 2],
}

#[test]
fn no_doubtful_request_is_accepted() {
    let cases = cases();
    assert!(cases.len() >= CASES, "only {} cases were read", cases.len());
    let mut doubtful = 0;
    let mut excused = Vec::new();
    let mut wrong = Vec::new();
    for case in &cases {
        let is_doubtful = match case.tier.as_str() {
            "Ambiguous" | "Severe" => true,
            "Compliant" | "Acceptable" => false,
            other => panic!("{}: unknown tier {other}", case.name),
        };
        doubtful += usize::from(is_doubtful);
        let accepted = case.requests.iter().any(|request| is_accepted(request));
        let listed = |list: &'static [(&str, &str)]| list.iter().find(|l| l.0 == case.name);
        match (is_doubtful, accepted) {
            (true, true) => match listed(ACCEPTED) {
                Some(listed) => excused.push(listed.0),
                None => wrong.push(format!("accepted: {}: {}", case.file, case.name)),
            },
            (false, false) if case.tier == "Compliant" => match listed(REFUSED) {
                Some(listed) => excused.push(listed.0),
                None => wrong.push(format!("refused: {}: {}", case.file, case.name)),
            },
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(doubtful >= DOUBTFUL, "only {doubtful} doubtful cases");
    for (name, _) in ACCEPTED.iter().chain(REFUSED) {
        assert!(excused.contains(name), "needs no exception: {name}");
    }
}

fn is_accepted(request: &[u8]) -> bool {
    let mut head = RequestHead::default();
    decode_request(request, &HeadLimits::REQUEST, &mut head) == Ok(Decoded::Complete(()))
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for entry in fs::read_dir(guardian().join("tests")).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            let file = path.file_name().unwrap().to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).unwrap();
            let Node::List(list) = read_yaml(&text) else {
                panic!("{file} is no list");
            };
            cases.extend(list.iter().map(|node| case_of(&file, node)));
        }
    }
    cases
}

/// Where cargo keeps the crate.
fn guardian() -> PathBuf {
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .other_options(["--offline".to_owned()])
        .exec()
        .unwrap();
    let package = metadata
        .packages
        .iter()
        .find(|package| package.name.as_str() == "http_desync_guardian")
        .expect("it is a dev-dependency");
    let manifest = package.manifest_path.as_std_path();
    manifest.parent().expect("a manifest is a file").to_owned()
}

/// Builds the request line and the fields from their parts. A `Host` is added
/// where the case has none, else that alone would have every case refused.
fn case_of(file: &str, node: &Node) -> Case {
    let mut text = format!("{} {}", node.text("method"), node.text("uri"));
    let version = node.text("version");
    if !version.is_empty() {
        text += &format!(" {version}");
    }
    text += "\r\n";
    let mut host = false;
    if let Some(Node::List(headers)) = node.get("headers") {
        for header in headers {
            let name = header.text("name");
            host |= name.eq_ignore_ascii_case("host");
            text += &format!("{name}: {}\r\n", header.text("value"));
        }
    }
    if !host {
        text += "Host: localhost\r\n";
    }
    text += "\r\n";
    let bytes = text
        .chars()
        .flat_map(|c| match u8::try_from(c) {
            Ok(byte) => vec![byte],
            Err(_) => c.to_string().into_bytes(),
        })
        .collect();
    Case {
        file: file.to_owned(),
        name: node.text("name"),
        tier: node.get("expected").expect("what is expected").text("tier"),
        requests: [bytes, text.into_bytes()],
    }
}

/// As much of YAML as the cases use.
enum Node {
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    fn get(&self, key: &str) -> Option<&Node> {
        match self {
            Node::Map(entries) => entries.iter().find(|e| e.0 == key).map(|e| &e.1),
            _ => None,
        }
    }

    #[track_caller]
    fn text(&self, key: &str) -> String {
        match self.get(key) {
            Some(Node::Text(text)) => text.clone(),
            _ => panic!("no text under {key}"),
        }
    }
}

fn read_yaml(text: &str) -> Node {
    let mut events = Parser::new_from_str(text).map(|event| event.unwrap().0);
    loop {
        match events.next().expect("a document") {
            Event::StreamStart | Event::DocumentStart(_) | Event::Nothing => {}
            event => return read_node(event, &mut events),
        }
    }
}

fn read_node<'a>(event: Event<'a>, events: &mut impl Iterator<Item = Event<'a>>) -> Node {
    match event {
        Event::Scalar(text, ..) => Node::Text(text.into_owned()),
        Event::SequenceStart(..) => {
            let mut list = Vec::new();
            loop {
                match events.next().expect("the end of the list") {
                    Event::SequenceEnd => return Node::List(list),
                    event => list.push(read_node(event, events)),
                }
            }
        }
        Event::MappingStart(..) => {
            let mut entries = Vec::new();
            loop {
                match events.next().expect("the end of the map") {
                    Event::MappingEnd => return Node::Map(entries),
                    Event::Scalar(key, ..) => {
                        let value = events.next().expect("a value");
                        entries.push((key.into_owned(), read_node(value, events)));
                    }
                    event => panic!("a key was expected, not {event:?}"),
                }
            }
        }
        event => panic!("unexpected {event:?}"),
    }
}
