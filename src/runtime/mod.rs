//! Assembles the parts into the daemon.

pub mod clock;
pub mod disk;
mod dispatch;
mod driver;
pub mod recover;
pub mod replay;
pub mod turn;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, broadcast, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::settings::DetectorSettings;
use crate::config::{self, Overrides, Settings};
use crate::domain::action::Variables;
use crate::domain::letter::Letter;
use crate::domain::plan::{Expect, HealthReading, ProbeReading, Step};
use crate::domain::service::{Service, SlotSpec, Slots};
use crate::domain::switch::ServiceName;
use crate::domain::time::Span;
use crate::edge::actuators::exec::Executor;
use crate::edge::actuators::health::HealthChecker;
use crate::edge::actuators::{probe, rehearse};
use crate::edge::api::{self, ApiContext, Authority, Facts, Limiter, ReloadRequest, Remote, Tls};
use crate::edge::heartbeat::Heartbeat;
use crate::edge::hooks::Hooks;
use crate::edge::inbox::Inbox;
use crate::edge::metrics::{Metrics, OfResult};
use crate::edge::notify::desk::{Desk, Queries, STATUS_PAGE, filled};
use crate::edge::notify::outbox::{Loops, Outbox};
use crate::edge::notify::{ShownQuery, summary, trial};
use crate::edge::page::{self, PageParts};
use crate::edge::sources::{Finding, Level, Scraper, Sources, graph_link, shown_query};
use crate::edge::{detectors, schedule, systemd, telemetry};
use crate::engine::message::{Input, Job};
use crate::face::watch::{Beside, Query};
use crate::journal::{Journal, JournalError, Reader, Write};
use disk::Disk;
use dispatch::Dispatch;
use driver::Driver;
use turn::Wheel;

/// Exit codes that systemd and people know (sysexits).
const CONFIG: i32 = 78;
const TEMPORARY: i32 = 75;
const ALREADY_RUNNING: i32 = 73;

/// A delivery costs a commit at most. A pipeline sends one for each deployment, Alertmanager one for each group and
/// minute; a queue that was held up for an hour comes at once.
const HOOKS_PER_S: f64 = 50.0;
const HOOKS_BURST: f64 = 200.0;

/// What the journal can make durable in a second with room to spare: a caller beyond it is told to come back.
const ANNOUNCEMENTS_PER_S: f64 = 1000.0;
const ANNOUNCEMENTS_BURST: f64 = 2000.0;

/// A page's worth of looks each second; a script that asks in a loop is told to come back.
const REQUESTS_PER_S: f64 = 200.0;
const REQUESTS_BURST: f64 = 1000.0;

/// Somebody mistypes a token, or a pipeline has an old one. A token has 256 bits: this is for the log's sake.
const GUESSES_PER_S: f64 = 20.0;
const GUESSES_BURST: f64 = 200.0;

/// Turns that a page may lag behind before it is made whole again.
const TOUCHED_MAX: usize = 256;

/// Readings and mails under way when the daemon is told to stop get this long.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// Runs the daemon to its end.
pub fn run(path: &Path, overrides: &Overrides) -> i32 {
    let settings = match config::load(path, overrides) {
        Ok(settings) => settings,
        Err(problems) => {
            eprint!("{problems}");
            return CONFIG;
        }
    };
    telemetry::start(&settings.log);
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("flipback: the runtime does not start: {error}");
            return TEMPORARY;
        }
    };
    match daemon(path, overrides, settings, &runtime) {
        Ok(()) => 0,
        Err((code, why)) => {
            tracing::error!(%why, "flipback ends");
            code
        }
    }
}

type Stop = (i32, String);

