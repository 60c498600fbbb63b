//! Servers that scrape the same: asked together, and believed when enough of them say the same.

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::client::{Prometheus, SourceError};
use super::examine::Finding;
use super::observe::Answer;
use crate::config::settings::PrometheusSettings;
use crate::domain::counts::Counts;
use crate::domain::service::Service;
use crate::domain::signal::{FailureKind, Observation, ReadFailure, Reading};
use crate::domain::time::{Span, Timestamp};
use crate::engine::message::{CommandId, ObserveAsk, RecordAsk, RecordedCells};

/// Of two servers' counts, besides what their scrapes' phases explain.
const APART_SHARE: f64 = 0.1;
const APART_EVENTS: f64 = 10.0;

/// So long the first in the list may be later than the others: taking turns would count a scrape's worth twice or not.
const PREFERRED_WAIT: Span = Span::from_millis(300);

#[derive(Clone)]
pub struct Replicas {
    all: Vec<Prometheus>,
    quorum: usize,
}

impl Replicas {
    pub fn new(settings: &PrometheusSettings, stepped_ms: fn() -> i64) -> Result<Replicas, SourceError> {
        let first = Prometheus::new(settings)?.with_steps(stepped_ms);
        let mut all = vec![first];
        for url in &settings.replicas {
            let settings = PrometheusSettings { url: url.clone(), ..settings.clone() };
            all.push(Prometheus::new(&settings)?.with_steps(stepped_ms));
        }
        Ok(Replicas { all, quorum: settings.quorum.max(1) })
    }

    pub fn first(&self) -> &Prometheus {
        // There is always one.
        &self.all[0]
    }

    pub async fn observe(&self, now: fn() -> Timestamp, asks: Vec<(CommandId, ObserveAsk)>) -> Vec<Answer> {
        if self.all.len() == 1 {
            return self.first().observe(now, asks).await;
        }
        let ask = |server: Prometheus, i: usize| {
            let asks = asks.clone();
            async move { (i, server.observe(now, asks).await) }
        };
        let mut asked: FuturesUnordered<_> =
            self.all.iter().enumerate().map(|(i, server)| ask(server.clone(), i)).collect();
        let mut came: Vec<Vec<Answer>> = vec![Vec::new(); self.all.len()];
        let mut until = None;
        // A server that hangs keeps nobody waiting once enough of the others have answered.
        loop {
            let next = match until {
                None => asked.next().await,
                Some(until) => tokio::time::timeout_at(until, asked.next()).await.unwrap_or(None),
            };
            let Some((i, answers)) = next else { break };
            if let Some(place) = came.get_mut(i) {
                *place = answers;
            }
            if until.is_none() && asks.iter().all(|(id, ask)| self.choose(id, ask.grid, &came).is_ok()) {
                until = Some(tokio::time::Instant::now() + PREFERRED_WAIT.to_std());
            }
        }
        asks.iter().map(|(id, ask)| self.choose(id, ask.grid, &came).unwrap_or_else(|why| why)).collect()
    }

    fn choose(&self, id: &CommandId, grid: Span, came: &[Vec<Answer>]) -> Result<Answer, Answer> {
        let answers: Vec<Answer> =
            came.iter().filter_map(|all| all.iter().find(|answer| answer.0 == *id)).cloned().collect();
        chosen(id, answers, self.quorum, self.all.len(), grid)
    }

    /// By the first that answers.
    pub async fn record(
        &self,
        ask: &RecordAsk,
        from: Timestamp,
        width: Span,
    ) -> Result<Vec<RecordedCells>, ReadFailure> {
        let mut why = None;
        for server in &self.all {
            match server.record(ask, from, None, width).await {
                Ok(cells) => return Ok(cells),
                Err(failure) => {
                    why.get_or_insert(failure);
                }
            }
        }
        Err(why.unwrap_or(ReadFailure { kind: FailureKind::Unreachable, detail: "no server answered".into() }))
    }

    pub async fn examine(&self, service: &Service) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (i, server) in self.all.iter().enumerate() {
            let found = server.examine(service).await.into_iter();
            findings.extend(found.map(|f| match i {
                0 => f,
                i => Finding { subject: format!("{} (replica {i})", f.subject), ..f },
            }));
        }
        findings
    }
}

/// The first server's answer that so many others bear out; else why there is none.
fn chosen(id: &CommandId, answers: Vec<Answer>, quorum: usize, servers: usize, grid: Span) -> Result<Answer, Answer> {
    let agree = |one: &Answer| answers.iter().filter(|other| agrees(one, other, grid)).count();
    let failed = |answer: &Answer| matches!(answer.1, Observation::Failed(_));
    if let Some(found) = answers.iter().find(|one| !failed(one) && agree(one) >= quorum) {
        return Ok(found.clone());
    }
    let usable = answers.iter().filter(|answer| !failed(answer)).count();
    let why = answers.iter().find_map(|answer| match &answer.1 {
        Observation::Failed(failure) => Some(failure.clone()),
        Observation::Cell(_) | Observation::Empty { .. } | Observation::Absent { .. } => None,
    });
    let failure = if usable < quorum {
        let (kind, detail) =
            why.map_or((FailureKind::Timeout, "no answer in time".to_owned()), |why| (why.kind, why.detail));
        ReadFailure { kind, detail: format!("{usable} of {servers} servers answer, {quorum} are wanted: {detail}") }
    } else {
        let shown = shown(&answers);
        ReadFailure {
            kind: FailureKind::Unusable,
            detail: format!("the servers do not say the same, {quorum} that agree are wanted: {shown}"),
        }
    };
    let clock = answers.iter().find_map(|answer| answer.2);
    Err((id.clone(), Observation::Failed(failure), clock))
}

