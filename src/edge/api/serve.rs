//! Listeners: their binding, their bounds and their end.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

use super::auth::{Peer, Token};
use super::{ApiContext, routes};

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let uid = stream.io().peer_cred().map_or(u32::MAX, |cred| cred.uid());
        Peer::Local { uid }
    }
}

impl Connected<IncomingStream<'_, TcpListener>> for Peer {
    fn connect_info(_: IncomingStream<'_, TcpListener>) -> Self {
        Peer::Bearer
    }
}

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

/// Serves until told to stop; requests under way are finished.
pub async fn serve(
    context: Arc<ApiContext>,
    unix: UnixListener,
    tcp: Option<(TcpListener, Token)>,
    page: Option<Router>,
    stop: CancellationToken,
) {
    let local: Router = routes::router(context.clone(), None, None);
    let socket = axum::serve(unix, local.into_make_service_with_connect_info::<Peer>())
        .with_graceful_shutdown(stop.clone().cancelled_owned());
    let on_socket = async {
        if let Err(error) = socket.await {
            tracing::error!(%error, "the control socket has ended");
        }
    };
    let on_tcp = async {
        let Some((listener, token)) = tcp else { return };
        let remote = routes::router(context, Some(token), page);
        let server = axum::serve(listener, remote.into_make_service_with_connect_info::<Peer>())
            .with_graceful_shutdown(stop.clone().cancelled_owned());
        if let Err(error) = server.await {
            tracing::error!(%error, "the TCP listener has ended");
        }
    };
    tokio::join!(on_socket, on_tcp);
}