fn daemon(
    path: &Path,
    overrides: &Overrides,
    settings: Settings,
    runtime: &tokio::runtime::Runtime,
) -> Result<(), Stop> {
    let temporary = |why: String| (TEMPORARY, why);
    // Clients with pools of connections want a runtime around them from their making to their end.
    let _entered = runtime.enter();
    let (journal, recovered) = Journal::open(&settings.state_dir).map_err(|error| {
        let code = if matches!(error, JournalError::Locked { .. }) { ALREADY_RUNNING } else { TEMPORARY };
        (code, error.to_string())
    })?;
    let engine = recover::engine(&recovered).map_err(|error| temporary(error.to_string()))?;
    let reader = Reader::open(&settings.state_dir).map_err(|error| temporary(error.to_string()))?;
    if let Some(at) = recovered.last_at().filter(|at| *at > clock::wall() && !engine.is_idle()) {
        tracing::warn!(%at, "the journal was written by a clock that is ahead of this one: its watches keep their time");
        let _ = clock::set(at);
    }
    let host = hostname();
    let desk =
        Desk::new(&settings.notify, settings.email.as_ref(), &host).map_err(|error| (CONFIG, error.to_string()))?;
    let desk = Arc::new(RwLock::new(Arc::new(desk)));
    let program = dispatch::own_program().map_err(|error| temporary(error.to_string()))?;
    let executor = Executor::new(&settings.state_dir, program).map_err(|error| temporary(error.to_string()))?;
    let health = HealthChecker::new().map_err(temporary)?;
    let authority = Authority::new(&settings.api, &settings.state_dir).map_err(|why| (CONFIG, why))?;
    let tls = settings.api.tls.as_ref().map(Tls::new).transpose().map_err(|why| (CONFIG, why))?.map(Arc::new);

    let heartbeat = settings.heartbeat.as_ref().map(Heartbeat::new).transpose().map_err(|why| (CONFIG, why))?;
    let (inbox, queue) = Inbox::new();
    let (metrics, facts) = (Arc::new(Metrics::default()), Arc::new(Mutex::new(Facts::default())));
    metrics.reload_good.set(1);
    metrics.reloaded_at_seconds.set(clock::wall().as_secs_f64());
    let touched = broadcast::Sender::new(TOUCHED_MAX);
    let (wake, progress) = (Arc::new(Notify::new()), systemd::Progress::default());
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let scraper = Scraper::new(&settings.state_dir, runtime.handle().clone(), stop.clone(), clock::now);
    let source = Sources::new(&settings, scraper, clock::stepped_ms).map_err(|error| (CONFIG, error.to_string()))?;
    source.configure(&settings.services).map_err(|why| (CONFIG, why))?;
    let source = Arc::new(RwLock::new(source));
    let dispatch = Dispatch {
        runtime: runtime.handle().clone(),
        tasks: tasks.clone(),
        inbox: inbox.clone(),
        reader: reader.clone(),
        source: source.clone(),
        health: health.clone(),
        executor,
        outbox: wake.clone(),
        metrics: metrics.clone(),
        recording: Arc::default(),
    };

    let hooks = Hooks::new(&settings.webhooks).map_err(|why| (CONFIG, why))?;
    let hooks = Arc::new(RwLock::new(Arc::new(hooks)));
    let socket = api::bind_socket(&settings.api.socket).map_err(temporary)?;
    let listener = settings.api.listen.map(|address| {
        let bound = runtime.block_on(TcpListener::bind(address));
        bound.map_err(|error| temporary(format!("api.listen {address}: {error}")))
    });
    let listener = listener.transpose()?;

    // First the configuration and the start go through the loop: what was under way is asked again.
    let (services, drills) = (settings.services.clone(), settings.drills.clone());
    let brakes = settings.brakes;
    for input in [Input::Configured { services, brakes }, Input::Started, Input::Cron { job: Job::RecordBaseline }] {
        inbox.tell(input).map_err(|_| temporary("the queue is closed".into()))?;
    }
    let carrier = dispatch.clone();
    let driver = Driver {
        wheel: Wheel::new(engine),
        disk: Disk::new(journal, &settings.state_dir, progress.clone()),
        queue,
        progress: progress.clone(),
        metrics: metrics.clone(),
        facts: facts.clone(),
        touched: touched.clone(),
        dispatch: Box::new(move |commands| carrier.carry_out(commands)),
    };
    let (ended, mut driver_ended) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new()
        .name("driver".into())
        .spawn(move || {
            let _ = ended.send(driver.run());
        })
        .map_err(|error| temporary(format!("the driver's thread: {error}")))?;

    let looking = Looking {
        source: source.clone(),
        inbox: inbox.clone(),
        metrics: metrics.clone(),
        tasks: tasks.clone(),
        runtime: runtime.handle().clone(),
        stop: Mutex::new(stop.child_token()),
        parent: stop.clone(),
    };
    looking.begin(&settings.detectors);
    let settings = Arc::new(RwLock::new(Arc::new(settings)));
    let outbox = Outbox {
        reader: reader.clone(),
        inbox: inbox.clone(),
        desk: desk.clone(),
        queries: shown_queries(settings.clone()),
        now: clock::now,
        routed: tokio::sync::watch::Sender::new(()),
    };
    let telling = Loops {
        outbox: outbox.clone(),
        tasks: TaskTracker::new(),
        stop: stop.clone(),
        anew: Mutex::default(),
        runtime: runtime.handle().clone(),
    };
    let (reload_sender, mut reloads) = mpsc::channel::<ReloadRequest>(4);
    let ready = Arc::new(AtomicBool::new(true));
    let context = Arc::new(ApiContext {
        inbox: inbox.clone(),
        reader: reader.clone(),
        settings: settings.clone(),
        facts: facts.clone(),
        reload: reload_sender,
        live_check: live_check(settings.clone(), source.clone(), health),
        record_baseline: record_baseline(settings.clone(), dispatch),
        test_notify: test_notify(outbox.clone()),
        hooks: hooks.clone(),
        hook_limit: Limiter::new(HOOKS_PER_S, HOOKS_BURST),
        announce_limit: Limiter::new(ANNOUNCEMENTS_PER_S, ANNOUNCEMENTS_BURST),
        request_limit: Limiter::new(REQUESTS_PER_S, REQUESTS_BURST),
        guess_limit: Limiter::new(GUESSES_PER_S, GUESSES_BURST),
        authority,
        metrics: metrics.clone(),
        ready: ready.clone(),
        started_at: clock::now(),
        now: clock::now,
        stepped_ms: clock::stepped_ms,
    });
    let page = listener.as_ref().and_then(|_| {
        page::router(PageParts {
            api: context.clone(),
            access: current(&settings).api.page,
            touched,
            beside: beside(outbox.clone()),
            known_as: known_as(outbox.clone()),
            host: host.clone(),
            stop: stop.clone(),
        })
    });
    let remote = listener.map(|listener| Remote { listener, tls: tls.clone(), page });
    runtime.spawn(api::serve(context, socket, remote, stop.clone()));
    let routing = runtime.spawn(outbox.clone().route(wake, stop.clone()));
    telling.begin();
    if let Some(heartbeat) = heartbeat {
        runtime.spawn(heartbeat.beat(progress.clone(), metrics.clone(), stop.clone()));
    }
    runtime.spawn(systemd::watchdog(progress, stop.clone()));
    let facts_seen = facts.clone();
    runtime.spawn(systemd::keep_status(move || status_line(&facts), stop.clone()));

    let result = runtime.block_on(async {
        let digest = current(&settings).digest.clone();
        let digest = digest.map(|digest| {
            let (settings, facts) = (settings.clone(), facts_seen.clone());
            let (reader, inbox) = (outbox.reader.clone(), inbox.clone());
            let post = move || {
                if let Err(error) = post_digest(&settings, &facts, &reader, &inbox) {
                    tracing::error!(%error, "a digest was not made");
                }
            };
            (digest.cron, Arc::new(post) as Arc<dyn Fn() + Send + Sync>)
        });
        let _scheduler = schedule::start(&inbox, drills.as_deref(), digest)
            .await
            .map_err(|error| (TEMPORARY, format!("the scheduler does not start: {error}")))?;
        let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()));
        let (Ok(mut term), Ok(mut int), Ok(mut hup)) = signals else {
            return Err((TEMPORARY, "signals cannot be caught".to_owned()));
        };
        let tls = tls.as_deref();
        let reload = || reload(path, overrides, &settings, &inbox, &source, &metrics, &hooks, &looking, &telling, tls);
        let names: Vec<String> = current(&settings).services.iter().map(|s| s.name.to_string()).collect();
        tracing::info!(version = env!("CARGO_PKG_VERSION"), services = names.join(","), "flipback is up");
        systemd::ready();
        loop {
            tokio::select! {
                _ = term.recv() => break,
                _ = int.recv() => break,
                _ = hup.recv() => {
                    let _ = reload();
                }
                Some(answer) = reloads.recv() => {
                    let _ = answer.send(reload());
                }
                ended = &mut driver_ended => {
                    let why = match ended {
                        Ok(Err(error)) => error.to_string(),
                        Ok(Ok(())) | Err(_) => "the decision loop has ended".to_owned(),
                    };
                    return Err((TEMPORARY, why));
                }
            }
        }
        tracing::info!("flipback stops; open watches go on when it is up again");
        systemd::stopping();
        ready.store(false, Ordering::Relaxed);
        stop.cancel();
        telling.tasks.close();
        let _ = tokio::time::timeout(DRAIN_LIMIT, async { tokio::join!(routing, telling.tasks.wait()) }).await;
        Ok(())
    });
    stop.cancel();
    inbox.stop();
    let _ = thread.join();
    if let Ok(settings) = settings.read() {
        let _ = std::fs::remove_file(&settings.api.socket);
    }
    result
}

