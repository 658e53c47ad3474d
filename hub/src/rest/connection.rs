//! One HTTP connection to its end: how long a peer may take, and what becomes of it when the hub stops.

use super::{Peer, router};
use crate::{server::STOP_TIMEOUT, state::Shared};
use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{
    io::{self, ErrorKind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep, timeout},
};

/// How long a request's head may take, the pause before it included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
/// How much of a head that does not end is kept, in bytes; it may come out somewhat larger. Anybody may send one.
const MAX_HEAD: usize = 16 * 1024;
/// How long a peer may take to read some of what is written to it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Serves a connection to its end, or to the hub's.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    hub: Arc<Shared>,
    stream: S,
    peer: Peer,
) {
    let stopped = hub.stopped();
    let allowance = Allowance::default();
    let service = router(hub.clone())
        .layer(axum::middleware::from_fn_with_state(hub, durable))
        .layer(axum::Extension(peer))
        .layer(axum::Extension(allowance.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(
            TokioIo::new(Guarded {
                stream,
                deadline: None,
                allowance,
            }),
            TowerToHyperService::new(service),
        )
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = stopped => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(STOP_TIMEOUT, connection).await;
}

/// No answer leaves before what it speaks of is durable.
async fn durable(State(hub): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let answer = next.run(request).await;
    match hub.durable().await {
        Ok(()) => answer,
        Err(refusal) => refusal.into_response(),
    }
}

/// How many bytes a peer may still send; at first, as many as it likes.
#[derive(Clone)]
pub(super) struct Allowance(Arc<AtomicUsize>);

impl Default for Allowance {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(usize::MAX)))
    }
}

impl Allowance {
    /// So many and no more.
    pub(super) fn limit(&self, bytes: usize) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    /// As many as it likes again.
    pub(super) fn lift(&self) {
        self.limit(usize::MAX);
    }

    /// Takes note of some that came; false when they are too many.
    fn take(&self, bytes: usize) -> bool {
        let take = |left| match left {
            usize::MAX => Some(left),
            left => left.checked_sub(bytes),
        };
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
    }
}

/// A stream whose peer has to read: else a few who do not hold all connections, and what is written to them, for ever. And
/// it must not send more than it is allowed.
struct Guarded<S> {
    stream: S,
    /// Set while the peer takes nothing.
    deadline: Option<Pin<Box<Sleep>>>,
    allowance: Allowance,
}

impl<S> Guarded<S> {
    fn within<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.deadline = None;
            return written;
        }
        let begin = || Box::pin(sleep(WRITE_TIMEOUT));
        ready!(
            self.deadline
                .get_or_insert_with(begin)
                .as_mut()
                .poll(context)
        );
        Poll::Ready(Err(ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let count = buffer.filled().len() - before;
        Poll::Ready(match self.allowance.take(count) {
            true => Ok(()),
            false => Err(ErrorKind::InvalidData.into()),
        })
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.within(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.within(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.within(context, shut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{store::Store, throttle::Throttle, x509::Authorities};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        time::Instant,
    };

    /// A peer of a hub in memory, and the task that serves it.
    fn connected(room: usize) -> (DuplexStream, impl Future<Output = ()>) {
        let hub = Shared::new(
            "localhost".into(),
            None,
            Store::Memory,
            Authorities::read(&[]).unwrap(),
            Throttle::new(None),
        );
        let (client, stream) = duplex(room);
        let peer = Peer {
            address: "peer".into(),
            certificates: [].into(),
            slot: Arc::new(()),
        };
        (client, serve(Arc::new(hub.unwrap()), stream, peer))
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_dribbles_in_is_cut_off() {
        let (mut client, served) = connected(64);
        let begun = Instant::now();
        let dribble = async {
            for byte in b"GET /devices HTTP/1.1\r\nX-Slow: "
                .iter()
                .chain([b'x'; 100].iter())
            {
                sleep(Duration::from_secs(5)).await;
                if client.write_all(&[*byte]).await.is_err() {
                    break;
                }
            }
        };
        tokio::join!(served, dribble);
        assert!(
            (120..130).contains(&begun.elapsed().as_secs()),
            "{:?}",
            begun.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_no_answer_is_cut_off() {
        let (mut client, served) = connected(64);
        let begun = Instant::now();
        let ask = async {
            client
                .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                .await
                .unwrap();
            sleep(Duration::from_secs(3600)).await;
            client
        };
        let ((), mut client) = tokio::join!(
            async {
                served.await;
                assert_eq!(begun.elapsed().as_secs(), 60);
            },
            ask
        );
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 401"));
    }
}
