//! The executor with real sockets and threads: wakes, panics, deadlines, and that nothing is lost between them.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::sync::mpsc;
use std::task::Poll;
use std::time::Duration;

use super::*;

/// Runs `main` as the only task of a worker, and gives what it gave.
fn on_worker<T: Send + 'static, F: Future<Output = T> + 'static>(
    main: impl FnOnce(Remote) -> F + Send + 'static,
) -> T {
    let (out, result) = mpsc::channel();
    let worker = std::thread::spawn(move || {
        run(|remote| {
            let main = main(remote);
            spawn(async move {
                out.send(main.await).expect("the test waits");
                stop();
            });
        })
    });
    let result = result
        .recv_timeout(Duration::from_secs(20))
        .expect("the worker answers");
    worker
        .join()
        .expect("the worker ends")
        .expect("its poll works");
    result
}

#[test]
fn a_wake_from_another_thread_arrives() {
    let woken = on_worker(|_| async {
        let mut asked = false;
        let (sender, receiver) = mpsc::channel::<std::task::Waker>();
        let (done, is_done) = mpsc::channel();
        std::thread::spawn(move || {
            let waker = receiver.recv().expect("a waker");
            done.send(()).expect("the task waits");
            waker.wake();
        });
        std::future::poll_fn(move |cx| {
            if asked && is_done.try_recv().is_ok() {
                return Poll::Ready(true);
            }
            if !asked {
                asked = true;
                sender.send(cx.waker().clone()).expect("the thread waits");
            }
            Poll::Pending
        })
        .await
    });
    assert!(woken);
}

#[test]
fn jobs_from_other_threads_run_in_their_order() {
    let order = on_worker(|remote| async move {
        thread_local!(static ORDER: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) });
        let feeder = std::thread::spawn(move || {
            for number in 0..1000 {
                remote.run(move || ORDER.with_borrow_mut(|order| order.push(number)));
            }
        });
        while ORDER.with_borrow(Vec::len) < 1000 {
            sleep(Duration::from_millis(1)).await;
        }
        feeder.join().expect("the feeder ends");
        ORDER.take()
    });
    assert!(order.is_sorted());
}

#[test]
fn a_panic_ends_its_own_task_and_no_other() {
    let (panics_seen, guard_ran) = on_worker(|_| async {
        struct Guard(Rc<RefCell<bool>>);
        impl Drop for Guard {
            fn drop(&mut self) {
                *self.0.borrow_mut() = true;
            }
        }
        let ran = Rc::new(RefCell::new(false));
        let guard = Guard(ran.clone());
        spawn(async move {
            let _guard = guard;
            yield_now().await;
            panic!("expected by this test");
        });
        while panics() == 0 {
            yield_now().await;
        }
        (panics(), *ran.borrow())
    });
    assert_eq!(panics_seen, 1);
    assert!(guard_ran);
}

#[test]
fn a_deadline_gives_up_what_does_not_come_and_lets_through_what_does() {
    let (late, early) = on_worker(|_| async {
        let deadline = Deadline::new();
        deadline.set(Some(Duration::from_millis(20)));
        let late = deadline.guard(std::future::pending::<()>()).await;
        deadline.set(Some(Duration::from_secs(60)));
        let early = deadline.guard(yield_now()).await;
        (late, early)
    });
    assert_eq!(late, Err(Elapsed));
    assert_eq!(early, Ok(()));
}

#[test]
fn a_tag_makes_its_deadlines_fire_and_leaves_the_others() {
    let (tagged, other) = on_worker(|_| async {
        let deadline = Deadline::new();
        deadline.tag(7);
        deadline.set(None);
        let other = Deadline::new();
        other.set(Some(Duration::from_millis(50)));
        spawn(async { expire(7) });
        let tagged = deadline
            .guard(other.guard(std::future::pending::<()>()))
            .await;
        (tagged.is_err(), other.is_over())
    });
    assert!(tagged);
    assert!(!other);
}

