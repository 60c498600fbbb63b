//! Listeners: their binding, their bounds and their end.

use std::convert::Infallible;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

use super::auth::Peer;
use super::tls::Tls;
use super::{ApiContext, routes};
use routes::Door;

/// Pages that are followed (512), pipelines that wait, and room for all else. Beyond it a caller waits in the backlog.
const CONNECTIONS_MAX: usize = 1024;

/// The lines of a request: what common servers take. Beyond it: 431.
const HEADERS_MAX: usize = 16 * 1024;

/// A request's head, or the next request on a connection that is kept open: a caller that is slower is let go.
const HEAD_WITHIN: Duration = Duration::from_secs(30);

/// A handshake takes some round trips.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// After a failure to accept (no file descriptors left): trying on at once would only burn the core.
const REST: Duration = Duration::from_millis(500);

/// Requests under way when the daemon stops get this long.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// Binds the control socket: a stale one is taken away, a living one never. Owner and group may use it.
pub fn bind_socket(path: &Path) -> Result<UnixListener, String> {
    let wrong = |what: &str, error: &std::io::Error| format!("control socket {}: {what}: {error}", path.display());
    if let Ok(meta) = std::fs::symlink_metadata(path) {
        if !meta.file_type().is_socket() {
            return Err(format!("control socket {}: there is something else under this name", path.display()));
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(format!("control socket {}: another flipback listens on it", path.display()));
        }
        std::fs::remove_file(path).map_err(|error| wrong("the stale one cannot be removed", &error))?;
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(|error| wrong("its directory", &error))?;
    }
    let listener = UnixListener::bind(path).map_err(|error| wrong("bind", &error))?;
    // The unit's UMask would leave 0600; the group flipback is meant to get in.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
        .map_err(|error| wrong("its permissions", &error))?;
    Ok(listener)
}

/// The TCP side: where it listens, what it speaks.
pub struct Remote {
    pub listener: TcpListener,
    pub tls: Option<Arc<Tls>>,
    pub page: Option<Router>,
}

/// Serves until told to stop; requests under way are finished.
pub async fn serve(context: Arc<ApiContext>, unix: UnixListener, remote: Option<Remote>, stop: CancellationToken) {
    let on_socket = on_socket(routes::router(context.clone(), Door::Socket, None), unix, &stop);
    let on_tcp = async {
        let Some(Remote { listener, tls, page }) = remote else { return };
        let here = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
        let door = if here { Door::Loopback } else { Door::Network };
        on_tcp(routes::router(context, door, page), listener, tls, &stop).await;
    };
    tokio::join!(on_socket, on_tcp);
}

async fn on_socket(router: Router, listener: UnixListener, stop: &CancellationToken) {
    let (tasks, seats) = (TaskTracker::new(), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
    loop {
        let Ok(seat) = seats.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::error!(%error, "a connection to the control socket was not taken");
                tokio::time::sleep(REST).await;
                continue;
            }
        };
        let (uid, gid) = stream.peer_cred().map_or((u32::MAX, u32::MAX), |cred| (cred.uid(), cred.gid()));
        let (router, stop) = (router.clone(), stop.clone());
        tasks.spawn(async move {
            converse(stream, router, Peer::Local { uid, gid }, stop).await;
            drop(seat);
        });
    }
    tasks.close();
    let _ = tokio::time::timeout(DRAIN_LIMIT, tasks.wait()).await;
}

async fn on_tcp(router: Router, listener: TcpListener, tls: Option<Arc<Tls>>, stop: &CancellationToken) {
    let (tasks, seats) = (TaskTracker::new(), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
    loop {
        let Ok(seat) = seats.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::error!(%error, "a connection was not taken");
                tokio::time::sleep(REST).await;
                continue;
            }
        };
        let (router, stop, tls) = (router.clone(), stop.clone(), tls.clone());
        tasks.spawn(async move {
            match tls {
                None => converse(stream, router, Peer::Remote, stop).await,
                Some(tls) => match tokio::time::timeout(HANDSHAKE_WITHIN, tls.acceptor().accept(stream)).await {
                    Ok(Ok(stream)) => converse(stream, router, Peer::Remote, stop).await,
                    // Scanners and plain HTTP: nothing that anybody should be woken for.
                    Ok(Err(error)) => tracing::debug!(%error, "no TLS"),
                    Err(_) => tracing::debug!("no TLS in time"),
                },
            }
            drop(seat);
        });
    }
    tasks.close();
    let _ = tokio::time::timeout(DRAIN_LIMIT, tasks.wait()).await;
}

/// One connection to its end.
async fn converse<S>(stream: S, router: Router, peer: Peer, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer.clone()));
        let answer = router.clone().call(request);
        async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
}