fn shown(answers: &[Answer]) -> String {
    let one = |answer: &Answer| match &answer.1 {
        Observation::Cell(cell) => match cell.counts.value() {
            Some(counts) => format!("{} bad of {}", counts.bad(), counts.requests()),
            None => "unusable counts".into(),
        },
        Observation::Empty { .. } => "no new sample".into(),
        Observation::Absent { .. } => "no series".into(),
        Observation::Failed(failure) => failure.kind.as_str().to_owned(),
    };
    answers.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// Two servers scrape the same at different instants: two scrapes' worth of difference is none. One that has no new
/// sample yet contradicts nobody.
fn agrees(a: &Answer, b: &Answer, grid: Span) -> bool {
    match (&a.1, &b.1) {
        (Observation::Cell(x), Observation::Cell(y)) => {
            let length = x.to.since(x.from).max(grid).as_secs_f64();
            let interval = a.2.and_then(|clock| clock.scrape_interval).unwrap_or(grid).as_secs_f64();
            let phase = (2.0 * interval / length).min(1.0);
            match (&x.counts, &y.counts) {
                (Reading::Value(x), Reading::Value(y)) => alike(*x, *y, APART_SHARE + phase),
                (Reading::Failed(_), Reading::Failed(_)) | (Reading::Absent, Reading::Absent) => true,
                _ => false,
            }
        }
        (Observation::Cell(_) | Observation::Empty { .. }, Observation::Empty { .. })
        | (Observation::Empty { .. }, Observation::Cell(_))
        | (Observation::Absent { .. }, Observation::Absent { .. }) => true,
        _ => false,
    }
}

fn alike(x: Counts, y: Counts, share: f64) -> bool {
    let near = |a: f64, b: f64| (a - b).abs() <= share * a.max(b) + APART_EVENTS;
    near(x.requests(), y.requests()) && near(x.bad(), y.bad())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::signal::{SlotCell, SourceClock};
    use crate::domain::switch::SwitchId;

    const TICK: Span = Span::from_secs(15);

    fn answer(observation: Observation) -> Answer {
        let id = CommandId { switch: SwitchId::try_new("checkout-1").unwrap(), n: 1 };
        let clock = SourceClock { skew_ms: 0, settle: TICK, scrape_interval: Some(Span::from_secs(5)) };
        (id, observation, Some(clock))
    }

    fn counted(requests: f64, bad: f64) -> Answer {
        let from = Timestamp::from_millis(0);
        answer(Observation::Cell(Box::new(SlotCell {
            from,
            to: from + Span::from_secs(60),
            counts: Reading::Value(Counts::try_new(requests, bad).unwrap()),
            latency: Reading::Absent,
            targets: Reading::Absent,
            custom: Vec::new(),
            remarks: Vec::new(),
        })))
    }

    fn down() -> Answer {
        answer(Observation::Failed(ReadFailure { kind: FailureKind::Unreachable, detail: "refused".into() }))
    }

    fn empty() -> Answer {
        answer(Observation::Empty { to: Timestamp::from_millis(0), targets: Reading::Absent })
    }

    fn requests(answers: Vec<Answer>, quorum: usize) -> Result<f64, String> {
        let (servers, id) = (answers.len(), answers[0].0.clone());
        match chosen(&id, answers, quorum, servers, TICK).unwrap_or_else(|why| why).1 {
            Observation::Cell(cell) => Ok(cell.counts.value().unwrap().requests()),
            Observation::Empty { .. } => Ok(-1.0),
            Observation::Failed(failure) => Err(failure.to_string()),
            Observation::Absent { .. } => Err("absent".into()),
        }
    }

    #[test]
    fn with_one_of_two_wanted_the_other_takes_over() {
        assert_eq!(requests(vec![counted(3000.0, 3.0), counted(2950.0, 4.0)], 1), Ok(3000.0));
        assert_eq!(requests(vec![down(), counted(2950.0, 4.0)], 1), Ok(2950.0));
        assert!(requests(vec![down(), down()], 1).unwrap_err().contains("0 of 2 servers answer"));
    }

    #[test]
    fn with_two_wanted_one_liar_or_one_dead_is_blindness() {
        assert_eq!(requests(vec![counted(3000.0, 3.0), counted(2700.0, 9.0)], 2), Ok(3000.0), "phases differ");
        let lie = requests(vec![counted(3000.0, 1500.0), counted(3000.0, 3.0)], 2).unwrap_err();
        assert!(lie.contains("do not say the same") && lie.contains("1500 bad of 3000; 3 bad of 3000"), "{lie}");
        let dead = requests(vec![counted(3000.0, 3.0), down()], 2).unwrap_err();
        assert_eq!(dead, "unreachable: 1 of 2 servers answer, 2 are wanted: refused");
        // The third outvotes the liar.
        let three = vec![counted(3000.0, 1500.0), counted(3000.0, 3.0), counted(3010.0, 2.0)];
        assert_eq!(requests(three, 2), Ok(3000.0));
    }

    #[test]
    fn one_that_has_no_new_sample_contradicts_nobody() {
        assert_eq!(requests(vec![counted(3000.0, 3.0), empty()], 2), Ok(3000.0));
        assert_eq!(requests(vec![empty(), counted(3000.0, 3.0)], 2), Ok(-1.0));
    }
}
