//! What can be changed, by whom, and what is answered.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::Client;

const A: &str = "/api/v1/pools/api/servers/a";

#[tokio::test]
async fn a_server_takes_a_state_and_a_weight() {
    let fixture = Fixture::new(MAIN).await;
    for (body, state, weight, usable) in [
        (r#"{"state":"drain","weight":7}"#, "drain", 7, false),
        (r#"{"state":"ready"}"#, "ready", 7, true),
        (r#"{"weight":0}"#, "ready", 0, false),
        (
            r#"{"state":"disabled","weight":1000}"#,
            "disabled",
            1000,
            false,
        ),
    ] {
        let answer = fixture.write(&format!("PATCH {A}"), body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let server = answer.json();
        assert_eq!(
            (&server["state"], &server["weight"]),
            (&json!(state), &json!(weight)),
            "{body}"
        );
        assert_eq!(server["usable"], usable, "{body}");
        assert_eq!(fixture.get(A).await.json(), server);
        // A pool's view is built at most once in 10 ms.
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_change_is_said() {
    let fixture = Fixture::new(MAIN).await;
    for (body, expected) in [
        ("", "the body is not JSON: "),
        ("{", "the body is not JSON: "),
        ("[]", "the body is not an object such as "),
        ("{}", "nothing is to be changed"),
        (
            r#"{"sate":"drain"}"#,
            "unknown key `sate`: `state` and `weight` can be set, by `force` where need be",
        ),
        (
            r#"{"state":"down"}"#,
            r#"`state` is "ready", "drain" or "disabled", not "down""#,
        ),
        (
            r#"{"state":null}"#,
            r#"`state` is "ready", "drain" or "disabled", not null"#,
        ),
        (
            r#"{"weight":"3"}"#,
            r#"`weight` is a whole number from 0 to 1000, not "3""#,
        ),
        (
            r#"{"weight":1001}"#,
            "`weight` is a whole number from 0 to 1000, not 1001",
        ),
        (
            r#"{"weight":-1}"#,
            "`weight` is a whole number from 0 to 1000, not -1",
        ),
        (
            r#"{"weight":1.5}"#,
            "`weight` is a whole number from 0 to 1000, not 1.5",
        ),
    ] {
        let error = fixture.write(&format!("PATCH {A}"), body).await.error(400);
        assert!(error.starts_with(expected), "{body}: {error}");
    }
    let large = format!(r#"{{"weight": 3{}}}"#, " ".repeat(16 << 10));
    let error = fixture
        .write(&format!("PATCH {A}"), &large)
        .await
        .error(413);
    assert_eq!(error, "the body is larger than 16 KiB");
    assert_eq!(
        fixture.get(A).await.json()["weight"],
        2,
        "nothing was changed"
    );
    let error = fixture
        .write("PATCH /api/v1/pools/api/servers/x", r#"{"weight":1}"#)
        .await
        .error(404);
    assert_eq!(error, "no server `x` in pool `api`; servers: a, b<&\"c");
}

#[tokio::test]
async fn a_foreign_page_changes_nothing() {
    let fixture = Fixture::new(MAIN).await;
    let json = "content-type: application/json\r\n";
    for (rest, status) in [
        ("host: localhost\r\n".to_owned(), 415),
        (
            "host: localhost\r\ncontent-type: text/plain\r\n".to_owned(),
            415,
        ),
        (format!("host: evil.example\r\n{json}"), 403),
        (
            format!("host: localhost\r\norigin: http://evil.example\r\n{json}"),
            403,
        ),
        (
            format!("host: localhost\r\norigin: http://localhost:8080\r\n{json}"),
            403,
        ),
        (format!("host: localhost\r\n{json}"), 200),
    ] {
        let head = format!("PATCH {A} HTTP/1.1\r\ncontent-length: 12\r\n{rest}");
        assert_eq!(
            fixture.send(&head, r#"{"weight":9}"#).await.status,
            status,
            "{rest}"
        );
        let weight = if status == 200 { 9 } else { 2 };
        assert_eq!(fixture.get(A).await.json()["weight"], weight, "{rest}");
    }
}

#[tokio::test]
async fn a_drain_waits_and_gives_its_receipt() {
    let fixture = Fixture::new(MAIN).await;
    let member = fixture.hub.world().pools[0].view().standings[0]
        .member
        .clone();
    member.cell.acquire(None).unwrap();
    member.cell.acquire(None).unwrap();
    let ending = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        member.cell.release();
        member.cell.release();
    });
    let answer = fixture
        .write(&format!("POST {A}/drain?timeout=30s"), "")
        .await;
    ending.await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut receipt = answer.json();
    let took = receipt["took_ms"].take().as_u64().unwrap();
    assert!((30..5000).contains(&took), "{took}");
    assert_eq!(
        receipt,
        json!({"new_picks": 0, "affinity_picks": 0, "finished": 2, "cut": [], "took_ms": null})
    );
    for (query, expected) in [
        ("timeout=soon", "`soon` is not a time such as"),
        ("timeout=30", "`30` is not a time such as"),
        ("time=30s", "unknown parameter `time=30s`"),
    ] {
        let error = fixture
            .write(&format!("POST {A}/drain?{query}"), "{}")
            .await
            .error(400);
        assert!(error.starts_with(expected), "{query}: {error}");
    }
    let error = fixture
        .write(&format!("POST {A}/drain"), r#"{"timeout":"1s"}"#)
        .await
        .error(400);
    assert_eq!(error, "this takes no body but an empty one or `{}`");
}

#[tokio::test]
async fn a_drain_cuts_at_its_deadline_and_says_so() {
    let fixture = Fixture::new(MAIN).await;
    let member = fixture.hub.world().pools[0].view().standings[0]
        .member
        .clone();
    member.cell.acquire(None).unwrap();
    let receipt = fixture
        .write(&format!("POST {A}/drain?timeout=20ms"), "")
        .await
        .json();
    assert_eq!(receipt["cut"], json!([{"reason": "deadline", "count": 1}]));
}

#[tokio::test]
async fn a_reload_says_what_changed_or_what_is_wrong() {
    let fixture = Fixture::new(MAIN).await;
    fixture
        .file
        .lock()
        .unwrap()
        .push_str("  third: { servers: [\"10.0.2.1:80\"] }\n");
    let answer = fixture.write("POST /api/v1/reload", "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let changed = answer.json();
    assert_eq!(
        changed["summary"],
        "1 pool added, 1 server added; 0 of 0 connections affected"
    );
    assert_eq!(changed["changes"]["pools_added"], 1);
    assert_eq!(changed["changes"]["routes_removed"], 0);

    fixture
        .file
        .lock()
        .unwrap()
        .push_str("  fourth: { servers: [nowhere] }\nfifth: 1\n");
    let answer = fixture.write("POST /api/v1/reload", "").await;
    assert_eq!(answer.status, 422, "{answer:?}");
    assert_eq!(
        answer.json()["errors"].as_array().unwrap().len(),
        2,
        "{answer:?}"
    );
    let pools = fixture.get("/api/v1/pools").await.json();
    assert_eq!(pools.as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn the_client_speaks_to_it() {
    let fixture = Fixture::new(MAIN).await;
    let client = Client {
        url: format!("http://{}", fixture.address),
        token: None,
    };
    let (status, health) = client.get("/health").await.unwrap();
    assert_eq!((status, &health["status"]), (200, &json!("healthy")));
    assert_eq!(client.get("/livez").await.unwrap(), (200, json!("ok")));
    let (status, server) = client.patch(A, &json!({"weight": 5})).await.unwrap();
    assert_eq!((status, &server["weight"]), (200, &json!(5)));
    let name = crate::client::segment("b<&\"c");
    let (status, receipt) = client
        .post(&format!("/api/v1/pools/api/servers/{name}/drain"))
        .await
        .unwrap();
    assert_eq!((status, &receipt["finished"]), (200, &json!(0)));
    let (status, error) = client.get("/api/v1/pools/x/servers").await.unwrap();
    assert_eq!(
        (status, error),
        (404, json!({"error": "no pool `x`; pools: api, site"}))
    );
}

#[tokio::test]
async fn the_end_waits_for_what_is_being_answered_and_takes_no_more() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let slow = axum::Router::new().route(
        "/",
        axum::routing::get(|| async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            "done"
        }),
    );
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(crate::serve(listener, slow, async {
        let _ = ended.await;
        crate::Ending::Closed
    }));
    let client = Client {
        url: format!("http://{address}"),
        token: None,
    };
    let asking = tokio::spawn({
        let client = client.clone();
        async move { client.get("/").await }
    });
    tokio::time::sleep(Duration::from_millis(30)).await;
    end.send(()).unwrap();
    assert_eq!(asking.await.unwrap().unwrap(), (200, json!("done")));
    serving.await.unwrap();
    let error = client.get("/").await.unwrap_err().to_string();
    assert!(
        error.contains("connection refused; is evenkeel running?"),
        "{error}"
    );
}

/// Who is connected may be about to ask, having asked before or not, and so may who waits to be accepted.
#[tokio::test]
async fn the_end_leaves_nobody_unanswered_who_is_connected() {
    for ending in [crate::Ending::Closed, crate::Ending::HandedOver] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = axum::Router::new().route("/", axum::routing::get(|| async { "here" }));
        let (end, ended) = tokio::sync::oneshot::channel::<crate::Ending>();
        let serving = tokio::spawn(crate::serve(listener, router, async {
            ended.await.unwrap()
        }));
        let (mut fresh, mut used) = (Kept::connect(address).await, Kept::connect(address).await);
        // Accepted in turn: when the second is answered, the first is accepted.
        assert!(!used.get().await.contains("close"));
        let mut queued = Kept::connect(address).await;
        end.send(ending).unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        for kept in [&mut fresh, &mut used] {
            let answer = kept.get().await;
            assert!(answer.contains("connection: close"), "{ending:?}: {answer}");
            assert!(answer.ends_with("here"), "{ending:?}: {answer}");
        }
        if ending == crate::Ending::Closed {
            assert!(queued.get().await.ends_with("here"));
        }
        serving.await.unwrap();
    }
}

/// A connection that is kept.
struct Kept(tokio::net::TcpStream);

impl Kept {
    async fn connect(address: std::net::SocketAddr) -> Self {
        Self(tokio::net::TcpStream::connect(address).await.unwrap())
    }

    async fn get(&mut self) -> String {
        let request = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
        self.0.write_all(request).await.unwrap();
        let mut text = Vec::new();
        while !text.ends_with(b"here") {
            let count = self.0.read_buf(&mut text).await.unwrap();
            assert_ne!(
                count,
                0,
                "closed after {:?}",
                String::from_utf8_lossy(&text)
            );
        }
        String::from_utf8(text).unwrap()
    }
}

#[tokio::test]
async fn an_upgrade_is_asked_for_with_a_binary_and_a_bound() {
    let fixture = Fixture::new(MAIN).await;
    let done = fixture.write("POST /api/v1/upgrade", "").await;
    assert_eq!(done.status, 200, "{done:?}");
    assert_eq!(done.json(), json!({ "pid": 7, "version": "9" }));
    let path = "POST /api/v1/upgrade?binary=%2Fa%20b&timeout=5s";
    let refused = fixture.write(path, "").await;
    assert_eq!(refused.status, 422, "{refused:?}");
    assert_eq!(refused.json(), json!({ "errors": ["/a b: no"] }));
    for (query, why) in [
        ("timeout=soon", "soon"),
        ("binary=%2", "is not a percent-encoded text"),
        ("path=/x", "unknown parameter `path=/x`"),
    ] {
        let answer = fixture
            .write(&format!("POST /api/v1/upgrade?{query}"), "")
            .await;
        assert!(answer.error(400).contains(why), "{answer:?}");
    }
}

#[tokio::test]
async fn an_explanation_is_asked_for_with_a_request() {
    let fixture = Fixture::new(MAIN).await;
    let body = r#"{"request":"GET http://x/","headers":["a: b"],"from":"192.0.2.1"}"#;
    let answer = fixture.write("POST /api/v1/explain", body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        answer.json(),
        json!({ "generation": 1, "request": "GET http://x/", "headers": ["a: b"], "from": "192.0.2.1",
                "web": "127.0.0.1:8080" })
    );
    for (body, expected) in [
        ("", "the body is not JSON: "),
        ("[]", "the body is not an object such as "),
        ("{}", "`request` is missing"),
        (r#"{"request":7}"#, "`request` cannot be 7"),
        (r#"{"url":"x"}"#, "unknown key `url`"),
        (
            r#"{"request":"x","from":"y"}"#,
            "`from` is an IP address, not `y`",
        ),
        (
            r#"{"request":"x","headers":[1]}"#,
            "`headers` is a list of texts",
        ),
        (r#"{"request":"wrong"}"#, "is no request"),
    ] {
        let error = fixture.write("POST /api/v1/explain", body).await.error(400);
        assert!(error.starts_with(expected), "{body}: {error}");
    }
}

#[tokio::test]
async fn what_was_learnt_is_shown_and_forgotten() {
    const SITE: &str = "/api/v1/pools/site/affinity";
    let fixture = Fixture::new(MAIN).await;
    let view = fixture.hub.world().pool("site").unwrap().1.view();
    let learnt = view.learnt.as_ref().unwrap();
    let client = |last: u8| learnt.learnt().source_key([192, 0, 2, last].into());
    for (last, server) in [(1, 0), (2, 0), (3, 1)] {
        let member = &view.standings[server].member;
        learnt.bind(client(last), member, Duration::ZERO);
    }
    let shown = fixture.get(SITE).await.json();
    assert_eq!(
        (&shown["kind"], &shown["entries"]),
        (&json!("source"), &json!(3))
    );
    assert_eq!(shown["bindings"].as_array().unwrap().len(), 3);
    let one = fixture.get(&format!("{SITE}?value=192.0.2.3")).await.json();
    assert_eq!(one["bindings"][0]["server"], "unix:/run/site.sock");
    let path = format!("POST {SITE}/forget");
    for (body, expected) in [
        ("", "the body is not JSON: "),
        ("{}", "one thing is to be forgotten, such as "),
        (
            r#"{"all":true,"server":"a"}"#,
            "one thing is to be forgotten",
        ),
        (r#"{"all":false}"#, "`all` cannot be false: "),
        (
            r#"{"sever":"a"}"#,
            "unknown key `sever`: `all`, `server`, `key` or `value`",
        ),
        (r#"{"key":"x"}"#, "`x` is not a key as lists show it"),
    ] {
        let error = fixture.write(&path, body).await.error(400);
        assert!(error.starts_with(expected), "{body}: {error}");
    }
    for (body, count) in [
        (r#"{"value":"192.0.2.1"}"#, 1),
        (r#"{"value":"192.0.2.1"}"#, 0),
        (r#"{"server":"10.0.1.1:80"}"#, 1),
        (r#"{"all":true}"#, 1),
    ] {
        let answer = fixture.write(&path, body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["forgotten"], count, "{body}");
    }
    let error = fixture.write(&path, r#"{"value":"me"}"#).await.error(404);
    assert!(error.contains("`me` is not an IP address"), "{error}");
    let wrong = fixture.get(&format!("{SITE}?limit=x")).await.error(400);
    assert!(wrong.contains("a whole number"), "{wrong}");
    let none = fixture.get("/api/v1/pools/api/affinity").await.error(404);
    assert!(none.contains("learns nothing"), "{none}");
    // A page of another site cannot ask for it.
    let plain = format!("{path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n");
    assert_eq!(fixture.send(&plain, "{}").await.status, 415);
}