/// What `systemctl status` shows.
fn status_line(facts: &Mutex<Facts>) -> String {
    let facts = facts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let armed = if facts.armed { "armed" } else { "DISARMED" };
    let disarmed = facts.services.values().filter(|s| !s.armed).count();
    let some = if facts.armed && disarmed > 0 { format!(", {disarmed} services disarmed") } else { String::new() };
    format!("{armed}{some}; {} services, {} open watches", facts.services.len(), facts.open_watches)
}

fn current(settings: &RwLock<Arc<Settings>>) -> Arc<Settings> {
    settings.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
}

/// The detectors that run, and how they are begun anew.
struct Looking {
    source: Arc<RwLock<Sources>>,
    inbox: Inbox,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    runtime: tokio::runtime::Handle,
    stop: Mutex<CancellationToken>,
    parent: CancellationToken,
}

impl Looking {
    /// Ends those that run; the new ones tell what they see first, which changes nothing where it is known.
    fn begin(&self, all: &[DetectorSettings]) {
        let mut stop = self.stop.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        stop.cancel();
        *stop = self.parent.child_token();
        self.metrics.detector_up.clear();
        detectors::start(all, &self.source, &self.inbox, &self.metrics, &self.tasks, &self.runtime, &stop);
    }
}

/// Takes a new configuration whole or not at all. What cannot change while running is said.
#[allow(clippy::too_many_arguments, reason = "everything that a configuration reaches")]
fn reload(
    path: &Path,
    overrides: &Overrides,
    settings: &RwLock<Arc<Settings>>,
    inbox: &Inbox,
    source: &RwLock<Sources>,
    metrics: &Metrics,
    hooks: &RwLock<Arc<Hooks>>,
    looking: &Looking,
    telling: &Loops,
    tls: Option<&Tls>,
) -> Result<String, String> {
    let taken = || -> Result<String, String> {
        let fresh = config::load(path, overrides).map_err(|problems| problems.to_string())?;
        let old = current(settings);
        if (&fresh.state_dir, &fresh.api, &fresh.drills, &fresh.digest, &fresh.heartbeat)
            != (&old.state_dir, &old.api, &old.drills, &old.digest, &old.heartbeat)
        {
            return Err(
                "state_dir, [api], [drills], [digest] and [heartbeat] change only with a restart: systemctl restart \
                 flipback"
                    .into(),
            );
        }
        let host = telling.outbox.desk().host.clone();
        let desk = Desk::new(&fresh.notify, fresh.email.as_ref(), &host).map_err(|error| error.to_string())?;
        let scraper = source.read().unwrap_or_else(std::sync::PoisonError::into_inner).scraper();
        let sources = Sources::new(&fresh, scraper, clock::stepped_ms).map_err(|error| error.to_string())?;
        let fresh_hooks = Hooks::new(&fresh.webhooks)?;
        // A renewed certificate under the same name.
        let certificate = tls.map(Tls::fresh).transpose()?;
        let services = fresh.services.clone();
        let count = services.len();
        let brakes = fresh.brakes;
        sources.configure(&services)?;
        inbox.tell(Input::Configured { services, brakes }).map_err(|_| "flipback is busy: reload again".to_owned())?;
        *source.write().unwrap_or_else(std::sync::PoisonError::into_inner) = sources;
        *hooks.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(fresh_hooks);
        *telling.outbox.desk.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(desk);
        if let (Some(tls), Some(fresh)) = (tls, certificate) {
            tls.take(fresh);
        }
        // Secrets and templates may have changed in their files: always anew.
        telling.begin();
        if fresh.detectors != old.detectors {
            looking.begin(&fresh.detectors);
        }
        *settings.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(fresh);
        Ok(format!("configuration taken: {count} services; open watches keep the policy they began with"))
    };
    let result = taken();
    match &result {
        Ok(text) => {
            metrics.reload_good.set(1);
            metrics.reloads.get_or_create(&OfResult { result: "taken" }).inc();
            metrics.reloaded_at_seconds.set(clock::wall().as_secs_f64());
            tracing::info!(%text, "reloaded");
        }
        Err(why) => {
            metrics.reload_good.set(0);
            metrics.reloads.get_or_create(&OfResult { result: "refused" }).inc();
            tracing::error!(%why, "reload refused; the old configuration stays whole");
        }
    }
    result
}

