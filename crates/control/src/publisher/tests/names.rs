//! Servers that are DNS names.

use super::*;

const SITE: &str = "servers: [{ name: api, address: 'api.internal:80' }]";

fn hour() -> Duration {
    Duration::from_secs(3600)
}

#[test]
fn a_name_is_asked_at_once_and_again_at_its_ttl() {
    let mut scene = Scene::start(&site(SITE));
    let since = scene.now;
    assert_eq!(scene.asked.len(), 1);
    assert!(scene.usable().is_empty());
    scene.resolve(
        "api.internal",
        Ok((addresses(&["10.0.1.1"]), Duration::from_secs(30))),
    );
    scene.pass(10);
    assert_eq!(scene.usable(), ["api"], "unknown, and nobody else is there");
    scene.pass(29_890);
    assert_eq!(scene.asked.len(), 1);
    scene.pass(200);
    assert_eq!(scene.asked.len(), 2);
    assert_eq!(scene.asked[1].0 - since, Duration::from_secs(30));
    scene.pass(600_000);
    assert_eq!(scene.asked.len(), 2, "one look-up is out at a time");
}

#[test]
fn a_ttl_of_nothing_does_not_mean_without_pause() {
    let mut scene = Scene::start(&site(SITE));
    for _ in 0..5 {
        scene.resolve(
            "api.internal",
            Ok((addresses(&["10.0.1.1"]), Duration::ZERO)),
        );
        scene.pass(1000);
    }
    assert_eq!(scene.asked.len(), 6);
}

#[test]
fn a_failed_look_up_keeps_the_last_answer_and_is_tried_again() {
    let mut scene = Scene::start(&site(SITE));
    scene.resolve(
        "api.internal",
        Ok((addresses(&["10.0.1.1"]), Duration::from_secs(30))),
    );
    scene.pass(30_000);
    let member = scene.member("api");
    scene.resolve("api.internal", Err("timed out"));
    assert!(Arc::ptr_eq(&member, &scene.member("api")));
    assert_eq!(scene.usable(), ["api"]);
    assert!(
        scene
            .log
            .contains(&"api.internal not resolved: timed out".to_owned())
    );
    scene.pass(5000);
    assert_eq!(scene.asked.len(), 3);
    // An answer without any address is no better.
    scene.resolve("api.internal", Ok((Vec::new(), hour())));
    assert_eq!(scene.usable(), ["api"]);
}

#[test]
fn addresses_come_and_go_and_those_that_stay_keep_their_health() {
    let mut scene = Scene::start(&site(SITE));
    scene.resolve(
        "api.internal",
        Ok((addresses(&["10.0.1.1", "10.0.1.2"]), hour())),
    );
    scene.pass(1000);
    let (one, two) = (
        scene.member("api@10.0.1.1:80"),
        scene.member("api@10.0.1.2:80"),
    );
    scene.fate("api@10.0.1.3:80", None);
    scene.resolve(
        "api.internal",
        Ok((addresses(&["10.0.1.3", "10.0.1.2"]), hour())),
    );
    scene.pass(1000);
    assert!(one.is_retired());
    assert!(Arc::ptr_eq(&two, &scene.member("api@10.0.1.2:80")));
    assert_eq!(
        scene.usable(),
        ["api@10.0.1.2:80"],
        "the new one has not passed a probe"
    );
}

#[test]
fn an_address_that_gets_company_stays_the_same_server() {
    let mut scene = Scene::start(&site(SITE));
    scene.resolve("api.internal", Ok((addresses(&["10.0.1.1"]), hour())));
    scene.pass(1000);
    let one = scene.member("api");
    let fresh = Some(Outcome::Success);
    scene.fates.insert("api@10.0.1.2:80".to_owned(), fresh);
    scene.resolve(
        "api.internal",
        Ok((addresses(&["10.0.1.1", "10.0.1.2"]), hour())),
    );
    assert!(!one.is_retired());
    assert_eq!(
        scene.usable().len(),
        1,
        "the new one has not passed a probe"
    );
    scene.pass(1000);
    assert_eq!(scene.usable().len(), 2);
    scene.resolve("api.internal", Ok((addresses(&["10.0.1.1"]), hour())));
    scene.pass(10);
    assert!(!one.is_retired());
    assert_eq!(scene.usable(), ["api"]);
}

#[test]
fn an_operators_word_holds_for_addresses_that_come_later() {
    let mut scene = Scene::start(&site(&SITE.replace("}]", "}, '10.0.0.2:80']")));
    scene.resolve("api.internal", Ok((addresses(&["10.0.1.1"]), hour())));
    scene.pass(1000);
    scene.set("api", State::Disabled, 9);
    scene.resolve("api.internal", Ok((addresses(&["10.0.1.7"]), hour())));
    scene.pass(1000);
    assert_eq!(scene.usable(), ["10.0.0.2:80"]);
    assert_eq!(scene.member("api").cell.state(), State::Disabled);
    assert_eq!(scene.weight("api"), 9);
}

