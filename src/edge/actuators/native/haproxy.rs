//! HAProxy over its runtime API: the target's servers in, all others out, and the state read back.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::domain::action::{Haproxy, TakenOut};
use crate::domain::switch::Slot;
use crate::edge::haproxy::{Server, ask, level, order, servers};
use crate::shim::write_durably;

const EVERY: Duration = Duration::from_millis(200);

/// A server that comes out of maintenance counts as up until its first checks have failed.
const UP_WITHIN: Duration = Duration::from_secs(10);

/// So long one with health checks must stay up before the others are taken out, and after it.
const STEADY: Duration = Duration::from_secs(1);
const STEADY_AFTER: Duration = Duration::from_secs(2);

pub async fn act(h: &Haproxy, to: &Slot, left: Duration) -> Result<(), String> {
    let wanted = h.servers.get(to).ok_or_else(|| format!("no servers are configured for {to}"))?;
    let before = known(h).await?;
    // The target first: at no instant is there nobody to serve.
    for name in wanted {
        tell(h, name, "state ready").await?;
        if weight_of(&before, name) == 0.0 {
            tell(h, name, "weight 100%").await?;
            if weight_of(&servers(&h.address, &h.backend).await?, name) == 0.0 {
                // A server whose configured weight is 0.
                tell(h, name, "weight 1").await?;
            }
        }
    }
    up(h, to, wanted, left.min(UP_WITHIN)).await?;
    for name in others(h, to) {
        match h.others {
            TakenOut::Maint => tell(h, name, "state maint").await?,
            TakenOut::Drain => tell(h, name, "state drain").await?,
            TakenOut::Weight => tell(h, name, "weight 0").await?,
        }
    }
    if let Err(why) = steady(h, to, wanted, STEADY_AFTER).await {
        return Err(put_back(h, to, &before, why).await);
    }
    let shown = look(h).await?;
    println!("{} backend {}: requests go to {shown}", h.address, h.backend);
    if shown != to.as_str() {
        return Err(format!("requests go to {shown}, not to {to}"));
    }
    survival(h).await?;
    if let Some(after) = h.end_sessions_after {
        tokio::time::sleep(after.to_std().min(left)).await;
        for name in others(h, to) {
            // Not of the step's essence: the traffic has moved.
            let line = format!("shutdown sessions server {}/{name}", h.backend);
            match order(&h.address, &line).await {
                Ok(()) => println!("{line}"),
                Err(why) => println!("{why}"),
            }
        }
    }
    Ok(())
}

/// The slot whose servers take the requests; several, with their parts, where they do not agree.
pub async fn look(h: &Haproxy) -> Result<String, String> {
    let taking: Vec<Server> = known(h).await?.into_iter().filter(Server::takes_requests).collect();
    if taking.is_empty() {
        return Err(format!("{}: no server of {} takes requests", h.address, h.backend));
    }
    let whole: f64 = taking.iter().map(|s| s.weight).sum();
    let of = |name: &str| h.servers.iter().find(|(_, names)| names.iter().any(|n| n == name)).map(|(slot, _)| slot);
    let mut parts: Vec<(String, f64)> = Vec::new();
    for server in &taking {
        let slot = of(&server.name).map_or_else(|| format!("server {}", server.name), ToString::to_string);
        match parts.iter_mut().find(|(known, _)| *known == slot) {
            Some((_, weight)) => *weight += server.weight,
            None => parts.push((slot, server.weight)),
        }
    }
    match parts.as_slice() {
        [(only, _)] => Ok(only.clone()),
        several => {
            let list: Vec<String> = several.iter().map(|(s, w)| format!("{s} {:.0} %", 100.0 * w / whole)).collect();
            Ok(list.join(", "))
        }
    }
}

/// What a rollback would need, without moving anything.
pub async fn try_out(h: &Haproxy) -> Result<String, String> {
    known(h).await?;
    match level(&h.address).await?.as_str() {
        "admin" => Ok("all servers are there, and the socket takes orders (level admin)".into()),
        other => {
            Err(format!("{}: the socket's level is {other:?}: `level admin` is needed to move traffic", h.address))
        }
    }
}

