//! A client that balances over three servers by itself, and loses nothing when one of them dies.
//!
//! `cargo run -p evenkeel-balance --example client_side`
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "an example is the shell around the pure crate: it has the clock, sockets and threads"
)]

use std::io::{Read, Result, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use evenkeel_balance::health::{Health, Thresholds, Verdict};
use evenkeel_balance::{
    Algorithm, Candidate, Local, Rotation, Server, Share, Standing, View, hash_key, usable,
};

/// What the client knows of one server.
struct Member {
    address: SocketAddr,
    server: Arc<Server>,
    health: Health,
}

fn main() -> Result<()> {
    let origin = Instant::now();
    let mut members = Vec::new();
    // The second server answers ten requests, then it is gone.
    for answers in [1000, 10, 1000] {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        members.push(Member {
            address: listener.local_addr()?,
            server: Arc::new(Server::new()),
            health: Health::new(Thresholds::default(), Verdict::Healthy, origin.elapsed()),
        });
        thread::spawn(move || serve(&listener, answers));
    }

    let (rotation, mut local) = (Rotation::new(), Local::new(1));
    let mut view = view_of(&members);
    let mut answered = 0;
    for _ in 0..60 {
        let mut tried = Vec::new();
        while let Some(index) = view.pick(&rotation, &mut local, None, &tried, origin.elapsed()) {
            let id = view.candidates()[index].id;
            let member = &mut members[id as usize];
            tried.push(id);
            if member.server.acquire(None).is_err() {
                continue;
            }
            let began = Instant::now();
            let result = ask(member.address);
            member.server.release();
            match result {
                Ok(()) => {
                    member
                        .server
                        .record_latency(origin.elapsed(), began.elapsed());
                    answered += 1;
                    break;
                }
                Err(error) => {
                    println!("{}: {error}; trying another", member.address);
                    if let Some(change) = member.health.handle_refused(origin.elapsed()) {
                        println!("{}: {change}", member.address);
                    }
                    view = view_of(&members);
                }
            }
        }
    }
    println!("{answered} of 60 requests answered");
    for member in &members {
        println!(
            "{}: {} picks, {}",
            member.address,
            member.server.picks(),
            member.health.verdict()
        );
    }
    Ok(())
}

/// The servers that may serve, in a view of their own.
fn view_of(members: &[Member]) -> View {
    let standings: Vec<_> = members
        .iter()
        .map(|member| Standing {
            verdict: member.health.verdict(),
            answers: member.health.answers(),
            state: member.server.state(),
            weight: 1,
            ejected: false,
            share: Share::FULL,
        })
        .collect();
    let candidates = usable(&standings, 0)
        .indices
        .into_iter()
        .map(|index| Candidate {
            server: Arc::clone(&members[index].server),
            id: index as u32,
            hash_name: hash_key(members[index].address.to_string().as_bytes()),
            weight: 1,
            share: Share::FULL,
        })
        .collect();
    View::build(&Algorithm::LeastConnections, candidates)
}

fn serve(listener: &TcpListener, answers: usize) {
    for stream in listener.incoming().take(answers).flatten() {
        // A client that left is no concern of this server.
        let _ = (&stream).write_all(b"hello");
    }
}

fn ask(address: SocketAddr) -> Result<()> {
    let mut answer = String::new();
    TcpStream::connect(address)?.read_to_string(&mut answer)?;
    if answer.is_empty() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}
