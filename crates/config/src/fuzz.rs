//! What a fuzzer calls; a stable test runs it over a corpus. No part of the interface.

use crate::{Severity, Source, client_certificate, load, ocsp};

/// A config of one file, with one variable set and no other name known.
struct OneFile<'a>(&'a str);

impl Source for OneFile<'_> {
    fn read(&self, path: &str) -> Result<String, String> {
        if path == "main.yaml" {
            Ok(self.0.to_owned())
        } else {
            Err("no such file".to_owned())
        }
    }

    fn glob(&self, _: &str) -> Result<Vec<String>, String> {
        Ok(vec!["main.yaml".to_owned()])
    }

    fn env(&self, name: &str) -> Option<String> {
        (name == "A").then(|| "1".to_owned())
    }

    fn resolves(&self, _: &str) -> Option<bool> {
        Some(false)
    }
}

/// Loads any bytes; bytes that are no UTF-8 are replaced.
///
/// # Panics
/// When a finding has no place inside its file, or a snapshot comes with an error or not without.
pub fn load_any(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let loaded = load("main.yaml", &OneFile(&text));
    let lines = text.split_inclusive(['\n', '\r']).count().max(1);
    for diagnostic in &loaded.diagnostics {
        let (line, column) = (
            diagnostic.place.line as usize,
            diagnostic.place.column as usize,
        );
        let width = diagnostic.source_line.chars().count().max(1);
        let end = column + diagnostic.span.length as usize - 1;
        assert!(
            (1..=lines).contains(&line),
            "a line inside the file: {diagnostic}"
        );
        assert!(
            column >= 1 && end <= width,
            "columns inside the line: {diagnostic}"
        );
        assert!(
            diagnostic.render(true).contains(diagnostic.kind.as_str()),
            "its kind is shown"
        );
    }
    let wrong = loaded.count(Severity::Error) > 0;
    assert_eq!(
        loaded.snapshot.is_none(),
        wrong,
        "a snapshot if and only if nothing is wrong"
    );
}

/// Reads any bytes as an authority's answer (OCSP), and as a certificate that a client showed.
///
/// # Panics
/// When what is told of a certificate could not stand in a header.
pub fn read_der(bytes: &[u8]) {
    // A byte of the input as the serial number that is looked for.
    let _ = ocsp::read(bytes, bytes.get(..1).unwrap_or_default());
    let told = client_certificate(bytes, &[0; 32]);
    for text in [&told.subject, &told.issuer, &told.serial, &told.san] {
        let is_plain = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
        assert!(text.bytes().all(is_plain), "fit for a header: {text:?}");
        assert!(!text.ends_with(' '), "no blank at its end: {text:?}");
    }
}