#[test]
fn a_reload_keeps_the_answers_of_names_that_stay() {
    let mut scene = Scene::start(&site(SITE));
    scene.resolve("api.internal", Ok((addresses(&["10.0.1.1"]), hour())));
    scene.pass(1000);
    let one = scene.member("api");
    scene.reload(&site(&SITE.replace("servers", "retries: off, servers")));
    assert!(Arc::ptr_eq(&one, &scene.member("api")));
    assert_eq!(scene.asked.len(), 1);
    scene.reload(&site(&SITE.replace("}]", "}, 'other.internal:80']")));
    assert_eq!(&*scene.asked[1].1, "other.internal");
    assert_eq!(scene.usable(), ["api"]);
}

/// What clients carry that is bound to the server at this address.
fn carried(scene: &Scene, address: &str) -> Arc<[u8]> {
    let view = scene.view();
    let mut servers = view.bound.as_ref().unwrap().servers().iter();
    let found = servers.find(|it| it.member.endpoint.to_string() == address);
    found.unwrap().text.clone()
}

/// Where a client goes that carries this.
fn meant(scene: &Scene, text: &[u8]) -> Option<String> {
    let view = scene.view();
    let server = view.bound.as_ref().unwrap().of_text(text)?;
    Some(server.member.endpoint.to_string())
}

#[test]
fn who_is_bound_to_an_address_stays_there_when_its_name_gets_another() {
    let one = || Ok((addresses(&["10.0.1.1"]), hour()));
    let two = || Ok((addresses(&["10.0.1.1", "10.0.1.2"]), hour()));
    for kind in [
        "cookie",
        "{ cookie: { value: name } }",
        "{ header: X-Server }",
    ] {
        let config = site(&SITE.replace("servers", &format!("affinity: {kind}, servers")));
        let mut scene = Scene::start(&config);
        scene.resolve("api.internal", one());
        scene.pass(1000);
        let text = carried(&scene, "10.0.1.1:80");
        let mut other = Scene::start(&config);
        other.resolve("api.internal", two());
        other.pass(1000);
        // Another node, which found both at once, calls it by its address.
        let theirs = carried(&other, "10.0.1.1:80");
        assert_eq!(meant(&scene, &theirs).as_deref(), Some("10.0.1.1:80"));
        for answer in [two(), one()] {
            scene.resolve("api.internal", answer);
            scene.pass(1000);
            assert_eq!(
                meant(&scene, &text).as_deref(),
                Some("10.0.1.1:80"),
                "{kind}"
            );
        }
        if kind.contains("X-Server") {
            assert_eq!(meant(&scene, b"api").as_deref(), Some("10.0.1.1:80"));
            assert_eq!(meant(&other, b"api"), None, "which of both?");
            let second = meant(&other, b"api@10.0.1.2:80");
            assert_eq!(second.as_deref(), Some("10.0.1.2:80"));
        }
    }
}

#[test]
fn a_server_of_one_address_keeps_its_clients_at_another() {
    for kind in ["cookie", "{ cookie: { value: name } }"] {
        let config = site(&SITE.replace("servers", &format!("affinity: {kind}, servers")));
        let mut scene = Scene::start(&config);
        scene.resolve("api.internal", Ok((addresses(&["10.0.1.1"]), hour())));
        scene.pass(1000);
        let text = carried(&scene, "10.0.1.1:80");
        scene.resolve("api.internal", Ok((addresses(&["10.0.1.9"]), hour())));
        scene.pass(1000);
        assert_eq!(meant(&scene, &text).as_deref(), Some("10.0.1.9:80"));
    }
}

#[test]
fn what_is_learnt_is_forgotten_by_a_servers_name_or_that_of_one_address() {
    let learning = SITE.replace("servers", "affinity: { app_cookie: SID }, servers");
    let mut scene = Scene::start(&site(&learning));
    let both = ["10.0.1.1", "10.0.1.2"];
    scene.resolve("api.internal", Ok((addresses(&both), hour())));
    scene.pass(1000);
    let table = |scene: &Scene| scene.view().learnt.clone().unwrap();
    let key = table(&scene).learnt().key(b"session");
    let second = scene.member("api@10.0.1.2:80");
    for name in ["api", "api@10.0.1.2:80"] {
        table(&scene).bind(key, &second, scene.now);
        let (reply, answers) = reply();
        let server = crate::message::Forget::Server(name.to_owned());
        scene
            .publisher
            .handle_forget("site", &server, reply, scene.now);
        scene.take_actions();
        let answer = answers.try_recv();
        assert!(
            matches!(answer, Ok(Answer::Forgotten(1))),
            "{name}: {answer:?}"
        );
    }
}
