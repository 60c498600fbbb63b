//! Pages that follow what happens. Each page that somebody looks at is made anew once for all who look, when a turn of
//! the loop touched what it shows; only sections that are different are sent.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use futures_util::Stream;
use futures_util::stream::unfold;
use serde_json::json;
use tokio::sync::{Semaphore, broadcast};

use super::{Page, Touched, views};
use crate::domain::switch::SwitchId;
use crate::face::html::sections;

/// Open streams: a team's screens several times over. Each costs a connection and some kilobytes.
const STREAMS_MAX: usize = 512;

/// Changes come in bunches (a reading, its verdict, a notice): one picture of them.
const SETTLE: Duration = Duration::from_millis(250);

/// Where nothing happens the clock still goes on: how much of the soak is left.
const AT_LEAST: Duration = Duration::from_secs(10);

/// A browser that lags behind so far gets the whole page instead.
const BEHIND_MAX: usize = 8;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Topic {
    Home,
    Watch(SwitchId),
}

/// A page as it was sent last.
type Shown = BTreeMap<String, String>;

#[derive(Clone)]
struct Room {
    news: broadcast::Sender<Arc<str>>,
    shown: Arc<Mutex<Shown>>,
}

pub struct Hub {
    touched: broadcast::Sender<Touched>,
    rooms: Mutex<HashMap<Topic, Room>>,
    streams: AtomicUsize,
    /// One page is made at a time: looking on never takes more than a core.
    making: Semaphore,
}

impl Hub {
    pub fn new(touched: broadcast::Sender<Touched>) -> Hub {
        Hub { touched, rooms: Mutex::default(), streams: AtomicUsize::new(0), making: Semaphore::new(1) }
    }
}

/// Counts a stream for as long as it is open.
struct Seat(Arc<Page>);

impl Seat {
    fn take(page: &Arc<Page>) -> Option<Seat> {
        let taken =
            page.hub.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < STREAMS_MAX).then_some(n + 1));
        taken.ok().map(|_| Seat(page.clone()))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.hub.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Everything first, then what changes, until the daemon stops.
pub async fn follow(page: Arc<Page>, topic: Topic) -> Result<impl Stream<Item = Arc<str>> + use<>, StatusCode> {
    let seat = Seat::take(&page).ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
    let (room, news) = enter(&page, &topic).await?;
    let stop = page.stop.clone();
    Ok(unfold((news, room, true, seat, stop), |(mut news, room, whole, seat, stop)| async move {
        if whole {
            let all = message(&room.shown.lock().unwrap_or_else(PoisonError::into_inner));
            return Some((all, (news, room, false, seat, stop)));
        }
        let next = tokio::select! {
            () = stop.cancelled() => return None,
            next = news.recv() => next,
        };
        match next {
            Ok(text) => Some((text, (news, room, false, seat, stop))),
            Err(broadcast::error::RecvError::Lagged(_)) => {
                let all = message(&room.shown.lock().unwrap_or_else(PoisonError::into_inner));
                Some((all, (news, room, false, seat, stop)))
            }
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }))
}

fn message(sections: &Shown) -> Arc<str> {
    json!({ "sections": sections }).to_string().into()
}

/// The room of a topic and a seat in it; the first who enters has its page made.
async fn enter(page: &Arc<Page>, topic: &Topic) -> Result<(Room, broadcast::Receiver<Arc<str>>), StatusCode> {
    // Seated under the lock: nobody enters a room that is being left.
    let seated = |room: &Room| (room.clone(), room.news.subscribe());
    let known = page.hub.rooms.lock().unwrap_or_else(PoisonError::into_inner).get(topic).map(seated);
    if let Some(known) = known {
        return Ok(known);
    }
    let shown = make(page, topic).await.ok_or(StatusCode::NOT_FOUND)?;
    let mut rooms = page.hub.rooms.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(room) = rooms.get(topic) {
        return Ok(seated(room)); // somebody else was faster
    }
    let room = Room { news: broadcast::Sender::new(BEHIND_MAX), shown: Arc::new(Mutex::new(shown)) };
    let own = seated(&room);
    rooms.insert(topic.clone(), room.clone());
    tokio::spawn(keep(page.clone(), topic.clone(), room));
    Ok(own)
}

/// Makes the page anew when it may be different, for as long as somebody looks.
async fn keep(page: Arc<Page>, topic: Topic, room: Room) {
    let mut touched = page.hub.touched.subscribe();
    loop {
        wait_for(&mut touched, &topic, &page).await;
        if page.stop.is_cancelled() {
            break;
        }
        {
            let mut rooms = page.hub.rooms.lock().unwrap_or_else(PoisonError::into_inner);
            // Under the lock, as seats are taken.
            if room.news.receiver_count() == 0 {
                rooms.remove(&topic);
                return;
            }
        }
        let Some(fresh) = make(&page, &topic).await else { continue };
        let changed: Shown = {
            let mut shown = room.shown.lock().unwrap_or_else(PoisonError::into_inner);
            let changed = fresh.iter().filter(|(id, html)| shown.get(*id) != Some(html));
            let changed = changed.map(|(id, html)| (id.clone(), html.clone())).collect();
            *shown = fresh;
            changed
        };
        if !changed.is_empty() {
            let _ = room.news.send(message(&changed));
        }
    }
    page.hub.rooms.lock().unwrap_or_else(PoisonError::into_inner).remove(&topic);
}

async fn wait_for(touched: &mut broadcast::Receiver<Touched>, topic: &Topic, page: &Page) {
    let concerns = |ids: &Touched| match topic {
        Topic::Home => true,
        Topic::Watch(id) => ids.is_empty() || ids.contains(id),
    };
    let something = async {
        loop {
            match touched.recv().await {
                Ok(ids) if concerns(&ids) => break,
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => break,
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    };
    tokio::select! {
        () = page.stop.cancelled() => {}
        () = tokio::time::sleep(AT_LEAST) => {}
        () = something => tokio::time::sleep(SETTLE).await,
    }
}

async fn make(page: &Arc<Page>, topic: &Topic) -> Option<Shown> {
    let _one = page.hub.making.acquire().await.ok()?;
    let (own, topic) = (page.clone(), topic.clone());
    let made = tokio::task::spawn_blocking(move || {
        let frame = own.bare_frame("", None, None);
        let html = match topic {
            Topic::Home => own.html.page("home.html", &frame, &views::home(&own, &views::HomeQuery::default())?),
            Topic::Watch(id) => {
                let Some((model, _)) = views::watch(&own, &id)? else { return Ok(None) };
                own.html.page("watch.html", &frame, &model)
            }
        }?;
        let owned = sections(&html).into_iter().map(|(id, html)| (id.to_owned(), html.to_owned())).collect();
        Ok::<_, String>(Some(owned))
    });
    match made.await {
        Ok(Ok(shown)) => shown,
        Ok(Err(error)) => {
            tracing::warn!(error, "a live page was not made");
            None
        }
        Err(_) => None,
    }
}
