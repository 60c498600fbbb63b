//! HAProxy's runtime API: which servers of a backend take requests, and with what weight.

use std::collections::HashMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::config::settings::SocketAddress;

/// `show stat` of a few thousand servers is some hundreds of KiB.
const ANSWER_MAX: u64 = 4 * 1024 * 1024;

/// Servers of the backend that are meant to take requests, with their weights. One that fails its health check is
/// still where the traffic was put; one in maintenance or draining is not.
pub async fn weights(address: &SocketAddress, backend: &str) -> Result<Vec<(String, f64)>, String> {
    let answer = ask(address, "show stat\n").await.map_err(|why| format!("{address}: {why}"))?;
    read(&answer, backend)
}

async fn ask(address: &SocketAddress, command: &str) -> Result<String, String> {
    async fn exchange<S: AsyncReadExt + AsyncWriteExt + Unpin>(
        mut stream: S,
        command: &str,
    ) -> std::io::Result<Vec<u8>> {
        stream.write_all(command.as_bytes()).await?;
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
    let answer = answer.map_err(|error| error.to_string())?;
    String::from_utf8(answer).map_err(|_| "the answer is not text".to_owned())
}

fn read(answer: &str, backend: &str) -> Result<Vec<(String, f64)>, String> {
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
    let mut any = false;
    for line in lines {
        // Names and states hold no commas; the columns with quoted texts come later.
        let cells: Vec<&str> = line.split(',').collect();
        let cell = |n: usize| cells.get(n).copied().unwrap_or_default();
        if cell(px) != backend || matches!(cell(sv), "FRONTEND" | "BACKEND") {
            continue;
        }
        any = true;
        let out = cell(status).starts_with("MAINT") || cell(status).starts_with("DRAIN") || cell(backup) == "1";
        let weight: f64 = cell(weight).parse().unwrap_or(0.0);
        if !out && weight > 0.0 {
            found.push((cell(sv).to_owned(), weight));
        }
    }
    if !any {
        return Err(format!("there is no backend {backend} with servers"));
    }
    if found.is_empty() {
        return Err(format!("no server of {backend} takes requests"));
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
        let found = read(&format!("{HEAD}{rows}\n"), "app").unwrap();
        assert_eq!(found, [("blue".to_owned(), 90.0), ("green".to_owned(), 10.0)]);
        assert!(read(&format!("{HEAD}{rows}"), "none").unwrap_err().contains("no backend none"));
        assert!(read("Permission denied\n", "app").unwrap_err().contains("no statistics"));
        assert!(read(HEAD, "app").is_err());
    }
}
