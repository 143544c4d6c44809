//! What must hold for every target and authority. A fuzz target of each calls these; a test of `evenkeel-rules`
//! includes this file and calls them with the corpus and with random bytes.

use evenkeel_rules::{host, path};
use wire::http1::Method;

/// Targets: no panic; a normal path stays as it is, begins with `/` and holds no dot segment.
pub(crate) fn target(data: &[u8]) {
    let mut scratch = Vec::new();
    let Ok(target) = path::normalise(Method::Get, data, &mut scratch) else {
        return;
    };
    let normal = target.path.to_vec();
    assert_eq!(normal.first(), Some(&b'/'));
    assert!(
        normal
            .split(|byte| *byte == b'/')
            .all(|segment| segment != b"." && segment != b"..")
    );
    let mut again = Vec::new();
    let second =
        path::normalise(Method::Get, &normal, &mut again).expect("what is normal is valid");
    assert_eq!(second.path, normal);
}

/// Authorities: no panic; a normal host stays as it is.
pub(crate) fn authority(data: &[u8]) {
    let mut scratch = Vec::new();
    let Ok(first) = host::normalise(data, &mut scratch) else {
        return;
    };
    let normal = first.host.to_vec();
    let mut again = Vec::new();
    assert_eq!(
        host::normalise(&normal, &mut again)
            .expect("what is normal is valid")
            .host,
        normal
    );
}