/// The backend's servers; every configured one must be among them.
async fn known(h: &Haproxy) -> Result<Vec<Server>, String> {
    let found = servers(&h.address, &h.backend).await?;
    let names: BTreeSet<&str> = found.iter().map(|s| s.name.as_str()).collect();
    match h.servers.values().flatten().find(|name| !names.contains(name.as_str())) {
        Some(missing) => {
            let list: Vec<&str> = names.into_iter().collect();
            Err(format!("{}: backend {} has no server {missing}; it has {}", h.address, h.backend, list.join(", ")))
        }
        None => Ok(found),
    }
}

fn others<'a>(h: &'a Haproxy, to: &Slot) -> impl Iterator<Item = &'a String> {
    h.servers.iter().filter(move |(slot, _)| *slot != to).flat_map(|(_, names)| names)
}

fn weight_of(all: &[Server], name: &str) -> f64 {
    all.iter().find(|s| s.name == name).map_or(0.0, |s| s.weight)
}

async fn tell(h: &Haproxy, server: &str, what: &str) -> Result<(), String> {
    let line = format!("set server {}/{server} {what}", h.backend);
    order(&h.address, &line).await?;
    println!("{line}");
    Ok(())
}

/// Waits until one of them is up by HAProxy's own checks, and stays so: nothing is taken out before.
async fn up(h: &Haproxy, to: &Slot, wanted: &[String], limit: Duration) -> Result<(), String> {
    let waits = async {
        loop {
            if steady(h, to, wanted, STEADY).await.is_ok() {
                return;
            }
            tokio::time::sleep(EVERY).await;
        }
    };
    tokio::time::timeout(limit, waits).await.map_err(|_| {
        format!("no server of {to} is up by HAProxy's own checks after {} s; the others were left in", limit.as_secs())
    })
}

/// Up for as long as that; where HAProxy checks nothing, at one look.
async fn steady(h: &Haproxy, to: &Slot, wanted: &[String], lasts: Duration) -> Result<(), String> {
    let until = Instant::now() + lasts;
    loop {
        let now = servers(&h.address, &h.backend).await?;
        let mine: Vec<&Server> = now.iter().filter(|s| wanted.contains(&s.name) && s.takes_requests()).collect();
        if mine.iter().all(|s| s.is_down()) {
            return Err(format!("no server of {to} is up by HAProxy's own checks"));
        }
        let checked = mine.iter().filter(|s| !s.is_down()).all(|s| s.is_checked());
        if !checked || Instant::now() >= until {
            return Ok(());
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// The target went down when it was needed: whoever took requests before takes them again.
async fn put_back(h: &Haproxy, to: &Slot, before: &[Server], why: String) -> String {
    for server in before.iter().filter(|s| s.takes_requests() && others(h, to).any(|name| *name == s.name)) {
        for what in ["state ready".to_owned(), format!("weight {:.0}", server.weight)] {
            if let Err(error) = tell(h, &server.name, &what).await {
                return format!("{why}; and the others could not be put back: {error}");
            }
        }
    }
    format!("{why}; the others are in again")
}

/// The runtime API changes what runs, not what is written: whether a restart undoes it is said.
async fn survival(h: &Haproxy) -> Result<(), String> {
    let Some(path) = &h.state_file else {
        println!("not kept over a restart of HAProxy: its configuration is unchanged, and no state_file is set");
        return Ok(());
    };
    let state = ask(&h.address, "show servers state").await?;
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else {
        return Err(format!("{}: is no file's path", path.display()));
    };
    match write_durably(dir, name, state.as_bytes()) {
        Ok(()) => println!("kept over a restart that loads {}", path.display()),
        // The traffic has moved all the same.
        Err(error) => println!("NOT kept over a restart: {}: {error}", path.display()),
    }
    Ok(())
}