type LiveCheck = Box<dyn Fn(Option<ServiceName>) -> api::Async<Vec<Finding>> + Send + Sync>;

fn live_check(settings: Arc<RwLock<Arc<Settings>>>, source: Arc<RwLock<Sources>>, health: HealthChecker) -> LiveCheck {
    Box::new(move |only| {
        let settings = current(&settings);
        let shared = source.clone();
        let source = source.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let health = health.clone();
        Box::pin(async move {
            let mut findings = Vec::new();
            for service in settings.services.iter().filter(|s| only.as_ref().is_none_or(|name| *name == s.name)) {
                findings.extend(source.examine(service, clock::now).await);
                findings.extend(check_service(service, &health).await);
                for detector in settings.detectors.iter().filter(|d| d.service == service.name) {
                    let subject = format!("{} detector {}", service.name, detector.name);
                    findings.push(match detectors::look(detector, &shared).await {
                        Ok(Some(seen)) => Finding { subject, level: Level::Ok, text: format!("sees {seen}") },
                        Ok(None) => Finding { subject, level: Level::Ok, text: "sees traffic on its way".into() },
                        Err(why) => Finding { subject, level: Level::Error, text: why },
                    });
                }
            }
            findings
        })
    })
}

/// Health checks and probes as the daemon itself would run them, its sandbox included.
async fn check_service(service: &Service, health: &HealthChecker) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Slots::Named(named) = &service.slots {
        for (slot, spec) in named {
            let subject = format!("{} {slot} health", service.name);
            findings.push(match &spec.health {
                None => {
                    Finding { subject, level: Level::Warning, text: "no health check: a dead slot is seen late".into() }
                }
                Some(check) => match health.ask(check).await {
                    HealthReading::Good => Finding { subject, level: Level::Ok, text: "good".into() },
                    HealthReading::Bad(why) => Finding { subject, level: Level::Warning, text: why },
                    HealthReading::Unreadable(why) => Finding { subject, level: Level::Error, text: why },
                },
            });
        }
    }
    for (step, slots) in with_plans(service) {
        let subject = format!("{} step {}", service.name, step.name);
        findings.push(match rehearse::able(&step.action).await {
            Ok(text) => Finding { subject, level: Level::Ok, text },
            Err(text) => Finding { subject, level: Level::Error, text },
        });
        let subject = format!("{} probe of {}", service.name, step.name);
        findings.push(match &step.probe {
            None => Finding { subject, level: Level::Warning, text: "no probe: nothing proves that it worked".into() },
            Some(p) => match probe::ask(p).await {
                ProbeReading::Shows(line) => {
                    let known = match &service.slots {
                        _ if !slots || matches!(p.expect, Expect::Fixed(_)) => true,
                        Slots::Named(named) => named.keys().any(|slot| p.expect.word(slot) == line),
                        Slots::Versions => true,
                    };
                    let level = if known { Level::Ok } else { Level::Error };
                    let text = if known {
                        format!("shows {line:?}")
                    } else {
                        format!("shows {line:?}, which is no slot of this service")
                    };
                    Finding { subject, level, text }
                }
                ProbeReading::Unreadable(why) => Finding { subject, level: Level::Error, text: why },
            },
        });
    }
    findings
}

