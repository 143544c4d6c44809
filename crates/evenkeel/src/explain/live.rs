//! `evenkeel explain --live`: the question to a running instance, and the answer that it gives.
//!
//! The instance looks at what its traffic looks at. It opens no connection, claims no server and counts nothing.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use admin::ExplainRequest;
use control::world::World;
use serde_json::{Value, json};

use super::request::{self, Asked};
use super::{Explained, Known, explain, format};
use crate::cli::ExplainArgs;
use crate::exit;
use crate::remote::{self, Done, Failed};

/// Asks the instance.
///
/// # Errors
/// What the system refused.
pub(super) fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let mut body = json!({ "request": args.request, "headers": args.headers, "from": args.from });
    match args
        .client_cert
        .as_deref()
        .map(request::read_cert)
        .transpose()
    {
        Ok(None) => {}
        Ok(Some(pem)) => body["client_cert"] = pem.into(),
        Err(error) => return Ok(exit::wrong(error)),
    }
    remote::with_client(&args.remote, async |client| {
        let answer = client.post_json("/api/v1/explain", &body).await?;
        let (answer, _) = remote::ask(answer, &[200])?;
        let text = match serde_json::from_value::<Explained>(answer.clone()) {
            Ok(explained) => format::text(&explained),
            Err(_) if args.remote.json => String::new(),
            Err(error) => {
                let why = "the instance answers as another version does; `--json` shows what";
                return Err(Failed::Refused(format!("{why}: {error}")));
            }
        };
        Ok(Done {
            text,
            json: answer,
            code: exit::WELL,
        })
    })
}

/// Answers for the instance.
///
/// # Errors
/// What is wrong with the request, in words for the user.
pub(crate) fn answer(
    world: &World,
    asked: &ExplainRequest,
    addresses: &[(Arc<str>, String)],
    now: Duration,
) -> Result<Value, String> {
    let mut request = Asked::parse(&asked.request, &asked.headers)?;
    request.client_cert.clone_from(&asked.client_cert);
    let known = Known::Live { addresses, now };
    let explained = explain(world, &request, asked.from, known)?;
    serde_json::to_value(&explained).map_err(|error| error.to_string())
}
