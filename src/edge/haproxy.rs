//! HAProxy's runtime API: which servers of a backend take requests, and with what weight; and orders to it.

use std::collections::HashMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::domain::action::SocketAddress;

/// `show stat` of a few thousand servers is some hundreds of KiB.
const ANSWER_MAX: u64 = 4 * 1024 * 1024;

/// One command, one connection: so each answer is of its own command.
pub async fn ask(address: &SocketAddress, command: &str) -> Result<String, String> {
    async fn exchange<S: AsyncReadExt + AsyncWriteExt + Unpin>(
        mut stream: S,
        command: &str,
    ) -> std::io::Result<Vec<u8>> {
        stream.write_all(format!("{command}\n").as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_MAX).read_to_end(&mut answer).await?;
        Ok(answer)
    }
    let answer = match address {
        SocketAddress::Unix(path) => match UnixStream::connect(path).await {
            Ok(stream) => exchange(stream, command).await,
            Err(error) => Err(error),
        },
        SocketAddress::Tcp(address) => match TcpStream::connect(address).await {
            Ok(stream) => exchange(stream, command).await,
            Err(error) => Err(error),
        },
    };
    let answer = answer.map_err(|error| format!("{address}: {error}"))?;
    String::from_utf8(answer).map_err(|_| "the answer is not text".to_owned())
}

/// One server of a backend as `show stat` has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    pub name: String,
    /// `UP`, `DOWN`, `MAINT`, `DRAIN`, `no check`, ... with what HAProxy adds to it.
    pub status: String,
    pub weight: f64,
    pub backup: bool,
}

impl Server {
    /// Whether requests are meant for it. One that fails its health check is still where the traffic was put; one in
    /// maintenance or draining is not.
    pub fn takes_requests(&self) -> bool {
        let out = self.status.starts_with("MAINT") || self.status.starts_with("DRAIN") || self.backup;
        !out && self.weight > 0.0
    }

    /// Whether HAProxy asks for its health.
    pub fn is_checked(&self) -> bool {
        !self.status.starts_with("no check")
    }

    pub fn is_down(&self) -> bool {
        self.status.starts_with("DOWN")
    }
}

/// Servers of the backend that are meant to take requests, with their weights.
pub async fn weights(address: &SocketAddress, backend: &str) -> Result<Vec<(String, f64)>, String> {
    let all = servers(address, backend).await?;
    let found: Vec<_> = all.into_iter().filter(Server::takes_requests).map(|s| (s.name, s.weight)).collect();
    if found.is_empty() {
        return Err(format!("no server of {backend} takes requests"));
    }
    Ok(found)
}

pub async fn servers(address: &SocketAddress, backend: &str) -> Result<Vec<Server>, String> {
    read(&ask(address, "show stat").await?, backend).map_err(|why| format!("{address}: {why}"))
}

/// A command that says nothing when it was carried out: whatever it does say is an error.
pub async fn order(address: &SocketAddress, command: &str) -> Result<(), String> {
    let said = ask(address, command).await?;
    match said.trim() {
        "" => Ok(()),
        said => Err(format!("{address}: {command}: {}", said.chars().take(200).collect::<String>())),
    }
}

/// `admin`, `operator` or `user`: what this socket lets us do.
pub async fn level(address: &SocketAddress) -> Result<String, String> {
    Ok(ask(address, "show cli level").await?.trim().to_owned())
}

pub(crate) fn read(answer: &str, backend: &str) -> Result<Vec<Server>, String> {
    let mut lines = answer.lines().filter(|line| !line.trim().is_empty());
    let Some(head) = lines.next().and_then(|line| line.strip_prefix("# ")) else {
        let shown: String = answer.trim().chars().take(120).collect();
        return Err(format!("the answer is no statistics: {shown:?}"));
    };
    let columns: HashMap<&str, usize> = head.split(',').enumerate().map(|(i, name)| (name, i)).collect();
    let column = |name: &str| columns.get(name).copied().ok_or_else(|| format!("the statistics have no column {name}"));
    let (px, sv, status, weight, backup) =
        (column("pxname")?, column("svname")?, column("status")?, column("weight")?, column("bck")?);
    let mut found = Vec::new();
    for line in lines {
        // Names and states hold no commas; the columns with quoted texts come later.
        let cells: Vec<&str> = line.split(',').collect();
        let cell = |n: usize| cells.get(n).copied().unwrap_or_default();
        if cell(px) != backend || matches!(cell(sv), "FRONTEND" | "BACKEND") {
            continue;
        }
        found.push(Server {
            name: cell(sv).to_owned(),
            status: cell(status).to_owned(),
            weight: cell(weight).parse().unwrap_or(0.0),
            backup: cell(backup) == "1",
        });
    }
    if found.is_empty() {
        return Err(format!("there is no backend {backend} with servers"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "# pxname,svname,qcur,status,weight,act,bck,\n";

    #[test]
    fn servers_that_take_requests_and_their_weights() {
        let rows = "app,blue,0,UP,90,1,0,\napp,green,0,DOWN,10,1,0,\napp,spare,0,UP,1,0,1,\napp,old,0,MAINT,1,1,0,\n\
                    app,red,0,DRAIN,0,1,0,\nother,x,0,UP,1,1,0,\napp,BACKEND,0,UP,100,2,0,\n";
        let all = read(&format!("{HEAD}{rows}\n"), "app").unwrap();
        let found: Vec<_> = all.iter().filter(|s| s.takes_requests()).map(|s| (s.name.as_str(), s.weight)).collect();
        assert_eq!(found, [("blue", 90.0), ("green", 10.0)]);
        assert!(all[1].is_down() && !all[0].is_down());
        assert!(read(&format!("{HEAD}{rows}"), "none").unwrap_err().contains("no backend none"));
        assert!(read("Permission denied\n", "app").unwrap_err().contains("no statistics"));
        assert!(read(HEAD, "app").is_err());
    }
}