/// Every step of the service, and whether its probe shows slots. `$service` has its value; slots have none yet.
fn with_plans(service: &Service) -> Vec<(Step, bool)> {
    let vars = Variables::from([("service", service.name.to_string())]);
    let resolved = |step: &Step| step.resolve(&vars);
    let flags = service.flags.values().flat_map(|plan| &plan.steps).map(|step| (resolved(step), false));
    let after = service.after_passed.steps.iter().map(|step| (resolved(step), false));
    service.plan.steps.iter().map(|step| (resolved(step), true)).chain(flags).chain(after).collect()
}

type Recorder = Box<dyn Fn(ServiceName) -> api::Async<Result<usize, String>> + Send + Sync>;

fn record_baseline(settings: Arc<RwLock<Arc<Settings>>>, dispatch: Dispatch) -> Recorder {
    Box::new(move |name| {
        let (settings, dispatch) = (current(&settings), dispatch.clone());
        Box::pin(async move {
            let service = settings.services.iter().find(|s| s.name == name).ok_or("there is no such service")?;
            let (metrics, slots) = (service.metrics.clone(), service.slots.specs());
            dispatch.record(&crate::engine::message::RecordAsk { service: name, metrics, slots }).await
        })
    })
}

fn test_notify(outbox: Outbox) -> api::TestNotify {
    Box::new(move |receiver, kind| {
        let outbox = outbox.clone();
        Box::pin(async move { trial::try_out(&outbox, receiver.as_deref(), kind.as_deref()).await })
    })
}

