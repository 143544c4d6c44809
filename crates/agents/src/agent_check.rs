//! One agent check: connects, sends what the config says, and reads a line.
//!
//! What the line means is read in `wire` and decided by the publisher.

use std::sync::Arc;

use control::live::Endpoint;
use control::publisher::AgentProbe;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wire::agent_check::{AgentLine, LINE_BYTES_MAX, decode_agent_line, line_end};

/// Asks, and gives the line or why there is none; it ends within the check's timeout.
///
/// # Errors
/// In words: the connection was refused, nothing came in time.
pub async fn ask(probe: &AgentProbe) -> Result<AgentLine, Arc<str>> {
    let late = |_| Arc::from(format!("no line within {:?}", probe.check.timeout));
    timeout(probe.check.timeout, attempt(probe))
        .await
        .map_err(late)?
        .map_err(|error| error.to_string().into())
}

async fn attempt(probe: &AgentProbe) -> std::io::Result<AgentLine> {
    let Endpoint::Ip(mut address) = probe.endpoint else {
        return Err(std::io::Error::other(
            "a Unix socket has no port for an agent",
        ));
    };
    address.set_port(probe.check.port);
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(probe.check.send.as_bytes()).await?;
    let mut line = Vec::new();
    let mut some = [0; 512];
    // The end of the stream ends a line too.
    while line_end(&line).is_none() && line.len() < LINE_BYTES_MAX {
        match stream.read(&mut some).await? {
            0 if line.is_empty() => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            0 => break,
            count => line.extend(some.iter().take(count)),
        }
    }
    Ok(decode_agent_line(&line))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use config::AgentCheck;
    use tokio::net::TcpListener;

    use super::*;

    /// Asks an agent of one connection, which waits for `asked` and then says these pieces.
    async fn check(
        asked: &'static str,
        pieces: &'static [&'static str],
    ) -> Result<String, Arc<str>> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let agent = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut got = vec![0; asked.len()];
            stream.read_exact(&mut got).await.unwrap();
            assert_eq!(got, asked.as_bytes());
            for piece in pieces {
                stream.write_all(piece.as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
            }
            if pieces.is_empty() {
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        });
        let probe = AgentProbe {
            member: 1,
            number: 1,
            // Nobody is on the server's own port.
            endpoint: Endpoint::Ip(SocketAddr::from(([127, 0, 0, 1], 1))),
            check: Arc::new(AgentCheck {
                port,
                interval: Duration::from_secs(2),
                timeout: Duration::from_millis(500),
                send: asked.to_owned(),
            }),
        };
        let said = ask(&probe).await;
        agent.abort();
        said.map(|line| line.to_string())
    }

    #[tokio::test]
    async fn a_line_is_read_to_its_end_or_to_the_end_of_the_stream() {
        assert_eq!(
            check("", &["ready 50%\n"]).await.as_deref(),
            Ok("ready 50%")
        );
        assert_eq!(
            check("", &["dra", "in\r\nup\n"]).await.as_deref(),
            Ok("drain")
        );
        assert_eq!(check("", &["up"]).await.as_deref(), Ok("up"));
        assert_eq!(
            check("site a\n", &["maint\n"]).await.as_deref(),
            Ok("maint")
        );
    }

    #[tokio::test]
    async fn no_line_is_an_error_in_words() {
        let error = check("", &[]).await.unwrap_err();
        assert!(error.contains("no line within"), "{error}");
        let error = check("", &[""]).await.unwrap_err();
        assert!(!error.is_empty());
    }
}