#[test]
fn what_expired_stays_over_until_it_is_tagged_anew() {
    let (set_anew, tagged_anew) = on_worker(|_| async {
        let deadline = Deadline::new();
        deadline.tag(7);
        deadline.set(Some(Duration::from_secs(60)));
        // Between two waits, as a task is that has just been woken.
        expire(7);
        deadline.set(Some(Duration::from_secs(60)));
        let set_anew = deadline.guard(std::future::pending::<()>()).await;
        deadline.tag(7);
        deadline.set(Some(Duration::from_secs(60)));
        (set_anew, deadline.guard(yield_now()).await)
    });
    assert_eq!(set_anew, Err(Elapsed));
    assert_eq!(tagged_anew, Ok(()));
}

#[test]
fn bytes_and_the_end_arrive_however_they_are_cut() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let sent: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
    let expected = sent.clone();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        for piece in sent.chunks(977) {
            stream.write_all(piece).expect("the client reads");
        }
        stream
            .shutdown(std::net::Shutdown::Write)
            .expect("half close");
        let mut echoed = Vec::new();
        stream.read_to_end(&mut echoed).expect("the client ends");
        echoed
    });
    let received = on_worker(move |_| async move {
        let stream = connect_tcp(address, None).await.expect("it listens");
        let mut all = Vec::new();
        let mut buffer = vec![0; 4096];
        loop {
            let count = stream.read(&mut buffer).await.expect("it sends");
            if count == 0 {
                break;
            }
            let piece = buffer.get(..count).expect("what was read");
            all.extend_from_slice(piece);
            let mut rest = piece;
            while !rest.is_empty() {
                let parts = [std::io::IoSlice::new(rest)];
                let written = std::future::poll_fn(|cx| stream.poll_write(cx, &parts, Push::Now))
                    .await
                    .expect("it reads");
                rest = rest.get(written..).expect("not more than was given");
            }
        }
        all
    });
    assert!(received == expected);
    assert!(server.join().expect("the server ends") == expected);
}

#[test]
fn a_refused_connection_is_told_as_such() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    drop(listener);
    let error = on_worker(move |_| async move { connect_tcp(address, None).await.err() });
    assert_eq!(error, Some(ConnectError::Refused));
}

#[test]
fn what_is_accepted_sends_small_pieces_at_once() {
    let no_delay = on_worker(|_| async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a mode");
        let address = listener.local_addr().expect("an address");
        let acceptor = Acceptor::tcp(listener).expect("a poll");
        let _client = std::net::TcpStream::connect(address).expect("a connection");
        std::future::poll_fn(|cx| acceptor.poll_acceptable(cx)).await;
        let (accepted, _) = acceptor.try_accept().expect("a connection");
        Stream::from(accepted).sends_at_once()
    });
    assert!(no_delay);
}

#[test]
fn what_waits_for_the_close_arrives_whole_with_it() {
    let said = on_worker(|_| async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let reader = std::thread::spawn(move || {
            let mut client = std::net::TcpStream::connect(address).expect("a connection");
            let mut said = Vec::new();
            client.read_to_end(&mut said).expect("an end");
            said
        });
        let (socket, _) = listener.accept().expect("a client");
        socket.set_nonblocking(true).expect("a mode");
        let stream = Stream::from_std(socket);
        let body = vec![b'x'; 5000];
        let parts = [
            std::io::IoSlice::new(b"head "),
            std::io::IoSlice::new(&body),
        ];
        let written = std::future::poll_fn(|cx| stream.poll_write(cx, &parts, Push::WithClose));
        assert_eq!(written.await.expect("room"), 5005);
        drop(stream);
        reader.join().expect("the reader ends").len()
    });
    assert_eq!(said, 5005);
}

#[test]
fn a_task_that_yields_lets_a_socket_that_became_ready_go_first() {
    let turns = on_worker(|_| async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut client = std::net::TcpStream::connect(address).expect("a connection");
        let (socket, _) = listener.accept().expect("a client");
        socket.set_nonblocking(true).expect("a mode");
        let stream = Stream::from_std(socket);
        stream.watch().expect("a poll");
        let turns = Rc::new(std::cell::Cell::new(0));
        let counted = turns.clone();
        spawn(async move {
            client.write_all(b"x").expect("room");
            loop {
                counted.set(counted.get() + 1);
                yield_now().await;
            }
        });
        let mut byte = [0];
        stream.read(&mut byte).await.expect("a byte");
        turns.get()
    });
    assert!(turns <= 2, "{turns} turns of the other task");
}