/// Posts a digest of the time behind.
fn post_digest(
    settings: &RwLock<Arc<Settings>>,
    facts: &Mutex<Facts>,
    reader: &Reader,
    inbox: &Inbox,
) -> Result<(), String> {
    let settings = current(settings);
    let Some(digest) = &settings.digest else { return Ok(()) };
    let facts = facts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    // Two that come at once are one: its key is its minute.
    let at = clock::now().floor_to(Span::from_mins(1));
    let digest =
        summary::digest(reader, &settings.services, &facts, at, digest.covers).map_err(|error| error.to_string())?;
    let letter = Box::new(Letter::Digest(Box::new(digest)));
    inbox.write(Write::LetterPosted { letter, at }).map_err(|error| format!("{error:?}"))
}

/// What messages say of a watch besides, for its page.
fn beside(outbox: Outbox) -> page::FindBeside {
    Arc::new(move |w, now| {
        let queries = (outbox.queries)(w, now);
        let links = outbox.desk().links_of(w, now);
        Beside {
            queries: queries.into_iter().map(|q| Query { name: q.name, query: q.query, link: q.link }).collect(),
            // The page needs no link to itself.
            links: links.into_iter().filter(|link| link.name != STATUS_PAGE).collect(),
        }
    })
}

/// The host of the page's own link.
fn known_as(outbox: Outbox) -> page::KnownAs {
    Arc::new(move || {
        let desk = outbox.desk();
        let link = filled(desk.status_page()?, |_| "x".to_owned());
        reqwest::Url::parse(&link).ok()?.host_str().map(str::to_owned)
    })
}

/// For each judged signal the query that shows it, and a link.
fn shown_queries(settings: Arc<RwLock<Arc<Settings>>>) -> Queries {
    Arc::new(move |w, now| {
        let settings = current(&settings);
        let base = settings.prometheus.as_ref().map(|p| p.external_url.as_ref().unwrap_or(&p.url));
        // What is not in Prometheus has no graph there.
        let base = base.filter(|_| w.metrics.from.needs_prometheus());
        let spec = settings
            .services
            .iter()
            .find(|s| s.name == w.switch.service)
            .and_then(|s| s.slots.spec(&w.switch.new).cloned())
            .unwrap_or_else(SlotSpec::default);
        let (at, range) = match &w.breach {
            Some(breach) => (breach.to, Span::from_mins(5)),
            None => (now, Span::from_mins(5)),
        };
        let evidence = w.telling();
        evidence
            .iter()
            .filter_map(|e| {
                let query = shown_query(&w.metrics, &w.switch.service, &w.switch.new, &spec, &e.signal, range)?;
                let link = base.map(|base| graph_link(base, &query, at, Span::from_mins(60)));
                Some(ShownQuery { signal: e.signal.clone(), name: e.signal.to_string(), query, link })
            })
            .collect()
    })
}

fn hostname() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = text.trim();
    if name.is_empty() { "localhost".into() } else { name.to_owned() }
}
