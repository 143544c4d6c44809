//! URLs, names and what is said when nobody answers; exchanges with the router are in `crate::tests`.

use super::*;

fn client(url: &str) -> Client {
    Client {
        url: url.to_owned(),
        token: None,
    }
}

#[test]
fn a_url_that_cannot_be_used_says_what_would_be_right() {
    for (url, expected) in [
        ("http://127.0.0.1:9900", Ok("127.0.0.1:9900")),
        ("http://127.0.0.1:9900/", Ok("127.0.0.1:9900")),
        ("http://[::1]:9900", Ok("[::1]:9900")),
        ("http://lb.internal", Ok("lb.internal:80")),
        ("https://lb.internal", Err("is not an http:// URL")),
        ("127.0.0.1:9900", Err("is not a URL")),
        ("lb", Err("is not a URL")),
        ("", Err("is not a URL")),
        ("http://lb:9900/api", Err("goes on after its port")),
        ("http://me:pass@lb:9900", Err("holds a user")),
        ("http://lb:", Err("has no port from")),
        ("http://[::1]:99999", Err("has no port from")),
    ] {
        let found = client(url).authority();
        match (&found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{url}"),
            (Err(ClientError::Wrong(found)), Err(expected)) => {
                assert!(
                    found.contains(expected) && found.contains("such as"),
                    "{url}: {found}"
                );
            }
            _ => panic!("{url}: {found:?} where {expected:?} was expected"),
        }
    }
}

#[tokio::test]
async fn nobody_there_is_said_so() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let error = client(&url).get("/health").await.unwrap_err();
    let expected = format!("nothing answers at {url}: connection refused; is evenkeel running?");
    assert_eq!(error, ClientError::NoAnswer(expected));
}

#[test]
fn a_name_is_one_segment() {
    assert_eq!(segment("10.0.0.1:80"), "10.0.0.1:80");
    assert_eq!(segment("unix:/run/a b"), "unix:%2Frun%2Fa%20b");
    assert_eq!(segment("ü?#%"), "%C3%BC%3F%23%25");
}
